"""Views between training cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distilled_splat.render import View
from distilled_splat.virtual_views import views_between


def ring(count: int, radius: float = 2.0) -> list[View]:
    """Cameras on a circle that look at its middle, OpenCV axes."""
    views = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        centre = radius * np.array([np.cos(angle), np.sin(angle), 0.0])
        forward = -centre / radius
        right = np.cross(forward, [0.0, 0.0, 1.0])
        rotation = np.stack([right, np.cross(forward, right), forward])
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ centre
        K = torch.tensor([[300.0, 0, 100], [0, 300, 80], [0, 0, 1]])
        views.append(View(torch.from_numpy(viewmat).float(), K, 200, 160))
    return views


def centre_of(view: View) -> np.ndarray:
    viewmat = view.viewmat.double().numpy()
    return -viewmat[:3, :3].T @ viewmat[:3, 3]


def test_views_lie_between_neighbours_and_look_where_they_look() -> None:
    views = ring(24)
    made = views_between(views, 50, neighbours=4)
    assert len(made) == 50
    for place, view in enumerate(made):
        rotation = view.viewmat[:3, :3].double().numpy()
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) == pytest.approx(1)
        centre = centre_of(view)
        # two places along the ring at most: the chord stays close to the circle, and the camera looks inwards
        assert 1.9 < np.linalg.norm(centre) <= 2.0 + 1e-6
        assert rotation[2] @ (-centre / np.linalg.norm(centre)) > np.cos(np.deg2rad(1))
        assert np.linalg.norm(centre - centre_of(views[place % 24])) <= 2 * 2 * np.sin(2 * np.pi / 24) + 1e-6
        assert (view.width, view.height) == (200, 160)


def test_views_are_spread_around_the_way_between_two_cameras() -> None:
    """Two cameras that are 1 apart and 0.2 rad turned: everything can be told by its place between them."""
    views = ring(2)
    for view, turn in zip(views, (0.0, 0.2)):
        rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        view.viewmat[:3, :3] = torch.from_numpy(rotation)
        view.viewmat[:3, 3] = -view.viewmat[:3, :3] @ torch.tensor([turn * 5, 0.0, 0.0])
    made = views_between(views, 4000, spread=0.4)
    centres = np.stack([centre_of(view) for view in made])
    # along the way: uniform over [-0.4, 1.4] and a normal step of 0.4 / sqrt(3); beside it, the normal step alone
    variance = 0.4**2 / 3
    np.testing.assert_allclose(centres.mean(axis=0), [0.5, 0, 0], atol=0.03)
    np.testing.assert_allclose(centres.var(axis=0), [1.8**2 / 12 + variance, variance, variance], rtol=0.1)
    turns = np.stack([view.viewmat[:3, :3].double().numpy() for view in made])
    about_x, about_y = np.arctan2(-turns[:, 1, 2], turns[:, 2, 2]), np.arcsin(turns[:, 0, 2])
    assert about_x.var() == pytest.approx(0.2**2 * variance, rel=0.1)
    assert about_y.var() == pytest.approx(0.2**2 * (1.8**2 / 12 + variance), rel=0.1)
    assert about_y.mean() == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_gives_the_same_views_and_another_one_others() -> None:
    views = ring(8)
    first, again, other = (views_between(views, 5, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.viewmat, b.viewmat) for a, b in zip(first, again))
    assert not all(torch.equal(a.viewmat, b.viewmat) for a, b in zip(first, other))


def test_cameras_that_look_elsewhere_are_no_neighbours() -> None:
    """Two cameras back to back: nothing lies between them, so each stays where it is."""
    views = [view for place, view in enumerate(ring(24)) if place in (0, 12)]
    for view, source in zip(views_between(views, 2), views):
        np.testing.assert_allclose(view.viewmat.numpy(), source.viewmat.numpy(), atol=1e-6)


def test_one_camera_has_no_views_beside_it() -> None:
    assert views_between(ring(1), 10) == []
