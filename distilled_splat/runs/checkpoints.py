"""Reads and writes nerfstudio's checkpoints safely: tensors only, and never half a file."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

LONGEST_PICKLE = 1 << 21
"""Bytes. The list of tensors in a checkpoint of splatfacto has about 10 thousand."""


def allow_numpy_scalars() -> None:
    """Let `torch.load(weights_only=True)` read the NumPy learning rates in nerfstudio's checkpoints.

    nerfstudio stores np.float64 learning rates, which torch >= 2.6 refuses by default, so that ns-eval, ns-export,
    ns-render, ns-viewer and resuming all fail (nerfstudio issue 3683). The types allowed here hold numbers only.
    """
    torch.serialization.add_safe_globals(
        [
            (numpy_scalar, "numpy.core.multiarray.scalar"),
            (numpy_scalar, "numpy._core.multiarray.scalar"),
            np.dtype,
            type(np.dtype(np.float64)),
        ]
    )


def numpy_scalar(dtype: np.dtype, data: bytes) -> np.generic:
    """Rebuild a pickled NumPy number. NumPy's own function can make a huge value out of no data."""
    return np.frombuffer(data, dtype, count=1)[0]


def load_tensors(path: Path) -> dict[str, Any]:
    """Load a checkpoint as data on the CPU, without running any code in it.

    The memory is limited by the length of the file. The tensors are views of the file, so unused ones (such as Adam's
    moments) are never read. Copy tensors that must outlive the file.

    Raises:
        ValueError: if the file is not a checkpoint of plain tensors and numbers.
    """
    allow_numpy_scalars()
    try:
        refuse_inflation(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}): it is damaged or not a checkpoint. "
            "Give another file, or train this model again."
        ) from error


def refuse_inflation(path: Path) -> None:
    """Refuse an archive that unpacks to more bytes than the file has; torch never compresses.

    Raises:
        ValueError: if its members unpack to more, if its pickle is longer than that of any checkpoint, or if the
            pickle calls a built-in: torch accepts bytearray(10 ** 11).
        zipfile.BadZipFile: if the file is not an archive. The sizes in torch's older format cannot be checked.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked} bytes")
        for member in members:
            if not member.filename.endswith(".pkl"):
                continue
            if member.file_size > LONGEST_PICKLE:
                raise ValueError(f"its list of tensors has {member.file_size} bytes")
            for code, argument, _ in pickletools.genops(archive.read(member)):
                if code.name == "GLOBAL" and str(argument).startswith(("builtins ", "__builtin__ ")):
                    raise ValueError(f"it calls {argument}")


def checkpoint_step(path: Path) -> int:
    """Return the training step in a checkpoint's name (`step-000002999.ckpt`), or -1 if the name has no step."""
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1


def latest_checkpoint(folder: Path) -> Optional[Path]:
    """Return the checkpoint of the highest step in a folder, or None."""
    found = [path for path in folder.glob("step-*.ckpt") if checkpoint_step(path) >= 0 and path.is_file()]
    return max(found, key=checkpoint_step, default=None)


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint in torch's format.

    Raises:
        OSError: if the file cannot be written; torch would raise a RuntimeError that hides the reason.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
