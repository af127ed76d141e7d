"""gsplat's kernels on a machine with CUDA: what compiles them is found, or missed in one sentence, once at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distilled_splat.ops.toolchain import (
    HEADER,
    compilers_at_once,
    environment,
    first_complaint,
    folder_variables,
    nvcc_release,
    set_cuda_home,
)

ROOT = Path(__file__).parents[1]
FAULT = "from distilled_splat.ops.toolchain import fault_of_kernels; print('FAULT:', fault_of_kernels())"


def program(folder: Path, name: str, script: str) -> Path:
    """Write a program into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def start(code: str, folder: Path, python: str = sys.executable, **variables: str) -> subprocess.Popen[str]:
    """Start Python with a bare PATH and a CUDA_HOME in which there is nothing, unless the variables say otherwise."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PATH", "CUDA_HOME", "CUDA_PATH")}
    bare = {"PATH": "/nowhere", "CUDA_HOME": f"{folder / 'no-cuda'}", "TORCH_EXTENSIONS_DIR": f"{folder / 'built'}"}
    return subprocess.Popen(
        [python, "-c", code], env={**kept, **bare, **variables}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def told(process: subprocess.Popen[str]) -> str:
    """Return what a process prints, on one line."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return " ".join(output.split())


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_ninja_and_nvcc_are_found_where_they_lie_by_us_and_by_those_we_start(variable: str, tmp_path: Path) -> None:
    nvcc = program(tmp_path / "cuda" / "bin", "nvcc", "echo release 12.4, V12.4.1")
    code = (
        "import shutil, subprocess; from distilled_splat.ops.toolchain import put_tools_on_path; put_tools_on_path();"
        "print(shutil.which('ninja'), subprocess.run(['nvcc'], capture_output=True, text=True).stdout)"
    )
    output = told(start(code, tmp_path, **{"CUDA_HOME": "", variable: f"{tmp_path / 'cuda'}"}))
    assert output == f"{Path(sys.executable).parent / 'ninja'} release 12.4, V12.4.1"
    assert nvcc_release(f"{nvcc}") == "12.4"


def test_what_is_on_path_already_is_not_hidden(tmp_path: Path) -> None:
    program(tmp_path / "mine", "nvcc", "echo mine")
    program(tmp_path / "cuda" / "bin", "nvcc", "echo other")
    code = (
        "import subprocess; from distilled_splat.ops.toolchain import put_tools_on_path; put_tools_on_path();"
        "print(subprocess.run(['nvcc'], capture_output=True, text=True).stdout)"
    )
    assert told(start(code, tmp_path, PATH=f"{tmp_path / 'mine'}", CUDA_HOME=f"{tmp_path / 'cuda'}")) == "mine"


@pytest.fixture
def without_cuda_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that does not say where the toolkit is."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.setenv(name, "")


def toolkit(folder: Path) -> Path:
    """Make a CUDA toolkit whose nvcc says where it is, as the real one does."""
    program(folder / "bin", "nvcc", f"echo '#$ _HERE_={folder / 'bin'}' >&2")
    (folder / HEADER).parent.mkdir()
    (folder / HEADER).touch()
    return folder


@pytest.mark.parametrize("kind", ["link", "script"])
def test_the_toolkit_behind_a_link_or_a_script_on_path_is_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_cuda_home: None
) -> None:
    there = toolkit(tmp_path / "cuda-13.0")
    if kind == "script":
        program(tmp_path / "bin", "nvcc", f'exec {there / "bin" / "nvcc"} "$@"')
    else:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nvcc").symlink_to(there / "bin" / "nvcc")
    torch_builds = SimpleNamespace(CUDA_HOME=f"{tmp_path}")
    monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", torch_builds)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    set_cuda_home()
    assert os.environ["CUDA_HOME"] == torch_builds.CUDA_HOME == f"{there}"


def test_a_cuda_home_that_is_given_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_cuda_home: None
) -> None:
    monkeypatch.setenv("PATH", f"{toolkit(tmp_path / 'cuda') / 'bin'}")
    monkeypatch.setenv("CUDA_PATH", "/mine")
    set_cuda_home()
    assert os.environ["CUDA_HOME"] == ""


