"""`python -m distilled_splat`: the `distilled-splat` command."""

from distilled_splat.cli import main

main()
