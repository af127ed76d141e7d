"""Faults that end a training, each told in one sentence: a disk that takes nothing more, NaN and infinities."""

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
    """Tell in one sentence that the system refuses to write into an output folder.

    Raises:
        SystemExit: instead of the OSError of a full, read-only or forbidden disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED_WRITES or is_elsewhere(error, folder):
            raise
        raise SystemExit(
            f"Nothing can be written to {folder} ({error.strerror}): make room or give another --output-dir. What is "
            "finished is whole, and the same command resumes there."
        ) from None


def is_elsewhere(error: OSError, folder: Path) -> bool:
    """Tell whether an error speaks of a file that lies in another place than a folder or the folders above it."""
    if not isinstance(error.filename, (str, Path)):
        return False
    path, folder = Path(error.filename).absolute(), folder.absolute()
    return path not in folder.parents and not path.is_relative_to(folder)


def not_finite(losses: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Optional[str]:
    """Name the first loss or parameter of the Gaussians that is NaN or infinite, and return None if all are finite."""
    for name, loss in losses.items():
        value = float(loss.detach().sum())
        if not math.isfinite(value):
            return f"{name} is {value}"
    for name, parameter in parameters.items():
        if all_finite(parameter):
            continue
        bad = int((~torch.isfinite(parameter.detach())).reshape(len(parameter), -1).any(dim=1).sum())
        return f"{name} of {bad} of {len(parameter)} Gaussians is NaN or infinite"
    return None


def all_finite(tensor: Tensor) -> bool:
    """Tell whether all numbers are finite, by the least and the largest; `isfinite` takes as much memory again."""
    return tensor.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(tensor.detach()))
