"""How far pseudo labels are trusted, by known errors of student and teachers."""

from __future__ import annotations

import pytest
import torch

from distilled_splat.ops.render import Rendered
from distilled_splat.student.trust import LONG_MEMORY, MEMORY, LabelTrust
from distilled_splat.teachers.ensemble import disagreement

PHOTO = torch.full((6, 5, 3), 0.5)


def seen(student: float, ensemble: float, margin: float = 0.25) -> float:
    """Return the trust after one photo that both are off by so much everywhere."""
    trust = LabelTrust(margin)
    trust.see(PHOTO + student, PHOTO - ensemble, PHOTO)
    return trust.value


@pytest.mark.parametrize(
    ("student", "ensemble", "expected"),
    [
        (0.2, 0.1, 1.0),
        (1.5**0.5 * 0.1, 0.1, 1.0),
        (1.375**0.5 * 0.1, 0.1, 0.5),
        (1.25**0.5 * 0.1, 0.1, 0.0),
        (0.1, 0.1, 0.0),
        (0.1, 0.2, 0.0),
        (0.1, 0.0, 1.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_trust_grows_with_what_the_teachers_know_better(student: float, ensemble: float, expected: float) -> None:
    assert seen(student, ensemble) == pytest.approx(expected, abs=1e-5)


def test_without_a_margin_labels_are_trusted_always() -> None:
    assert seen(0.1, 0.2, margin=0.0) == 1.0
    assert LabelTrust(0.25).value == 1.0


def test_the_errors_are_averages_that_forget() -> None:
    trust = LabelTrust(0.3)
    student, ensemble = 0.04, 0.01
    trust.see(PHOTO + 0.2, PHOTO + 0.1, PHOTO)
    for _ in range(7):
        student, ensemble = MEMORY * student + (1 - MEMORY) * 0.01, MEMORY * ensemble + (1 - MEMORY) * 0.0225
        trust.see(PHOTO + 0.1, PHOTO - 0.15, PHOTO)
    assert trust.value == pytest.approx((student - ensemble) / (0.3 * ensemble) - 1, rel=1e-4)
    assert 0 < trust.value < 1


def test_what_the_mask_leaves_out_does_not_count() -> None:
    mask = torch.zeros(6, 5, 1)
    mask[:3] = 1
    label = PHOTO + 0.1
    label[3:] += 0.4
    trust = LabelTrust(0.25)
    trust.see(PHOTO + 0.2, label, PHOTO, mask)
    assert trust.value == 1.0


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [(0.1, 0.1, 0.0), (0.1, 0.05, 0.0), (0.1, 1.15**0.5 * 0.1, 0.5), (0.1, 0.2, 1.0), (0.0, 0.1, 1.0), (0.0, 0.0, 0.0)],
)
def test_labels_between_the_cameras_count_as_the_student_departs_there(
    here: float, there: float, expected: float
) -> None:
    trust = LabelTrust(0.25, 0.3)
    assert trust.overfit == 1.0
    trust.see_between(torch.full((6, 5, 3), here), torch.full((4, 5, 3), -there))
    assert trust.overfit == pytest.approx(expected, abs=1e-5)
    assert trust.value == 1.0


def test_without_an_overfit_margin_labels_between_the_cameras_count_always() -> None:
    trust = LabelTrust(0.25, 0.0)
    trust.see_between(PHOTO, torch.zeros_like(PHOTO))
    assert trust.overfit == 1.0


def test_departures_are_averages_with_a_longer_memory() -> None:
    trust = LabelTrust(0.25, 1.0)
    trust.see_between(torch.full((2, 2, 3), 0.1), torch.full((2, 2, 3), 0.1))
    trust.see_between(torch.full((2, 2, 3), 0.1), torch.full((2, 2, 3), 0.4))
    there = LONG_MEMORY * 0.01 + (1 - LONG_MEMORY) * 0.16
    assert trust.overfit == pytest.approx(there / 0.01 - 1, rel=1e-4)


@pytest.mark.parametrize(
    ("disagreement", "expected"), [(0.0, 1.0), (0.02, 1.0), (0.03, 0.5), (0.04, 0.0), (1.0, 0.0), (None, 0.0)]
)
def test_labels_between_the_cameras_count_while_the_teachers_agree(disagreement: float | None, expected: float) -> None:
    trust = LabelTrust(0.0, 0.0, 2.0)
    there = None if disagreement is None else torch.tensor(disagreement)
    trust.see_between(PHOTO, PHOTO, there)
    assert trust.between == 1.0  # until the teachers were compared with a photo
    # one teacher is measured by the student's error, several by their own
    student, ensemble = (0.1, 0.7) if disagreement is None else (0.7, 0.1)
    trust.see(PHOTO + student, PHOTO + ensemble, PHOTO)
    trust.see_between(PHOTO, PHOTO, there)
    assert trust.between == trust.certain == pytest.approx(expected, abs=1e-5)
    assert trust.value == trust.overfit == 1.0


@pytest.mark.parametrize(("difference", "expected"), [(0.1, 1.0), (0.04**0.5, 1.0), (0.06**0.5, 0.5), (0.3, 0.0)])
def test_one_teacher_disagrees_with_the_student(difference: float, expected: float) -> None:
    trust = LabelTrust(0.0, 0.0, 2.0)
    trust.see(PHOTO + 0.1, PHOTO, PHOTO)
    trust.see_between(torch.zeros_like(PHOTO), torch.full((4, 5, 3), difference))
    assert trust.certain == pytest.approx(expected, abs=1e-5)


def test_without_a_limit_teachers_may_disagree() -> None:
    trust = LabelTrust(0.0)
    trust.see(PHOTO + 0.1, PHOTO, PHOTO)
    trust.see_between(PHOTO, PHOTO, torch.tensor(1e3))
    assert trust.between == 1.0


def test_teachers_disagree_by_the_variance_of_their_colours_over_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    renders = [
        Rendered(1.2 * torch.rand(6, 5, 3, generator=generator), torch.rand(6, 5, 1, generator=generator), None, {})
        for _ in range(3)
    ]
    images = [one.color.clamp(0, 1) + 0.5 * (1 - one.alpha) for one in renders]
    pairs = [(images[a] - images[b]).square().mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    found = disagreement(renders)
    assert found is not None and float(found) == pytest.approx(float(sum(pairs)) / 6, rel=1e-5)
    assert disagreement(renders[:1]) is None
    same = disagreement([renders[0], renders[0]])
    assert same is not None and float(same) == 0
