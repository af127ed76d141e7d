"""Write PlayCanvas' streamed SOG: chunks of a scene at several levels of detail, and lod-meta.json as their index.

https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/streamed-sog describes version 1. Every chunk of
every level is an unbundled SOG in its own folder, so a viewer loads only what it shows.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.nn.functional import pad

from distilled_splat.splat.chunks import Chunk, Tree, chunks_of
from distilled_splat.splat.formats import FORMATS, with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.sog import META

LOD_META = "lod-meta.json"
VERSION = 1
DIGITS = 7


@dataclass(frozen=True)
class Account:
    """The description of a chunk.

    Attributes:
        low: minimum corner of a box around the Gaussians of all levels, 3 coordinates.
        high: maximum corner.
        errors: difference of each level from the first: 0 for the first level, and never less than the level before.
    """

    low: list[float]
    high: list[float]
    errors: list[float]


def alike(levels: Sequence[Gaussians]) -> list[Gaussians]:
    """Return splats with harmonics of one degree, the highest of all that a SOG can have. New coefficients are zero."""
    cut = [with_degree(level, FORMATS["sog"].highest_degree) for level in levels]
    bands = max(level.sh_rest.shape[1] for level in cut)
    return [replace(level, sh_rest=pad(level.sh_rest, (0, 0, 0, bands - level.sh_rest.shape[1]))) for level in cut]


def write_streamed_sog(
    folder: Path, levels: Sequence[Gaussians], tree: Tree, accounts: Sequence[Account]
) -> list[tuple[int, int]]:
    """Write all chunks, and then their index.

    Args:
        folder: an empty folder.
        levels: splats of one scene in one frame and of one degree, from large to small.
        tree: the chunks of the scene.
        accounts: one for each chunk, in the order of `chunks_of`.

    Returns:
        For each level the number of its folders, and their bytes.
    """
    filenames: list[str] = []
    references: list[dict[str, Any]] = []
    sizes = [(0, 0)] * len(levels)
    for place, chunk in enumerate(chunks_of(tree)):
        lods = {}
        for number, (level, members) in enumerate(zip(levels, chunk.members)):
            if len(members) == 0:
                continue
            name = f"{number}_{place}"
            size = write_unbundled(folder / name, level[members.to(level.means.device)])
            sizes[number] = sizes[number][0] + 1, sizes[number][1] + size
            lods[f"{number}"] = {"file": len(filenames), "offset": 0, "count": len(members)}
            filenames.append(f"{name}/{META}")
        references.append(lods)
    counts = [len(level) for level in levels]
    described = {
        "version": VERSION,
        "asset": {"generator": "distilled_splat"},
        "count": sum(counts),
        "counts": counts,
        "lodLevels": len(levels),
        "lodErrors": True,
        "filenames": filenames,
        "tree": node_of(tree, iter(accounts), iter(references)),
    }
    (folder / LOD_META).write_text(json.dumps(described, allow_nan=False, separators=(",", ":")), encoding="utf8")
    return sizes


def write_unbundled(folder: Path, gaussians: Gaussians) -> int:
    """Write an unbundled SOG, and return its bytes."""
    folder.mkdir(parents=True)
    size = 0
    with zipfile.ZipFile(io.BytesIO(FORMATS["sog"].encode(gaussians))) as bundle:
        for name in bundle.namelist():
            content = bundle.read(name)
            (folder / Path(name).name).write_bytes(content)
            size += len(content)
    return size


def node_of(tree: Tree, accounts: Iterator[Account], references: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the description of a region: its box, and its halves, or the levels and errors of its chunk."""
    if isinstance(tree, Chunk):
        account = next(accounts)
        box = {"min": rounded(account.low), "max": rounded(account.high)}
        return {"bound": box, "lods": next(references), "errors": rounded(account.errors)}
    halves = [node_of(side, accounts, references) for side in tree]
    low, high = zip(*((half["bound"]["min"], half["bound"]["max"]) for half in halves))
    return {"bound": {"min": [*map(min, *low)], "max": [*map(max, *high)]}, "children": halves}


def rounded(values: Sequence[float]) -> list[float]:
    """Round numbers to the digits of the format."""
    return [float(f"{value:.{DIGITS}g}") for value in values]
