"""results.json of the quality benchmark: reads it, and adds the results of further commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilled_splat.runs.words import type_and_words

GEOMETRY = ("depth_error", "depth_error_beyond", "alpha_error", "floaters")
"""Names of the geometry measures in `compare.Row`; results of older versions lack them."""
PERCEPTUAL = ("lpips_vgg", "flip")
"""Names of the perceptual measures in `compare.Row`, if measured; their titles are in `paired.TITLES`."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the measurements of the quality benchmark.

    Raises:
        ValueError: if the file is not a results.json.
    """
    return read_file(path)["results"]


def read_file(path: Path) -> dict[str, Any]:
    """Read results.json, and check that its measurements have everything that a table needs.

    Raises:
        ValueError: if the file is not a results.json.
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
        reason = "numbers are missing in its rows"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = type_and_words(error)
    raise ValueError(f"{path} is not a results.json of `distilled-splat bench quality` ({reason}).")


def carried_over(path: Path, setting: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the setting extended by earlier scenes, and the earlier measurements that are still valid.

    Measurements in another setting (steps, versions, machine), or of a scene whose files have changed, are left out,
    because one table cannot mix them with new ones.

    Args:
        path: results.json of an earlier command.
        setting: the current setting.

    Raises:
        ValueError: if the file is not a results.json.
    """
    content = read_file(path)
    before = content.get("setting")
    if not isinstance(before, dict):
        return setting, []
    known = before["data"] if isinstance(before.get("data"), dict) else {}
    data = {**known, **setting["data"]}
    if any(before.get(name) != setting[name] for name in setting if name != "data"):
        return {**setting, "data": data}, []
    unchanged = {scene for scene in known if known[scene] == data[scene]}
    same = [result for result in content["results"] if result["scene"] in unchanged]
    return {**setting, "data": data}, same


def with_result(results: Sequence[dict[str, Any]], result: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a measurement. It replaces one of the same kind. Results are sorted by scene, oldest first, and size."""
    identity = ("scene", "row", "fraction", "seed")
    others = [other for other in results if any(other[name] != result[name] for name in identity)]
    scenes = list(dict.fromkeys(item["scene"] for item in [*results, result]))
    return sorted([*others, result], key=lambda item: (scenes.index(item["scene"]), item["fraction"] or 0))
