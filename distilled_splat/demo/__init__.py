"""The demo: a scene that the package makes itself, distilled by nerfstudio's own commands.

It uses `evaluation` for the table and the picture at the end.
"""
