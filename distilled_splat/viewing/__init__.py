"""Splats in the browser: read, looked at from a sensible place, rendered for whoever looks at them."""
