"""Pseudo labels: the mean of the teachers' pictures, whatever the background, rendered once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nerfstudio.models.splatfacto import resize_image
from test_render import splat_and_view
from torch import Tensor

from distilled_splat.pseudo_labels import PseudoLabels, TeacherEnsemble, over_background, stored
from distilled_splat.readers import Teacher
from distilled_splat.render import Rendered, View

BLACK = torch.zeros(3)


class CountingEnsemble(TeacherEnsemble):
    """Counts how often it is asked to render."""

    asked = 0

    def renders(self, view: View) -> list[Rendered]:
        self.asked += 1
        return super().renders(view)


def ensemble() -> tuple[CountingEnsemble, View]:
    """Three teachers, one of them antialiased."""
    teachers = []
    for seed in range(3):
        gaussians, _ = splat_and_view(seed)
        teachers.append(Teacher(Path(f"{seed}.ckpt"), gaussians, antialiased=seed == 1, frame=None, record={}))
    return CountingEnsemble(teachers, "cpu"), splat_and_view()[1]


def mean_of_composites(teachers: CountingEnsemble, view: View, background: Tensor) -> Tensor:
    pictures = [rendered.color.clamp(0, 1) + (1 - rendered.alpha) * background for rendered in teachers.renders(view)]
    return torch.stack(pictures).mean(dim=0).clamp(0, 1)


@pytest.mark.parametrize("background", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.9, 0.1, 0.4)])
def test_a_label_is_the_mean_of_the_teachers_pictures_over_any_background(background: tuple[float, ...]) -> None:
    teachers, view = ensemble()
    colour = torch.tensor(background)
    label = PseudoLabels(teachers, 100).label(0, view, colour)
    assert label.dtype == torch.float32
    torch.testing.assert_close(label, mean_of_composites(teachers, view, colour), atol=3e-5, rtol=0)


def test_labels_on_the_cpu_are_those_of_other_devices() -> None:
    generator = torch.Generator().manual_seed(0)
    color, alpha = torch.rand(23, 31, 3, generator=generator), torch.rand(23, 31, 1, generator=generator)
    packed = stored(color, alpha)
    background = torch.tensor([0.9, 0.0, 1.0])
    floats = packed.float() / 65535
    expected = (floats[..., :3] + floats[..., 3:] * background).clamp(0, 1)
    assert float((floats - torch.cat((color, 1 - alpha), dim=-1)).abs().max()) <= 0.51 / 65535
    torch.testing.assert_close(over_background(packed, background), expected, atol=1e-6, rtol=0)
    expected = resize_image(floats[..., :3] + floats[..., 3:] * background, 2).clamp(0, 1)
    torch.testing.assert_close(over_background(packed, background, 2), expected, atol=1e-6, rtol=0)


def test_an_antialiased_teacher_is_rendered_as_it_was_trained() -> None:
    teachers, view = ensemble()
    as_is = [rendered.alpha for rendered in teachers.renders(view)]
    teachers.teachers = tuple(replace(teacher, antialiased=False) for teacher in teachers.teachers)
    classic = [rendered.alpha for rendered in teachers.renders(view)]
    assert [torch.equal(a, b) for a, b in zip(as_is, classic)] == [True, False, True]


def test_each_view_is_rendered_once_while_memory_lasts() -> None:
    teachers, view = ensemble()
    one = view.width * view.height * 4 * 2 / 1e6
    labels = PseudoLabels(teachers, 2.5 * one)
    first = [labels.label(index, view, BLACK) for index in range(4)]
    assert teachers.asked == 4
    again = [labels.label(index, view, BLACK) for index in range(4)]
    assert teachers.asked == 6, "two views are kept, two are rendered anew"
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert sum(kept.numel() * kept.element_size() for kept in labels.kept.values()) <= 2.5e6 * one


def test_without_memory_every_label_is_rendered() -> None:
    teachers, view = ensemble()
    labels = PseudoLabels(teachers, 0)
    for _ in range(3):
        labels.label(0, view, BLACK)
    assert teachers.asked == 3


@pytest.mark.parametrize("factor", [2, 4])
def test_a_smaller_label_is_averaged_down_as_the_photo_is(factor: int) -> None:
    teachers, view = ensemble()
    labels = PseudoLabels(teachers, 100)
    colour = torch.tensor([0.3, 0.6, 0.1])
    small = labels.label(0, view, colour, factor)
    assert small.shape == (view.height // factor, view.width // factor, 3)
    torch.testing.assert_close(small, resize_image(labels.label(0, view, colour), factor), atol=1e-5, rtol=0)
    assert teachers.asked == 1


def test_no_gradient_flows_into_teachers() -> None:
    teachers, view = ensemble()
    for member in teachers.members:
        member.means.requires_grad_()
    assert not PseudoLabels(teachers, 100).label(0, view, BLACK).requires_grad
