"""`distilled-splat info`: what is in a file, and the reason where it cannot be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import cloud, columns_of, ply_bytes
from foreign_files import sog_members, spz, write_folder

from distilled_splat import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Call the command in this process, as its entry point does."""
    monkeypatch.setattr(sys, "argv", ["distilled-splat", "info", *map(str, arguments)])
    cli.main()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    columns = columns_of(cloud(8, degree=2))
    columns["x"] = np.array([-1, 0, 0, 0, 0, 0, 0, 2.5], np.float32)
    columns["y"] = np.array([0, 0, 0, 0, 0, 0, 0, 4], np.float32)
    columns["z"] = np.zeros(8, np.float32)
    columns["opacity"] = np.array([-6, -5.5, np.inf, 4.7, 4.5, 0, 0, 0], np.float32)  # 1/255 is -5.54, .99 is 4.60
    path = tmp_path / "plain [red].ply"
    path.write_bytes(ply_bytes(columns, remarks=b"comment SplatRenderMode: mip"))
    return path


def test_what_a_file_holds_is_told_in_a_line(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, plain)
    assert capsys.readouterr().out.splitlines() == [
        f"{plain}",
        "  ply: 8 Gaussians of degree 2, 3.5 x 4 x 0; 12.5% faint, 25.0% opaque; antialiased; "
        f"{plain.stat().st_size} bytes",
    ]


def test_json_has_the_same_and_of_every_file(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "splat.spz").write_bytes(spz(version=2))
    folder = write_folder(tmp_path / "sog", sog_members())
    run(monkeypatch, plain, tmp_path / "splat.spz", folder, folder / "meta.json", "--json")
    first, second, third, fourth = json.loads(capsys.readouterr().out)
    assert first == {
        "path": f"{plain}", "format": "ply", "version": "", "gaussians": 8, "sh_degree": 2, "extent": [3.5, 4.0, 0.0],
        "faint": 0.125, "opaque": 0.25, "antialiased": True, "bytes": plain.stat().st_size,
    }  # fmt: skip
    assert (second["format"], second["version"], second["antialiased"]) == ("spz", "2", False)
    assert third["bytes"] == fourth["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert third["antialiased"] is None and third["gaussians"] == 50


def test_a_file_that_cannot_be_read_is_a_reason_and_an_exit_code(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, tmp_path / "gone.ply", plain, tmp_path)
    first, second = str(left.value.code).splitlines()  # a sentence as its code is printed, and leaves with 1
    assert f"{tmp_path / 'gone.ply'} is not a file: give a .ply" in first and f"{tmp_path} is not a file" in second
    assert f"{plain}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="give one or more splat files"):
        run(monkeypatch)
