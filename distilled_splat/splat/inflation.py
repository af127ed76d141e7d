"""Decompress untrusted data up to a limit that depends on the size of the file."""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path
from typing import BinaryIO

from distilled_splat.runs.words import words_of

INFLATION = 40
"""A file that inflates to more than this many times its size is refused. Real captures reach about 2."""
SMALLEST_BUDGET = 1 << 20
PIECE = 1 << 20


def budget_of(path: Path) -> int:
    """Return the bytes that a file may inflate to."""
    return max(INFLATION * path.stat().st_size, SMALLEST_BUDGET)


def gunzipped(path: Path, file: BinaryIO, budget: int) -> bytes:
    """Inflate a gzip file.

    Args:
        path: path of the file, for messages.
        file: the open file.
        budget: largest number of inflated bytes.

    Raises:
        ValueError: if the file is damaged, or inflates to more.
    """
    inflater, pieces, size = zlib.decompressobj(wbits=31), [], 0
    try:
        while (data := file.read(1 << 16)) and not inflater.eof:
            while data and not inflater.eof:
                piece = inflater.decompress(data, PIECE)
                data = inflater.unconsumed_tail
                size += len(piece)
                if size > budget:
                    raise ValueError(f"{path} inflates to more than {budget} bytes: it is not a splat.")
                pieces.append(piece)
    except zlib.error as error:
        raise ValueError(f"{path} is damaged ({words_of(error)}): export it again.") from error
    if not inflater.eof or inflater.unused_data or data:
        raise ValueError(f"{path} is damaged: its gzip stream does not end with the file. Export it again.")
    return b"".join(pieces)


def unzstd(path: Path, data: bytes, size: int) -> bytes:
    """Inflate a zstd stream to exactly `size` bytes; at most one more byte is inflated.

    Raises:
        ValueError: if there is no decoder, or if the stream is damaged or has another size.
    """
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise ValueError(
            f"{path} is compressed with zstd, and its decoder is not installed: pip install zstandard, "
            "or convert the file to a plain .ply."
        ) from error
    try:
        found = zstandard.ZstdDecompressor().stream_reader(data).read(size + 1)
    except Exception as error:
        raise ValueError(f"{path} is damaged ({words_of(error)}): export it again.") from error
    if len(found) != size:
        raise ValueError(f"{path} is damaged: a stream does not have {size} bytes. Export it again.")
    return found
