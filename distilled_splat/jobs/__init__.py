"""A graph of jobs and the engines that run it: processes on this machine, or tasks on a Ray cluster."""
