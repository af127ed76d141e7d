"""Pseudo labels: the mean of the teachers' pictures, whatever the background, rendered once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.models.splatfacto import resize_image
from scenes import splat_and_view
from torch import Tensor

from distilled_splat.ops.composite import over_background, stored
from distilled_splat.ops.render import Rendered
from distilled_splat.ops.views import View
from distilled_splat.student.labels import PseudoLabels
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher

BLACK = torch.zeros(3)


class CountingEnsemble(TeacherEnsemble):
    """Counts how often it is asked to render."""

    asked = 0

    def renders(self, view: View, depth: bool = False) -> list[Rendered]:
        self.asked += 1
        return super().renders(view, depth)


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
    label = PseudoLabels(teachers, 10**8).label(0, view, colour)
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
    one = view.width * view.height * 4 * 2
    labels = PseudoLabels(teachers, 5 * one // 2)
    first = [labels.label(index, view, BLACK) for index in range(4)]
    assert teachers.asked == 4
    again = [labels.label(index, view, BLACK) for index in range(4)]
    assert teachers.asked == 6, "two views are kept, two are rendered anew"
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert sum(kept.size for kept in labels.kept.values()) <= 2.5 * one


def test_labels_that_are_forgotten_are_rendered_anew() -> None:
    teachers, view = ensemble()
    labels = PseudoLabels(teachers, budget=10**9)
    first = labels.label(0, view, BLACK)
    labels.forget()
    assert labels.kept_bytes == 0 and not labels.kept
    assert torch.equal(labels.label(0, view, BLACK), first) and teachers.asked == 2


def test_without_memory_every_label_is_rendered() -> None:
    teachers, view = ensemble()
    labels = PseudoLabels(teachers, 0)
    for _ in range(3):
        labels.label(0, view, BLACK)
    assert teachers.asked == 3


@pytest.mark.parametrize("factor", [2, 4])
def test_a_smaller_label_is_averaged_down_as_the_photo_is(factor: int) -> None:
    teachers, view = ensemble()
    labels = PseudoLabels(teachers, 10**8)
    colour = torch.tensor([0.3, 0.6, 0.1])
    small = labels.label(0, view, colour, factor)
    assert small.shape == (view.height // factor, view.width // factor, 3)
    torch.testing.assert_close(small, resize_image(labels.label(0, view, colour), factor), atol=1e-5, rtol=0)
    assert teachers.asked == 1


def test_no_gradient_flows_into_teachers() -> None:
    teachers, view = ensemble()
    for member in teachers.members:
        member.means.requires_grad_()
    assert not PseudoLabels(teachers, 10**8).label(0, view, BLACK).requires_grad


def test_depths_are_believed_where_the_teachers_agree() -> None:
    teachers, view = ensemble()
    labels = PseudoLabels(teachers, 10**8, with_depth=True)
    depth, belief = labels.surface(0, view)
    assert teachers.asked == 1
    labels.label(0, view, BLACK)
    assert teachers.asked == 1, "colours and depths are rendered together"
    renders = teachers.renders(view, depth=True)
    alphas = torch.stack([rendered.alpha for rendered in renders]).double().numpy()
    depths = torch.stack([rendered.depth for rendered in renders if rendered.depth is not None]).double().numpy()
    total = np.maximum(alphas.sum(axis=0), 1e-12)
    mean = (alphas * depths).sum(axis=0) / total
    spread = np.sqrt((alphas * (depths - mean) ** 2).sum(axis=0) / total)
    expected = alphas.mean(axis=0) * np.exp(-((spread / np.maximum(0.05 * mean, 1e-12)) ** 2))
    covered = alphas.mean(axis=0) > 0.01
    np.testing.assert_allclose(depth.numpy()[covered], mean[covered], rtol=2e-3)
    np.testing.assert_allclose(belief.numpy(), expected, atol=2e-3)
    assert expected[covered].max() > 0.2 and expected[covered].min() < 0.01
    small = torch.cat(labels.surface(0, view, 2), dim=-1)
    torch.testing.assert_close(small, resize_image(torch.cat((depth, belief), dim=-1), 2))


def test_one_teacher_is_believed_by_what_it_covers() -> None:
    teachers, view = ensemble()
    alone = TeacherEnsemble(teachers.teachers[:1], "cpu")
    _, belief = PseudoLabels(alone, 0, with_depth=True).surface(0, view)
    torch.testing.assert_close(belief, alone.renders(view)[0].alpha, atol=1e-3, rtol=0)


def test_depths_count_in_the_memory_that_labels_may_take() -> None:
    teachers, view = ensemble()
    one = view.width * view.height * (8 + 4)
    labels = PseudoLabels(teachers, 5 * one // 2, with_depth=True)
    for index in range(4):
        labels.surface(index, view)
    assert len(labels.kept) == 2 and labels.kept_bytes == 2 * one
