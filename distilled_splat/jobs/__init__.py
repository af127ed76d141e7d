"""Commands in order: a graph of jobs, and the engines that run it in slots of this machine or on a Ray cluster.

It uses `runs` for the stopping of processes, and knows nothing of splats.
"""
