"""Whole jobs: teachers and then their student, sweeps over many scenes and sizes, students beside their controls.

It uses `jobs` to run commands, and every subpackage that such a command needs: `evaluation`, `student`, `teachers`,
`training`, `ops` and `runs`.
"""
