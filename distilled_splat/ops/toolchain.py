"""Load or compile gsplat's CUDA kernels, one process at a time, or say in one sentence what to do."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Optional

import psutil
import torch
from filelock import FileLock, Timeout
from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.ops.processor import num_processors
from distilled_splat.runs.words import words_of

EXTENSION = "gsplat_cuda"
"""Name of gsplat's kernels for torch's compiler."""
BYTES_PER_COMPILER = 3e9
"""The most memory that the compiler takes for one file."""
HEADER = Path("include") / "cuda_runtime_api.h"
"""A header that every CUDA toolkit has, and that gsplat's kernels include."""
ON_THE_CPU = "or use the CPU: set the environment variable CUDA_VISIBLE_DEVICES to an empty string"


def put_tools_on_path() -> None:
    """Put ninja and nvcc on PATH, for this process and its child processes.

    pip puts ninja beside this environment's Python, which is on PATH only while the environment is activated. gsplat
    looks for nvcc on PATH only, not in $CUDA_HOME. Both folders go to the end of PATH, so they hide no other program.
    """
    toolkits = (os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH"))
    wanted = [sysconfig.get_path("scripts"), *(str(Path(toolkit) / "bin") for toolkit in toolkits if toolkit)]
    extend_path(wanted)
    if torch.cuda.is_available():
        set_cuda_home()
        from torch.utils.cpp_extension import CUDA_HOME  # torch's guess, made at the first import

        extend_path([] if CUDA_HOME is None else [str(Path(CUDA_HOME) / "bin")])


def set_cuda_home() -> None:
    """Set CUDA_HOME to the CUDA toolkit of the nvcc on PATH, if neither CUDA_HOME nor CUDA_PATH is set.

    torch guesses the folder above nvcc's. That is wrong if nvcc on PATH is a link or a script that calls nvcc.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return
    for place in (Path(nvcc), Path(nvcc).resolve(), nvcc_behind(nvcc)):
        toolkit = place.parent.parent
        if (toolkit / HEADER).exists():
            break
    else:
        return
    os.environ["CUDA_HOME"] = str(toolkit)
    guessed = sys.modules.get("torch.utils.cpp_extension")
    if guessed is not None:
        guessed.CUDA_HOME = str(toolkit)  # type: ignore[attr-defined]


def nvcc_behind(script: str) -> Path:
    """Return the path of the nvcc that a script calls; the script itself if nvcc does not tell."""
    try:
        told = subprocess.run(
            [script, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, timeout=60
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return Path(script)
    found = re.search(r"^#\$ _HERE_=(.+)$", told, re.MULTILINE)
    return Path(found.group(1)) / "nvcc" if found else Path(script)


def extend_path(folders: list[str]) -> None:
    """Append the folders that are not on PATH yet."""
    present = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*present, *(folder for folder in folders if folder not in present)])


def nvcc_release(nvcc: Optional[str] = None) -> Optional[str]:
    """Return the release of nvcc's CUDA toolkit, such as 13.0; None if there is no nvcc.

    Args:
        nvcc: the compiler; None: the one on PATH.
    """
    nvcc = nvcc or shutil.which("nvcc")
    if nvcc is None:
        return None
    try:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"release (\d+\.\d+)", told)
    return found.group(1) if found else None


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set those environment variables that are not set yet, and unset them again at the end."""
    missing = [name for name in variables if not os.environ.get(name)]
    os.environ.update((name, variables[name]) for name in missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def compilers_at_once() -> int:
    """Return how many compilers may run at once: one on each processor, as far as the free memory suffices."""
    return max(min(num_processors(), int(psutil.virtual_memory().available / BYTES_PER_COMPILER)), 1)


def folder_variables() -> dict[str, str]:
    """Return the environment variable that puts the kernels into a folder of their own for this kind of GPU.

    torch compiles for the visible GPUs only, and its own folder is the same for all. Unlike GPUs of one machine, or of
    machines with a shared home, would replace each other's kernels there. A folder or an architecture that the user has
    set stays.
    """
    from torch.utils.cpp_extension import _get_build_directory

    if os.environ.get("TORCH_EXTENSIONS_DIR") or os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return {}
    capabilities = sorted({torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())})
    name = "-".join(["gsplat", *(f"sm{major}{minor}" for major, minor in capabilities)])
    return {"TORCH_EXTENSIONS_DIR": _get_build_directory(name, verbose=False)}


def is_installed() -> bool:
    """Return whether gsplat's kernels are loaded, or were installed compiled with gsplat."""
    if "gsplat.cuda._backend" in sys.modules:
        return True
    try:
        importlib.import_module("gsplat.csrc")
    except ImportError:
        return False
    return True


def is_compiled(folder: Path) -> bool:
    """Return whether torch has compiled gsplat's kernels into a folder."""
    return any((folder / f"{EXTENSION}{ending}").exists() for ending in (".so", ".pyd"))


def taken(lock: FileLock) -> Any:
    """Acquire a lock, and print a line if another process holds it. The result is a context that releases the lock."""
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        CONSOLE.print("Waiting for another process to compile gsplat's CUDA kernels.")
        return lock.acquire()


def first_complaint(error: Exception) -> str:
    """Return the line of an error that says what is wrong: the compiler's first error, or else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaints = [line for line in lines if "error:" in line] or lines
    return complaints[0].rstrip(".") if complaints else words_of(error)


@cache
def fault_of_kernels() -> Optional[str]:
    """Load gsplat's CUDA kernels. Return None, or one sentence that says what is wrong and what to do.

    If the kernels are not compiled yet, this takes some minutes, once for each kind of GPU. Processes compile one after
    the other, because gsplat removes what another process has half compiled. Call it in the main thread, because the
    viewer interrupts its own thread anywhere. The answer is cached, so a failure is not repeated for every picture.
    """
    put_tools_on_path()
    if is_installed():
        return fault_of_loading()
    from torch.utils.cpp_extension import _get_build_directory

    try:
        with environment(**folder_variables()):
            folder = Path(_get_build_directory(EXTENSION, verbose=False))
            with taken(FileLock(folder.with_name(f"{EXTENSION}.one-at-a-time"))):
                if not is_compiled(folder):
                    CONSOLE.print(
                        "Compiling gsplat's CUDA kernels, which takes some minutes, once for each kind of GPU."
                    )
                return fault_of_loading()
    except OSError as error:
        return (
            f"gsplat's CUDA kernels cannot be stored ({words_of(error)}): set the environment variable "
            f"TORCH_EXTENSIONS_DIR to a folder of your own, {ON_THE_CPU}."
        )


def fault_of_loading() -> Optional[str]:
    """Import gsplat's kernels, and compile them if that was not done yet; see `fault_of_kernels`."""
    try:
        with environment(MAX_JOBS=f"{compilers_at_once()}"):  # gsplat would start ten
            kernels = importlib.import_module("gsplat.cuda._backend")._C
    except Exception as error:
        if re.search(r"\bKilled\b|\bsignal 9\b", str(error)):
            return (
                "gsplat's CUDA kernels cannot be compiled, because the compiler was killed, probably for want of "
                f"memory: set the environment variable MAX_JOBS to 1, {ON_THE_CPU}."
            )
        return (
            f"gsplat's CUDA kernels cannot be compiled ({first_complaint(error)}): install ninja, a C++ compiler and "
            f"the CUDA toolkit {torch.version.cuda}, the release of this torch (nvcc has release "
            f"{nvcc_release() or 'unknown'}), {ON_THE_CPU}."
        )
    if kernels is None:
        return (
            "gsplat's CUDA kernels cannot be compiled, because nvcc is neither on PATH nor in $CUDA_HOME/bin: install "
            f"the CUDA toolkit {torch.version.cuda} (the release of this torch), {ON_THE_CPU}."
        )
    return None
