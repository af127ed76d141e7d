"""The rows of the quality benchmark: the students that are trained for comparison, their teachers and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

TEACHER, STUDENT, PAPER = "splatfacto-teacher", "distilled-splatfacto", "distilled-splatfacto-paper"
TEACHERS = (
    "standard", "perturbed", "dropout",
    "standard 2", "standard 3", "perturbed 2", "perturbed 3", "dropout 2", "dropout 3",
)  # fmt: skip
"""Names of teachers: the kind, and a number within the kind. A teacher's index here is its seed."""
THREE_KINDS = TEACHERS[:3]

NO_LABELS = ("--pipeline.model.lambda-kd", "0", "--pipeline.model.virtual-fraction", "0")
LABELLED_PHOTOS = ("--pipeline.model.lambda-kd", "1")
NO_STRUCTURE = ("--pipeline.model.lambda-structure", "0", "--pipeline.model.lambda-depth", "0")
STRUCTURE = ("--pipeline.model.lambda-structure", "1", "--pipeline.model.lambda-depth", "0")
NO_VIRTUAL = ("--pipeline.model.virtual-fraction", "0")
VIRTUAL = ("--pipeline.model.virtual-fraction", "0.5")
FROM_POINTS = (
    "--pipeline.model.start-from", "points", "--pipeline.model.stop-split-at", "12000",
    "--pipeline.model.prune-start", "12000", "--pipeline.model.prune-stop", "21000",
)  # fmt: skip
"""A student without teachers. It grows during two fifths of its run, and is pruned until two thirds of it."""


@dataclass(frozen=True)
class Kind:
    """A kind of student: its row in the table, the names of its teachers, its options, and its method."""

    row: str
    teachers: tuple[str, ...]
    options: tuple[str, ...] = ()
    method: str = STUDENT


def of_paper(change: str, teachers: tuple[str, ...] = THREE_KINDS, options: tuple[str, ...] = ()) -> Kind:
    """Return the paper's student with one change."""
    return Kind(f"paper: {change}", teachers, options, PAPER)


def three_of(variant: str) -> tuple[str, ...]:
    """Return the names of three teachers of one kind."""
    return variant, f"{variant} 2", f"{variant} 3"


def grid(resolution: int) -> tuple[str, ...]:
    """Return the options for this many voxels along each axis of the structural loss's histograms."""
    return "--pipeline.model.structure-resolutions", str(resolution)


DEFAULT, PAPER_ROW, STANDARD_TEACHER = "our default", "the paper's schedule", "standard teacher"
NO_LABELS_ROW = "no labels, from the standard teacher"
NO_LABELS_PAPER = "paper: without labels and structural loss"
KINDS = (
    Kind("no teachers, from the points", ("standard",), (*NO_LABELS, *NO_STRUCTURE, *FROM_POINTS)),
    Kind(NO_LABELS_ROW, ("standard",), (*NO_LABELS, *NO_STRUCTURE)),
    Kind("one standard teacher", ("standard",), (*LABELLED_PHOTOS, *NO_STRUCTURE, *NO_VIRTUAL)),
    Kind("three standard teachers", three_of("standard"), (*LABELLED_PHOTOS, *NO_STRUCTURE, *NO_VIRTUAL)),
    Kind("three kinds", THREE_KINDS, (*LABELLED_PHOTOS, *NO_STRUCTURE, *NO_VIRTUAL)),
    Kind("three kinds + structure", THREE_KINDS, (*LABELLED_PHOTOS, *STRUCTURE, *NO_VIRTUAL)),
    Kind("three kinds + virtual views", THREE_KINDS, (*LABELLED_PHOTOS, *NO_STRUCTURE, *VIRTUAL)),
    Kind("three kinds + structure + virtual views", THREE_KINDS, (*LABELLED_PHOTOS, *STRUCTURE, *VIRTUAL)),
    Kind("our default without structural loss", THREE_KINDS, NO_STRUCTURE),
    Kind(DEFAULT, THREE_KINDS),
    Kind(PAPER_ROW, THREE_KINDS, method=PAPER),
)
PAPER_ABLATION = (
    of_paper("without the standard teacher", ("perturbed", "dropout")),
    of_paper("without the perturbed teacher", ("standard", "dropout")),
    of_paper("without the dropout teacher", ("standard", "perturbed")),
    of_paper("without labels", options=NO_LABELS),
    of_paper("without the structural loss", options=NO_STRUCTURE),
    Kind(NO_LABELS_PAPER, THREE_KINDS, (*NO_LABELS, *NO_STRUCTURE), PAPER),
    *(of_paper(f"one {variant} teacher", (variant,)) for variant in THREE_KINDS),
    *(of_paper(f"three {variant} teachers", three_of(variant)) for variant in THREE_KINDS),
    *(of_paper(f"grid {resolution}", options=grid(resolution)) for resolution in (32, 64, 256)),
)
"""The paper's student with one change each, and its control with two. Unchanged (`PAPER_ROW`) it has a grid of 128."""
CAPPED = "splatfacto capped at N, steps of teacher and student"
STOCK = "splatfacto, its own defaults"
STOCK_OPTIONS = (
    "--pipeline.model.cull-alpha-thresh", "0.1", "--pipeline.model.densify-grad-thresh", "0.0008",
    "--pipeline.model.num-downscales", "2",
)  # fmt: skip
"""Options in which splatfacto differs from our teachers. Its step numbers and learning rates are not scaled to the
run."""
ROWS = (*(kind.row for kind in KINDS), STOCK, CAPPED)
"""The rows to train by default."""
ALL_ROWS = (*ROWS, *(kind.row for kind in PAPER_ABLATION))


def wanted_rows(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the rows to train, in the order of the table.

    Args:
        asked: names of rows, or patterns of them ("paper: *"); empty: `ROWS`.

    Raises:
        ValueError: if no row has such a name.
    """
    for pattern in asked:
        if not any(fnmatchcase(row, pattern) for row in ALL_ROWS):
            raise ValueError(f"There is no row {pattern!r}: choose from {', '.join(map(repr, ALL_ROWS))}.")
    return tuple(row for row in ALL_ROWS if any(fnmatchcase(row, pattern) for pattern in asked)) if asked else ROWS


def control_of(row: str) -> str:
    """Return the control of a row: the student with the same start that learns from the photos only."""
    return NO_LABELS_PAPER if row == PAPER_ROW or row.startswith("paper: ") else NO_LABELS_ROW


def teachers_for(kinds: Sequence[Kind]) -> tuple[str, ...]:
    """Return the names of the teachers that these students need, in the order of `TEACHERS`.

    The three kinds are always included. The standard teacher sets the students' sizes, and the mean of the three kinds
    is the reference for the geometry of all students.
    """
    named = {*THREE_KINDS, *(name for kind in kinds for name in kind.teachers)}
    return tuple(name for name in TEACHERS if name in named)
