"""The demo: a synthetic scene of this package, distilled with nerfstudio's own commands.

It uses `evaluation` for the table and the picture at the end.
"""