def test_without_a_toolkit_torch_guesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_cuda_home: None
) -> None:
    program(tmp_path / "bin", "nvcc", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    set_cuda_home()
    assert os.environ["CUDA_HOME"] == ""


def test_without_nvcc_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    sentence = told(start(FAULT, tmp_path)).partition("FAULT: ")[2]
    assert "because nvcc is neither on PATH nor in $CUDA_HOME/bin: install the CUDA toolkit" in sentence
    assert f"{torch.version.cuda}" in sentence and "CUDA_VISIBLE_DEVICES to an empty string" in sentence


def test_without_ninja_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    """An environment of its own, in which pip has not put ninja beside Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    folders = [f"{ROOT}", *(folder for folder in sys.path if "site-packages" in folder)]
    program(tmp_path / "cuda", "nvcc", "echo release 13.0")
    python = f"{tmp_path / 'bare' / 'bin' / 'python'}"
    variables = {"PATH": f"{tmp_path / 'cuda'}", "PYTHONPATH": os.pathsep.join(folders)}
    output = told(start(FAULT, tmp_path, python, **variables))
    assert "Compiling gsplat's CUDA kernels, which takes some minutes, once for each kind of GPU." in output
    assert "cannot be compiled (Ninja is required" in output and "install ninja" in output


def fault_with(nvcc: str, tmp_path: Path) -> str:
    """Return the sentence about kernels that this shell script, in place of nvcc, is to compile."""
    program(tmp_path / "cuda" / "bin", "nvcc", nvcc)
    program(tmp_path / "cuda" / "bin", "c++", "echo 12.2.0")
    variables = {"PATH": "/usr/bin:/bin", "CUDA_HOME": f"{tmp_path / 'cuda'}", "CXX": f"{tmp_path / 'cuda/bin/c++'}"}
    return told(start(FAULT, tmp_path, **variables, TORCH_CUDA_ARCH_LIST="9.0")).partition("FAULT: ")[2]


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    sentence = fault_with("echo 'kernel.cu(7): error: no such thing' >&2; exit 1", tmp_path)
    assert "cannot be compiled (kernel.cu(7): error: no such thing): install" in sentence


def test_a_compiler_that_was_killed_lacked_memory(tmp_path: Path) -> None:
    sentence = fault_with("echo \"'cicc' died due to signal 9 (Kill signal)\"; exit 9", tmp_path)
    assert "for want of memory: set the environment variable MAX_JOBS to 1, or use the CPU" in sentence


@pytest.mark.parametrize(("gigabytes", "compilers"), [(1, 1), (7, 2), (1000, 8)])
def test_as_many_compilers_as_the_processors_and_the_memory_allow(
    gigabytes: int, compilers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=gigabytes * 10**9))
    monkeypatch.setattr("distilled_splat.ops.toolchain.num_processors", lambda: 8)
    assert compilers_at_once() == compilers


def test_the_users_variables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "3")
    monkeypatch.setenv("EMPTY", "")
    with environment(MAX_JOBS="8", EMPTY="1", UNSET="2"):
        assert [os.environ[name] for name in ("MAX_JOBS", "EMPTY", "UNSET")] == ["3", "1", "2"]
    assert os.environ["MAX_JOBS"] == "3" and "UNSET" not in os.environ


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = told(start(FAULT, tmp_path, TORCH_EXTENSIONS_DIR=f"{tmp_path / 'file'}")).partition("FAULT: ")[2]
    assert "cannot be stored" in sentence and "TORCH_EXTENSIONS_DIR" in sentence


def test_each_kind_of_gpu_has_kernels_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two unlike GPUs, then one of them alone, as a child process sees it."""
    gpus = [(9, 0), (8, 6)]
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(gpus))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index: gpus[index])
    monkeypatch.setattr("torch.utils.cpp_extension.get_default_build_root", lambda: f"{tmp_path}")
    for name in ("TORCH_EXTENSIONS_DIR", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert Path(folder_variables()["TORCH_EXTENSIONS_DIR"]).name == "gsplat-sm86-sm90"
    del gpus[0]
    assert Path(folder_variables()["TORCH_EXTENSIONS_DIR"]).name == "gsplat-sm86"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert folder_variables() == {}


def test_installed_kernels_need_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = f"import sys, types; sys.modules['gsplat.csrc'] = types.ModuleType('gsplat.csrc'); {FAULT}"
    assert told(start(code, tmp_path, TORCH_EXTENSIONS_DIR=f"{tmp_path / 'file'}")) == "FAULT: None"


def test_the_compilers_first_complaint_is_the_one_that_is_told() -> None:
    assert first_complaint(RuntimeError("Error building\n[1/2] nvcc\na.cu: fatal error: b.h\nx: error: y")) == (
        "a.cu: fatal error: b.h"
    )
    assert first_complaint(RuntimeError("\n Ninja is required. \n")) == "Ninja is required"
    assert first_complaint(MemoryError()) == "MemoryError"


SLOW_COMPILER = """
import pathlib, sys, time, torch.utils.cpp_extension as torch_builds

def load(name, sources, build_directory=None, **options):
    mine = pathlib.Path(build_directory) / f"object-of-{sys.argv[1]}.o"
    for _ in range(4):
        with mine.open("a") as file:
            file.write("x")
        time.sleep(0.5)
        assert mine.exists(), "another process has removed it"
    (mine.parent / "gsplat_cuda.so").touch()
    return sys.argv[1]

torch_builds.load = load
from distilled_splat.ops.toolchain import fault_of_kernels
fault = fault_of_kernels()
from gsplat.cuda._backend import _C
print("FAULT:", fault, _C)
"""


def test_processes_compile_one_after_the_other(tmp_path: Path) -> None:
    """By itself gsplat removes what another process has half compiled."""
    program(tmp_path / "cuda" / "bin", "nvcc", "exit 0")
    code = SLOW_COMPILER.replace("sys.argv[1]", "__import__('os').environ['NAME']")
    variables = {"CUDA_HOME": f"{tmp_path / 'cuda'}"}
    processes = [start(code, tmp_path, NAME=name, **variables) for name in ("one", "two")]
    outputs = [told(process) for process in processes]
    assert [output.partition("FAULT: ")[2] for output in outputs] == ["None one", "None two"]
    assert sum("Compiling gsplat's CUDA kernels" in output for output in outputs) == 1
