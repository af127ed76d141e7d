"""`distilled-splat doctor`: options, output and exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import; other subcommands do without it
    from distilled_splat.doctor.findings import Finding


@dataclass
class Doctor:
    """Check in about a minute whether this machine can train students. Include the output in a bug report.

    Each line is ok or says what to do. The exit code is 1 if `ns-train distilled-splatfacto` cannot run here.
    """

    full: bool = False
    """Also train three teachers and a student on each device, and stock splatfacto on CUDA. Prints steps per second,
    memory and PSNR."""
    steps: int = 300
    """Training steps of each training of --full."""
    output: Path = Path("doctor-output")
    """Folder for the runs of --full."""

    def run(self) -> None:
        """Check everything, and print each finding immediately.

        Raises:
            SystemExit: with code 1 if students cannot be trained here.
        """
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        faults = 0
        for finding in self.findings():
            console.print(f"{finding.verdict:<5} {finding.subject}: {finding.words}", markup=False)
            faults += finding.verdict == "fault"
        if self.full and faults == 0:
            from distilled_splat.doctor.backends import devices
            from distilled_splat.doctor.trainings import full_table

            faults += not full_table(devices(), self.output, self.steps, console)
        if faults:
            console.print(f"Faults: {faults}. Repair them before you train a student on this machine.")
            raise SystemExit(1)
        console.print("This machine can train students.")

    def findings(self) -> Iterator[Finding]:
        """Check machine, tools and backends, in this order."""
        from distilled_splat.doctor.backends import look_at_backends
        from distilled_splat.doctor.machine import look_at_machine, look_at_tools

        yield from look_at_machine()
        yield from look_at_tools()
        yield from look_at_backends()
