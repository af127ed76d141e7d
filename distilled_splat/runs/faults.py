"""Faults that end a training, each reported in one sentence: write errors of the disk, NaN and infinities."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

REFUSED_WRITES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Within this context, report a failed write to an output folder in one sentence.

    Raises:
        SystemExit: instead of the OSError of a full, read-only or forbidden disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED_WRITES or is_elsewhere(error, folder):
            raise
        raise SystemExit(
            f"Cannot write to {folder} ({error.strerror}): free some space, or give another output folder. The same "
            "command resumes from what is saved."
        ) from None


def is_elsewhere(error: OSError, folder: Path) -> bool:
    """Return whether an error is about a file outside a folder and the folders above it."""
    if not isinstance(error.filename, (str, Path)):
        return False
    path, folder = Path(error.filename).absolute(), folder.absolute()
    return path not in folder.parents and not path.is_relative_to(folder)


def not_finite(losses: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Optional[str]:
    """Name the first loss, or parameter of the Gaussians, that has NaN or infinity; None if all are finite."""
    for name, loss in losses.items():
        value = float(loss.detach().sum())
        if not math.isfinite(value):
            return f"{name} is {value}"
    for name, parameter in parameters.items():
        if all_finite(parameter):
            continue
        bad = int((~torch.isfinite(parameter.detach())).reshape(len(parameter), -1).any(dim=1).sum())
        return f"{name} is NaN or infinite for {bad} of {len(parameter)} Gaussians"
    return None


def all_finite(tensor: Tensor) -> bool:
    """Return whether all numbers are finite, from the minimum and the maximum; `isfinite` needs twice the memory."""
    return tensor.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(tensor.detach()))
