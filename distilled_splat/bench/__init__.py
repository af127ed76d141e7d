"""Measurements that users can repeat: how long a step takes, and what a student is worth beside its controls."""
