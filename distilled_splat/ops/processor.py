"""The processor's name, the number of processors, and the number of threads of our CPU kernels."""

from __future__ import annotations

import platform
from pathlib import Path

from distilled_splat.cpu.threads import num_processors, num_threads

__all__ = ["num_processors", "num_threads", "processor_name"]


def processor_name() -> str:
    """Return the system's name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
