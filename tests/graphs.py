"""Random graphs of jobs."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from distilled_splat.jobs.graph import Job

NOWHERE = Path("nowhere")


def job(name: str, *needs: str) -> Job:
    return Job(name, (), NOWHERE, NOWHERE.exists, needs)


@st.composite
def graphs(draw: st.DrawFn) -> list[Job]:
    """Return a graph whose jobs stand in any order."""
    count = draw(st.integers(1, 9))
    jobs = [job(f"{i}", *(f"{k}" for k in range(i) if draw(st.integers(0, 2)) == 0)) for i in range(count)]
    return draw(st.permutations(jobs))
