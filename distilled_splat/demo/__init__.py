"""The demo: a procedural scene of its own, and the picture that compares what was trained on it."""
