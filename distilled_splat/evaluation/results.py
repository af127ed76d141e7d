"""results.json of the quality benchmark: read, and added to by one command after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilled_splat.runs.words import type_and_words

GEOMETRY = ("depth_error", "depth_error_beyond", "alpha_error", "floaters")
"""What is measured of the geometry, by the names of `compare.Row`; results of older versions lack it."""
PERCEPTUAL = ("lpips_vgg", "flip")
"""What says how different images look, by the same names, where it was measured; titled by `paired.TITLES`."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the measurements of the quality benchmark.

    Raises:
        ValueError: if it is not such a file.
    """
    return read_file(path)["results"]


def read_file(path: Path) -> dict[str, Any]:
    """Read results.json, whose measurements have all that a table needs.

    Raises:
        ValueError: if it is not such a file.
    """
    wanted = {
        "scene": str, "row": str, "seed": int, "gaussians": int, "megabytes": (int, float),
        "psnr": (int, float), "ssim": (int, float), "fraction": (int, float, type(None)),
        "seconds": (int, float, type(None)),
    }  # fmt: skip
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        if all(isinstance(row[name], kind) for row in content["results"] for name, kind in wanted.items()):
            return content
        reason = "its rows lack numbers"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = type_and_words(error)
    raise ValueError(f"{path} is not a results.json of `distilled-splat bench quality` ({reason}).")


def carried_over(path: Path, setting: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the setting with the scenes that were measured before, and the measurements that were made in it.

    Measurements of another setting (steps, versions, machine), and those of a scene whose files have changed since, are
    left out: they cannot stand in one table with the new ones.

    Args:
        path: results.json of an earlier command.
        setting: today's.

    Raises:
        ValueError: if the file is not a results.json.
    """
    content = read_file(path)
    before = content.get("setting")
    if not isinstance(before, dict) or any(before.get(name) != setting[name] for name in setting if name != "data"):
        return setting, []
    known = before["data"] if isinstance(before.get("data"), dict) else {}
    data = {**known, **setting["data"]}
    unchanged = {scene for scene in known if known[scene] == data[scene]}
    same = [result for result in content["results"] if result["scene"] in unchanged]
    return {**setting, "data": data}, same


def with_result(results: Sequence[dict[str, Any]], result: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a measurement in place of an earlier one of the same kind, by scene (as first measured) and size."""
    identity = ("scene", "row", "fraction", "seed")
    others = [other for other in results if any(other[name] != result[name] for name in identity)]
    scenes = list(dict.fromkeys(item["scene"] for item in [*results, result]))
    return sorted([*others, result], key=lambda item: (scenes.index(item["scene"]), item["fraction"] or 0))
