"""Cut a scene into chunks: regions that all splats of the scene share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

import torch
from torch import Tensor

from distilled_splat.splat.gaussians import Gaussians


@dataclass(frozen=True)
class Chunk:
    """A region of a scene.

    Attributes:
        members: for each splat the indices of its Gaussians with centres in the region, [n].
    """

    members: tuple[Tensor, ...]


Tree = Union[Chunk, tuple["Tree", "Tree"]]
"""A chunk, or the two halves of a region."""


def cut(splats: Sequence[Gaussians], most: int) -> Tree:
    """Halve a scene across its longest side until no region has more than `most` Gaussians of the first splat.

    Args:
        splats: splats of one scene in one frame; the first sets the cuts.
        most: largest number of Gaussians in a region, positive.
    """
    return halved([splat.means for splat in splats], tuple(torch.arange(len(splat)) for splat in splats), most)


def halved(centres: Sequence[Tensor], members: tuple[Tensor, ...], most: int) -> Tree:
    """Cut a region at the median of the first splat's Gaussians; the other splats are cut at the same plane."""
    first, *others = members
    if len(first) <= most:
        return Chunk(members)
    here = centres[0][first]
    axis = int((here.amax(dim=0) - here.amin(dim=0)).argmax())
    order = here[:, axis].argsort(stable=True)
    half = len(first) // 2
    border = here[order[half], axis]
    sides: tuple[list[Tensor], list[Tensor]] = ([first[order[:half]]], [first[order[half:]]])
    for splat, chosen in zip(centres[1:], others):
        low = splat[chosen, axis] < border
        sides[0].append(chosen[low])
        sides[1].append(chosen[~low])
    return halved(centres, tuple(sides[0]), most), halved(centres, tuple(sides[1]), most)


def chunks_of(tree: Tree) -> Iterator[Chunk]:
    """Yield the chunks of a tree from left to right."""
    if isinstance(tree, Chunk):
        yield tree
    else:
        for side in tree:
            yield from chunks_of(side)
