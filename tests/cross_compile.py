"""Compile all kernels of a training step for other machines; nothing is run there.

As a program it prints, as JSON, for each machine the instructions on whole vectors and the functions that are called
outside, by kernel. Vectors have 8 lanes, as on every machine without AVX-512: NUMBA_CPU_NAME is to be generic.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import torch
from numba.core.dispatcher import Dispatcher
from scenes import dense_scene

from distilled_splat.cpu import (
    adam,
    blend_backward,
    blend_forward,
    depth_order,
    harmonics,
    projection,
    ssim,
    tiles,
)
from distilled_splat.cpu.rasterize import rasterization
from distilled_splat.ops.adam import OnePassAdam
from distilled_splat.ops.losses import photometric_losses

MODULES = (adam, blend_backward, blend_forward, depth_order, harmonics, projection, ssim, tiles)
MACHINES = {
    "Apple M1": ("arm64-apple-darwin", "apple-m1"),
    "neoverse-n1": ("aarch64-unknown-linux-gnu", "neoverse-n1"),
    "Windows": ("x86_64-pc-windows-msvc", "x86-64-v3"),
    "no FMA": ("x86_64-unknown-linux-gnu", "nehalem"),
}
VECTORS = {"a": r"^.*\.4s\b", "x": r"^\s+v?\w+ps\s"}
"""Instructions on four floats or more, by the first letter of the architecture."""
OUR_OWN = re.compile(r"_?_?(_ZN|ZN|NRT_|numba_|cfunc|Py)|[*%]|x\d+$")
"""Other kernels, Numba's own functions (which it brings along), and calls by address."""


def compiled_kernels() -> dict[str, Any]:
    """Render, compare and differentiate a small scene, and return the kernels that this has compiled."""
    scene = dense_scene(seed=3, count=200, width=32, height=32)
    leaves = scene.leaves()
    image, _, _ = rasterization(**scene.arguments(**leaves), sh_degree=3, absgrad=True)
    photometric_losses(image[0], torch.rand(32, 32, 3))[0].backward()
    OnePassAdam([leaves["means"]]).step()
    return {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher) and value.signatures and belongs_to(value, module)
    }


def belongs_to(kernel: Any, module: ModuleType) -> bool:
    return kernel.py_func.__module__ == module.__name__


def retargeted(code: str, triple: str, machine: Any) -> str:
    """Say of LLVM code that it is for another machine.

    Numba's counting of references has been put into x86's own terms by then; it is left out.

    Raises:
        ValueError: if anything else is x86's own.
    """
    code = re.sub(r"(%\S+ = )(?:tail )?call i8 @llvm\.x86\.atomic\.sub\.cc\.i64\(.*", r"\1add i8 0, 0", code)
    code = re.sub(r"declare i8 @llvm\.x86\.atomic.*", "", code)
    if "@llvm.x86." in code:
        raise ValueError(re.findall(r"@llvm\.x86\.[\w.]+", code)[0])
    code = re.sub(r'(target triple) = ".*"', rf'\1 = "{triple}"', code)
    code = re.sub(r'(target datalayout) = ".*"', rf'\1 = "{machine.target_data}"', code)
    return re.sub(r'"target-(cpu|features)"="[^"]*"', "", code)


def compile_for(triple: str, processor: str, kernels: dict[str, Any]) -> dict[str, Any]:
    """Return the instructions on whole vectors, by kernel, and how often each outer function is called."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3, codemodel="default")
    vectors: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for name, kernel in kernels.items():
        for signature in kernel.signatures:
            module = llvm.parse_assembly(retargeted(kernel.inspect_llvm(signature), triple, machine))
            module.verify()
            assembly = machine.emit_assembly(module)
            vectors[name] += len(re.findall(VECTORS[triple[0]], assembly, re.M))
            called = re.findall(r"^\s+(?:bl|callq?|jmp|b)\s+([A-Za-z_]\S*)", assembly, re.M)
            defined = set(re.findall(r"^(\S+):", assembly, re.M))
            outside.update(found for found in called if found not in defined and not OUR_OWN.match(found))
    return {"vectors": vectors, "outside": outside}


if __name__ == "__main__":
    kernels = compiled_kernels()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    json.dump({name: compile_for(*machine, kernels) for name, machine in MACHINES.items()}, sys.stdout)
