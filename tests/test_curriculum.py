"""What a student's steps look at: photos in their turn, and virtual views as often as labels are trusted."""

from __future__ import annotations

import pytest
import torch

from distilled_splat.ops.views import View
from distilled_splat.student.curriculum import Curriculum


def views(count: int, first: int = 0) -> list[View]:
    return [View(torch.eye(4), torch.eye(3), first + place, 1) for place in range(count)]


def chosen(curriculum: Curriculum, trust: float, photos_only: bool = False) -> list[int]:
    torch.manual_seed(0)
    return [curriculum.choose(2, trust, photos_only).index for _ in range(2000)]


@pytest.mark.parametrize(("fraction", "trust"), [(0.5, 1.0), (0.5, 0.4), (0.9, 1.0)])
def test_virtual_views_come_as_often_as_asked_and_all_alike(fraction: float, trust: float) -> None:
    indices = torch.tensor(chosen(Curriculum(views(3), views(5, 3), fraction), trust))
    assert float((indices >= 3).float().mean()) == pytest.approx(fraction * trust, abs=0.04)
    assert set(indices[indices < 3].tolist()) == {2}
    counts = torch.bincount(indices[indices >= 3] - 3, minlength=5)
    assert len(counts) == 5 and int(counts.max() - counts.min()) < 0.5 * int(counts.max())


@pytest.mark.parametrize(
    "options", [{"trust": 0.0}, {"trust": 1.0, "photos_only": True}], ids=["no trust", "a logged step"]
)
def test_without_trust_and_at_logged_steps_there_is_a_photo(options: dict) -> None:
    assert set(chosen(Curriculum(views(3), views(5, 3), 0.9), **options)) == {2}


def test_a_lesson_knows_its_view_and_whether_there_is_a_photo() -> None:
    curriculum = Curriculum(views(3), views(5, 3), 0.5)
    assert [(curriculum.of(index).view.width, curriculum.of(index).has_photo) for index in (0, 2, 3, 7)] == [
        (0, True), (2, True), (3, False), (7, False),
    ]  # fmt: skip


def test_near_a_photo_are_the_views_that_were_made_from_it() -> None:
    curriculum = Curriculum(views(3), views(5, 3), 0.5)
    found = [{lesson.index for _ in range(50) if (lesson := curriculum.near(photo))} for photo in range(3)]
    assert found == [{3, 6}, {4, 7}, {5}]
    assert Curriculum(views(3), [], 0.5).near(0) is None
