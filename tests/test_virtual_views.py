"""Views between training cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from distilled_splat.ops.views import View
from distilled_splat.student.virtual_views import views_between


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


def test_views_are_spread_along_the_ways_to_two_neighbours() -> None:
    """Three cameras, each step with a turn of its own: every view can be told by its parts of the two steps."""
    views = ring(3)
    places = np.array([[0, 0, 0], [1.0, 0, 0], [0, 2.0, 0]])
    turns = np.array([[0, 0, 0], [0.2, 0, 0], [0, 0.1, 0]])
    for view, place, turn in zip(views, places, turns):
        rotation = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix().T).float()
        view.viewmat[:3, :3], view.viewmat[:3, 3] = rotation, -rotation @ torch.from_numpy(place).float()
    made = views_between(views, 6000, spread=0.4)[::3]  # those that start from the first camera
    parts = np.stack([centre_of(view) for view in made]) / (1, 2, 1)
    assert abs(parts[:, 2]).max() < 1e-6, "three cameras lie in a plane, and so does all that is made of them"
    matrices = np.stack([view.viewmat[:3, :3].double().numpy().T for view in made])
    turned = Rotation.from_matrix(matrices).as_rotvec() / (0.2, 0.1, 1)
    np.testing.assert_allclose(turned, parts, atol=1e-4)
    # either is the first neighbour half of the time: uniform over [-0.4, 1.4]; the other's part is normal
    for part in parts[:, :2].T:
        assert part.mean() == pytest.approx(0.25, abs=0.03)
        second_moment = (1.8**2 / 12 + 0.5**2 + 0.4**2) / 2
        assert (part**2).mean() == pytest.approx(second_moment, rel=0.1)
    both = parts[:, :2]
    assert ((both > -0.4) & (both < 1.4)).any(axis=1).all()
    assert abs(np.cov(both.T)[0, 1] + 0.25**2) < 0.02


def test_with_one_neighbour_views_stay_on_the_way_there_and_beyond() -> None:
    views = ring(24)[:2]
    first, second = map(centre_of, views)
    for view in views_between(views, 50, spread=0.5):
        part = (centre_of(view) - first) @ (second - first) / ((second - first) @ (second - first))
        assert -0.5 - 1e-6 <= part <= 1.5 + 1e-6
        np.testing.assert_allclose(centre_of(view), first + part * (second - first), atol=1e-6)


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
