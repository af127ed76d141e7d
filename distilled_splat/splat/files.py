"""Read a splat in any known format, identified by its content first and then by its name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from distilled_splat.runs.words import words_of
from distilled_splat.splat.antimatter import read_splat_rows
from distilled_splat.splat.gltf import read_glb
from distilled_splat.splat.ksplat import read_ksplat
from distilled_splat.splat.ply import read_ply
from distilled_splat.splat.sog import META, read_sog
from distilled_splat.splat.splat_file import SplatFile, whole
from distilled_splat.splat.spz import read_spz
from distilled_splat.splat.tensors import read_gsplat_checkpoint

Reader = Callable[[Path], SplatFile]
BEGINNINGS: dict[bytes, Reader] = {
    b"ply\n": read_ply,
    b"ply\r": read_ply,
    b"NGSP": read_spz,
    b"\x1f\x8b\x08": read_spz,
    b"glTF": read_glb,
}
ENDINGS: dict[str, Reader] = {
    ".ply": read_ply,
    ".spz": read_spz,
    ".splat": read_splat_rows,
    ".ksplat": read_ksplat,
    ".sog": read_sog,
    ".glb": read_glb,
    ".pt": read_gsplat_checkpoint,
}
KINDS = "a .ply, .spz, .splat, .ksplat, .sog, .glb or gsplat's .pt, or SOG's meta.json"
"""The files that can be read, for messages."""


def read_splat(path: Path) -> SplatFile:
    """Read an exported splat of any format.

    Raises:
        ValueError: if the file is missing, damaged or in an unknown format, or if a number in it is NaN or infinite
            without a meaning.
    """
    try:
        if not (path / META).is_file() and not path.is_file():
            raise ValueError(f"{path} is not a file: give {KINDS}.")
        reader = read_sog if path.is_dir() else reader_of(path)
        if reader is None:
            raise ValueError(f"{path} is not in a known format: give {KINDS}.")
        return whole(reader(path))
    except (OSError, MemoryError) as error:
        raise ValueError(f"{path} cannot be read ({words_of(error)}).") from error


def reader_of(path: Path) -> Reader | None:
    """Return the reader of a file; None if its format is unknown."""
    if path.name == META:
        return read_sog
    with path.open("rb") as file:
        start = file.read(4)
    for beginning, reader in BEGINNINGS.items():
        if start.startswith(beginning):
            return reader
    if start == b"PK\x03\x04":
        return archive_reader_of(path)
    return ENDINGS.get(path.suffix.lower())


def archive_reader_of(path: Path) -> Reader | None:
    """Return the reader of a .zip: a bundled SOG has a meta.json, a checkpoint has a data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged: its reader says what is wrong
        return ENDINGS.get(path.suffix.lower())
    if META in names:
        return read_sog
    is_checkpoint = any(name.endswith("/data.pkl") for name in names)
    return read_gsplat_checkpoint if is_checkpoint else ENDINGS.get(path.suffix.lower())
