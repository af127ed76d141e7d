"""Measurements that users can repeat: how long a step takes, and on what it is spent."""
