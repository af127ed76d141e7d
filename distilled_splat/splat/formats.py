"""The formats of exported splats, and their writers."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch.nn.functional import normalize

from distilled_splat.splat import sog, spz
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.gltf_writer import encode_glb

SPZ_INTEGER_BITS = 23
"""Bits of a coordinate in a .spz without its sign. The file's header has the number of fractional bits."""
LARGEST_SPZ_FRACTION = 24


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        ending: the end of the file's name.
        highest_degree: highest degree of spherical harmonics in the format.
        library: name of the package that writes it; None: this package.
        encode: returns the bytes of a file.
        antialiased: adds to these bytes that the splat needs antialiased rendering; None if the format cannot say
            this.
    """

    ending: str
    highest_degree: int
    library: Optional[str]
    encode: Callable[[Gaussians], bytes]
    antialiased: Optional[Callable[[bytes], bytes]] = None

    def file_of(self, gaussians: Gaussians, antialiased: bool) -> bytes:
        """Return the bytes of a file. It says whether it needs antialiased rendering, if the format can say this."""
        content = self.encode(gaussians)
        return self.antialiased(content) if antialiased and self.antialiased is not None else content


def library(name: str) -> Any:
    """Import a package of the extra `export`.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f'This format is written by {name}, which is not installed: pip install "distilled-splat[export]".'
        ) from error


def check_library(form: Format) -> None:
    """Check that the package that writes a format is installed.

    Raises:
        ValueError: if it is not installed.
    """
    if form.library is not None:
        library(form.library)


def with_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """Remove the spherical harmonics above a degree."""
    return replace(gaussians, sh_rest=gaussians.sh_rest[:, : (degree + 1) ** 2 - 1])


def columns(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Return a splat's numbers by Inria's names, in Inria's order, each [N], float32.

    x y z, nx ny nz (zero), f_dc, f_rest (all of red, then green, then blue), opacity, scale, rot (w x y z, normalised).
    """
    rest = gaussians.sh_rest.transpose(1, 2).flatten(start_dim=1)
    groups = {
        ("x", "y", "z"): gaussians.means,
        ("nx", "ny", "nz"): torch.zeros_like(gaussians.means),
        tuple(f"f_dc_{i}" for i in range(3)): gaussians.sh_dc,
        tuple(f"f_rest_{i}" for i in range(rest.shape[1])): rest,
        ("opacity",): gaussians.logit_opacities[:, None],
        tuple(f"scale_{i}" for i in range(3)): gaussians.log_scales,
        tuple(f"rot_{i}" for i in range(4)): normalize(gaussians.quats, dim=-1),
    }
    return {
        name: values[:, place].detach().cpu().float().numpy()
        for names, values in groups.items()
        for place, name in enumerate(names)
    }


def encode_ply(gaussians: Gaussians) -> bytes:
    """Return a .ply, byte for byte as Inria's trainer writes it, little-endian."""
    values = columns(gaussians)
    rows = np.rec.fromarrays(list(values.values()), dtype=[(name, "<f4") for name in values])
    header = PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").header
    return f"{header}\n".encode() + rows.tobytes()


def antialiased_ply(content: bytes) -> bytes:
    """Add to a .ply's header that it needs antialiased rendering, as Brush does; other programs ignore this comment."""
    return content.replace(b"\nelement", b"\ncomment SplatRenderMode: mip\nelement", 1)


def for_gsply(gaussians: Gaussians) -> Any:
    """Return a splat as gsply's container."""
    cpu = gaussians.to("cpu")
    return library("gsply").GSData.from_arrays(
        means=cpu.means.detach().numpy(),
        scales=cpu.log_scales.detach().numpy(),
        quats=normalize(cpu.quats.detach(), dim=-1).numpy(),
        opacities=cpu.logit_opacities.detach().numpy(),
        sh0=cpu.sh_dc.detach().numpy(),
        shN=cpu.sh_rest.detach().contiguous().numpy(),
        format="ply",
    )


def encode_compressed_ply(gaussians: Gaussians) -> bytes:
    """Return PlayCanvas' compressed .ply: 16 bytes per Gaussian, and a byte per coefficient above degree 0."""
    return library("gsply").compress_to_bytes(for_gsply(gaussians))


def encode_spz(gaussians: Gaussians) -> bytes:
    """Return Niantic's .spz, version 3, with the finest coordinates that still reach the outermost Gaussian."""
    reach = float(gaussians.means.detach().abs().max())
    fraction = int(np.clip(np.floor(SPZ_INTEGER_BITS - np.log2(max(reach, 1e-9))), 1, LARGEST_SPZ_FRACTION))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "splat.spz"
        library("gsply").write_spz(path, for_gsply(gaussians), version=3, fractional_bits=fraction)
        return path.read_bytes()


def converted(content: bytes, given: str, wanted: str) -> bytes:
    """Convert the bytes of one format to another with gaussforge.

    Raises:
        ValueError: if gaussforge is missing, or refuses the file.
    """
    result = library("gaussforge").GaussForge().convert(content, given, wanted)
    if "error" in result or not result["data"]:
        raise ValueError(f"gaussforge cannot convert .{given} to .{wanted}: {result.get('error', 'no content')}.")
    return result["data"]


def antialiased_spz(content: bytes) -> bytes:
    """Set the antialiasing flag of a .spz of version 3."""
    inflated = bytearray(gzip.decompress(content))
    magic, *numbers, flags, streams = spz.HEADER.unpack_from(inflated)
    spz.HEADER.pack_into(inflated, 0, magic, *numbers, flags | spz.ANTIALIASED, streams)
    return gzip.compress(inflated, mtime=0)


def encode_sog(gaussians: Gaussians) -> bytes:
    """Return PlayCanvas' bundled SOG."""
    return converted(encode_ply(gaussians), "ply", "sog")


def antialiased_sog(content: bytes) -> bytes:
    """Set the antialiasing flag in a SOG's meta.json."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename == sog.META:
                data = json.dumps({**json.loads(data), "antialias": True}).encode()
            new.writestr(item, data)
    return changed.getvalue()


FORMATS = {
    "ply": Format(".ply", 4, None, encode_ply, antialiased_ply),
    "compressed-ply": Format(".compressed.ply", 3, "gsply", encode_compressed_ply, antialiased_ply),
    "splat": Format(".splat", 0, "gaussforge", lambda gaussians: converted(encode_ply(gaussians), "ply", "splat")),
    "spz": Format(".spz", 3, "gsply", encode_spz, antialiased_spz),
    "sog": Format(".sog", 3, "gaussforge", encode_sog, antialiased_sog),
    "glb": Format(".glb", 3, None, encode_glb),
}
CHOSEN_FROM = tuple(kind for kind in FORMATS if kind != "glb")
"""The formats to choose from if only a size is given. A .glb has the same numbers as a .ply, and fewer programs open
it."""
