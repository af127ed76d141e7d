"""Other processors and systems than this one: caches that they share, what compiles for them, and what runs as them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from widths import PROGRAM

HERE = Path(__file__).parent
BESIDE_X86 = [] if platform.machine() not in ("x86_64", "AMD64") else ["nehalem"]
IN_VECTORS = (
    "blend_backward.blend_backward_kernel",
    "blend_forward.blend_kernel",
    "harmonics._shade_backward_kernel",
    "harmonics._shade_kernel",
    "projection._project_backward_kernel",
    "projection._project_kernel",
    "ssim._sweep_strips",
    "tiles._pack_kernel",
    "adam._adam_kernel",
)
FROM_THE_SYSTEM = {"bzero", "log2f", "memset"}
"""What the kernels call of the C library, once for a Gaussian or a tile and never for a pixel."""


def run(*words: str, **variables: str) -> str:
    """Run Python in this folder, as another processor, and return what it prints."""
    path = os.pathsep.join([f"{HERE.parent}", f"{HERE}", os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, *words], env={**environment, "PYTHONPATH": path, **variables}, cwd=HERE,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("hosts", [("wide", "narrow"), ("narrow", "wide")])
def test_machines_under_one_name_share_a_cache(tmp_path: Path, hosts: tuple[str, str]) -> None:
    """A cluster of several processors sets NUMBA_CPU_NAME=generic, which none of them has another code for."""
    told = [run("-c", PROGRAM, host, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=f"{tmp_path}") for host in hosts]
    assert [line.split() for line in told] == [["8", "8", "0"], ["8", "8", "1"]]


def test_vectors_are_as_wide_as_numba_compiles_for(tmp_path: Path) -> None:
    def lanes(**variables: str) -> int:
        told = run("-c", PROGRAM, "wide", "same-key", NUMBA_CACHE_DIR=f"{tmp_path}", **variables)
        return int(told.split()[0])

    assert lanes(NUMBA_CPU_NAME="generic") == 8
    assert lanes(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="+avx512f") == 16
    assert lanes(NUMBA_CPU_FEATURES="+avx,-avx512f") == 8
    assert lanes(NUMBA_ENABLE_AVX="0") == 8


def test_no_two_widths_share_an_entry_of_the_cache(tmp_path: Path) -> None:
    """Not even where Numba takes two processors for one."""
    told = [run("-c", PROGRAM, host, "same-key", NUMBA_CACHE_DIR=f"{tmp_path}") for host in ("wide", "narrow", "wide")]
    assert [line.split()[::2] for line in told] == [["16", "0"], ["8", "0"], ["16", "1"]]


def test_kernels_that_cannot_be_kept_are_told_of_once() -> None:
    code = (
        "from numba.core import caching; caching.CacheImpl._locator_classes = []\n"
        "import distilled_splat.cpu.ssim, distilled_splat.cpu.adam, distilled_splat.demo.tracer\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be stored") == 1 and "set NUMBA_CACHE_DIR" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["generic", *BESIDE_X86])
def test_kernels_agree_with_the_references_on_an_older_processor(processor: str, tmp_path: Path) -> None:
    """Compiled anew for it: no AVX, no fused multiply-add."""
    few = [
        "test_rasterization.py::test_random_scenes_agree_with_the_reference[0]",
        "test_ssim.py::test_splatfactos_own_loss_is_reproduced",
        "test_optimizers.py::test_steps_are_torchs_in_double_precision",
    ]
    options = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": f"{tmp_path}"}
    assert "4 passed" in run("-m", "pytest", "-p", "no:cacheprovider", "--fail-on-skip", *few, **options)


@pytest.mark.slow
def test_kernels_become_vector_code_on_other_machines_and_call_nothing_outside(tmp_path: Path) -> None:
    found = json.loads(run("cross_compile.py", NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=f"{tmp_path}"))
    assert set(found) == {"Apple M1", "neoverse-n1", "Windows", "no FMA"}
    for machine, code in found.items():
        assert {name.lstrip("_").removesuffix("@PLT") for name in code["outside"]} <= FROM_THE_SYSTEM, machine
        for name in IN_VECTORS:
            assert code["vectors"][f"distilled_splat.cpu.{name}"] > 10, (machine, name)
