"""Runs commands in order: a graph of jobs, and engines that run it on this machine or on a Ray cluster.

It uses `runs` to stop processes, and knows nothing about splats.
"""
