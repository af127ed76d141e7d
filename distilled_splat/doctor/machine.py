"""Check the machine and the environment: versions, memory, devices, and the tools that compile gsplat's kernels."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from distilled_splat.doctor.findings import Finding, looked_at

PACKAGES = ("distilled-splat", "nerfstudio", "gsplat", "torch", "numba", "numpy", "viser", "tyro")
METHODS = ("distilled-splatfacto", "distilled-splatfacto-paper", "splatfacto-teacher")
LEAST_MEMORY, LEAST_DISK = 4e9, 2e9
"""Bytes that a small capture needs."""


def look_at_machine() -> Iterator[Finding]:
    """Check everything that needs no computation."""
    yield looked_at("versions", versions)
    yield looked_at("processor", processor)
    yield looked_at("memory", memory)
    yield looked_at("disk", disk)
    yield looked_at("ns-train", methods)
    yield looked_at("exports", exports)
    yield looked_at("device", device)


def versions() -> Finding:
    """Return the versions of Python and the main packages."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return Finding("versions", ", ".join([f"Python {platform.python_version()}", *found]))


def processor() -> Finding:
    """Return the system, the processor, and the number of threads of the CPU backend."""
    from distilled_splat.ops.processor import num_threads, processor_name

    return Finding("processor", f"{processor_name()}, {num_threads()} threads, {platform.platform()}")


def memory() -> Finding:
    """Return the computer's total and free memory."""
    found = psutil.virtual_memory()
    words = f"{found.available / 1e9:.1f} of {found.total / 1e9:.1f} GB are free"
    if found.available < LEAST_MEMORY:
        return Finding("memory", f"{words}: close other programs, training takes {LEAST_MEMORY / 1e9:g} GB", "note")
    return Finding("memory", words)


def disk() -> Finding:
    """Return the free space in the current folder, where runs are written by default."""
    free = shutil.disk_usage(Path.cwd()).free
    words = f"{free / 1e9:.1f} GB are free in {Path.cwd()}"
    if free < LEAST_DISK:
        return Finding("disk", f"{words}: free some space, or give ns-train another --output-dir", "note")
    return Finding("disk", words)


def methods() -> Finding:
    """Check that ns-train belongs to this environment and has our methods."""
    from nerfstudio.plugins.registry import discover_methods

    found, _ = discover_methods()
    missing = [name for name in METHODS if name not in found]
    if missing:
        words = f"the methods {', '.join(missing)} are missing: install distilled-splat in nerfstudio's environment"
        return Finding("ns-train", words, "fault")
    own = Path(sysconfig.get_path("scripts"))
    on_path = shutil.which("ns-train")
    if on_path is None or not os.path.samefile(Path(on_path).parent, own):
        where = "it is not on PATH" if on_path is None else f"PATH has another one, {on_path}"
        return Finding("ns-train", f"{where}: activate this environment, or call {own / 'ns-train'}", "note")
    return Finding("ns-train", f"it has the methods {', '.join(METHODS)}")


def exports() -> Finding:
    """Check whether files smaller than .ply can be written."""
    missing = [name for name in ("gsply", "gaussforge") if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("exports", '.ply only: pip install "distilled-splat[export]" for spz, sog and others', "note")
    return Finding("exports", "ply, compressed-ply, splat, spz, sog")


def device() -> Finding:
    """Return the device of a training, and the reason if there is a GPU that it cannot use."""
    if torch.cuda.is_available():
        names = []
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
            size = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
            names.append(f"{name} (capability {capability[0]}.{capability[1]}, {size})")
        return Finding("device", f"CUDA {torch.version.cuda}: {'; '.join(names)}")
    if not driver_sees_a_gpu():
        return Finding("device", "CPU: there is no NVIDIA GPU, or its driver is not installed")
    if torch.version.cuda is None:
        words = "there is an NVIDIA GPU, but this torch is built for the CPU: install a CUDA build (pytorch.org)"
        return Finding("device", f"CPU: {words}", "note")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not hidden.strip("-1 "):
        return Finding("device", "CPU: CUDA_VISIBLE_DEVICES hides the NVIDIA GPU")
    words = f"the NVIDIA GPU does not support CUDA {torch.version.cuda}: install a newer driver, or an older torch"
    return Finding("device", f"CPU: {words}", "note")


def driver_sees_a_gpu() -> bool:
    """Return whether NVIDIA's driver lists a GPU."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return "GPU" in told


def look_at_tools() -> Iterator[Finding]:
    """Check the tools that compile gsplat's kernels, and load the kernels. Missing tools are faults only with a GPU."""
    kernels = looked_at("gsplat's kernels", gsplat_kernels) if torch.cuda.is_available() else None
    for name, look in (("nvcc", nvcc), ("ninja", ninja)):
        found = looked_at(name, look)
        compiled = kernels is not None and kernels.verdict != "fault"  # then nothing needs the tools
        yield replace(found, verdict="note") if compiled and found.verdict == "fault" else found
    if kernels is not None:
        yield kernels


def nvcc() -> Finding:
    """Return whether nvcc is found, and the release of its CUDA toolkit."""
    from distilled_splat.ops.toolchain import nvcc_release, put_tools_on_path

    put_tools_on_path()
    place, release, wanted = shutil.which("nvcc"), nvcc_release(), torch.version.cuda
    verdict = "fault" if torch.cuda.is_available() else "note"
    if wanted is None:
        return Finding("nvcc", "it is not needed: this torch is built for the CPU")
    if place is None or release is None:
        words = f"it is neither on PATH nor in $CUDA_HOME/bin: with a GPU, install the CUDA toolkit {wanted}"
        return Finding("nvcc", words, verdict)
    if release.split(".")[0] != wanted.split(".")[0]:
        words = f"{place} is from CUDA {release}, and torch from {wanted}: with a GPU, install the toolkit {wanted}"
        return Finding("nvcc", words, verdict)
    return Finding("nvcc", f"{place} from CUDA {release}, torch from CUDA {wanted}")


def ninja() -> Finding:
    """Return whether ninja is found."""
    place = shutil.which("ninja")
    if place is None:
        verdict = "fault" if torch.cuda.is_available() else "note"
        return Finding("ninja", f"it is missing: with a GPU, {sys.executable} -m pip install ninja", verdict)
    return Finding("ninja", place)


def gsplat_kernels() -> Finding:
    """Load gsplat's kernels, which compiles them the first time, and return how long it took."""
    from distilled_splat.ops.toolchain import fault_of_kernels

    begun = time.monotonic()
    fault = fault_of_kernels()
    if fault is not None:
        return Finding("gsplat's kernels", fault, "fault")
    return Finding("gsplat's kernels", f"loaded in {time.monotonic() - begun:.1f} s")
