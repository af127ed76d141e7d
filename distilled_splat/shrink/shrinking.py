"""The whole job of `shrink`: views, a capture of the splat's renders, a student of each size, files, measurements."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from distilled_splat.ops.gpu_memory import release_gpu_memory
from distilled_splat.ops.importance import importance
from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.files import write_beside, write_bytes, write_json
from distilled_splat.runs.fingerprints import digest
from distilled_splat.runs.lock import lock_run
from distilled_splat.runs.record import RECORD_NAME, read_record
from distilled_splat.shrink.budget import Choice, TooLittleTime, choose_work, measure_paces, process_start
from distilled_splat.shrink.capture import write_capture
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.kept_views import VIEWS_NAME, read_views, write_views
from distilled_splat.shrink.measure import Row, compared, pictures
from distilled_splat.shrink.preview import write_preview
from distilled_splat.shrink.refit import Plan, refit
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.shrink.viewpoints import Views, given_views, invented_views
from distilled_splat.splat.formats import FORMATS, Format, with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.pruning import choose
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher, read_teacher

RECIPE = 3
"""Version of the procedure. Work from another version is started again."""


@dataclass(frozen=True)
class Shrunk:
    """One written file.

    Attributes:
        path: path of the file.
        gaussians: its Gaussians, in the unit frame.
        megabytes: its size, in 10^6 bytes.
    """

    path: Path
    gaussians: Gaussians
    megabytes: float


def read_splats(paths: Sequence[Path]) -> list[Teacher]:
    """Read the splats of one scene; the first is the splat to shrink.

    Raises:
        ValueError: if there is none, or one of them cannot be read.
    """
    if not paths:
        raise ValueError("There is no splat to shrink: give a file, or a run folder.")
    return [read_teacher(path) for path in paths]


class Shrinking:
    """The shrinking of one splat. Its work folder lets it resume."""

    def __init__(self, paths: Sequence[Path], output: Path, form: Format, sh_degree: int, console: Console) -> None:
        """Read the splats.

        Args:
            paths: the splats of one scene; the first is the splat to shrink.
            output: the file to write.
            form: the file's format.
            sh_degree: spherical harmonics above this degree are removed.
            console: where to print.

        Raises:
            ValueError: if a splat cannot be read, or shows nothing.
        """
        self.output, self.form, self.console = output, form, console
        self.teachers = read_splats(paths)
        splats = [teacher.gaussians for teacher in self.teachers]
        self.sh_degree = min(sh_degree, splats[0].sh_degree, form.highest_degree)
        self.antialiased = self.teachers[0].antialiased
        self.frame = UnitFrame.of(splats)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.splats = [self.frame.into(splat) for splat in splats]
        self.here = self.splats[0].to(self.device)
        self.began = process_start()
        self.beginning = time.time() - self.began

    def run(
        self,
        counts: Sequence[int],
        cameras: Optional[Path],
        num_views: int,
        iterations: int,
        minutes: Optional[float],
        seed: int,
        preview: Optional[Path],
        report: Optional[Path],
        keep_work: bool,
    ) -> tuple[list[Row], int]:
        """Do the whole job. Return the table's rows, and the number of views that they were measured at.

        Args:
            counts: sizes in Gaussians, the largest first.
            cameras: a file of cameras; None: invent views.
            num_views: largest number of views to invent.
            iterations: steps of each refit, if `minutes` is None.
            minutes: time for the whole command, which sets the numbers of steps and views.
            seed: seed of all random numbers.
            preview: file for a picture of the views; None: no picture.
            report: file for the report of the smallest size; None: no report.
            keep_work: whether to keep the work folder.

        Raises:
            ValueError: if no view can be invented, the cameras do not fit the splat, or the time is too short.
            SystemExit: if a training fails or is interrupted.
        """
        work = self.output.parent / f".{self.output.name}.work" / self.name_of_work(cameras, num_views, seed)
        lock = lock_run(work)
        try:
            with writing_to(work):
                views = self.views(work, cameras, num_views, seed)
                self.console.print(f"{views.words}; {len(views.test)} more for measuring.")
                if preview is not None:
                    write_preview(preview, self.here, [*views.train, *views.test], views.up)
                    self.console.print(f"Picture of the views: {preview}")
                if minutes is not None:
                    choice = self.choice(work, views, counts, minutes)
                    views, iterations = views.fewer(choice.views), choice.iterations
                plan = self.prepare(work, views, counts, iterations, seed)
            self.here = self.here.to("cpu")  # the refit needs the GPU's memory
            release_gpu_memory()
            refit(plan)
            with writing_to(self.output.parent):
                written = [self.write(plan, count, several=len(counts) > 1) for count in counts]
                for file in written:
                    self.console.print(f"Written: {file.path}")
                if report is not None:
                    page = plan.run_of(counts[-1]) / "report.html"
                    write_beside(report, lambda temporary: shutil.copyfile(page, temporary))
            rows = self.measured(written, views)
        except ValueError:
            if not (work / VIEWS_NAME).exists():
                shutil.rmtree(work.parent, ignore_errors=True)  # without views there is no work to resume
            raise
        finally:
            lock.release(force=True)
        if not keep_work:
            shutil.rmtree(work.parent, ignore_errors=True)
        return rows, len(views.test)

    def name_of_work(self, cameras: Optional[Path], num_views: int, seed: int) -> str:
        """Return a folder name from everything that the capture depends on. Work in a folder of this name is resumed.

        Raises:
            ValueError: if the cameras cannot be read.
        """
        files = [(str(teacher.path.absolute()), teacher.path.stat().st_size, teacher.path.stat().st_mtime_ns)
                 for teacher in self.teachers]  # fmt: skip
        given = None if cameras is None else read_cameras(cameras).summary()
        return digest([RECIPE, files, given, num_views, seed, self.sh_degree])

    def views(self, work: Path, cameras: Optional[Path], num_views: int, seed: int) -> Views:
        """Invent the views or read the given cameras, and store them. Resumed work reads the stored views."""
        kept = read_views(work / VIEWS_NAME, self.device)
        if kept is not None:
            self.console.print("Reusing the views of the interrupted command.")
            return kept
        found = given_views(cameras, self.here, self.frame) if cameras else invented_views(self.here, num_views, seed)
        write_views(work / VIEWS_NAME, found)
        return found

    def choice(self, work: Path, views: Views, counts: Sequence[int], minutes: float) -> Choice:
        """Choose the numbers of views and steps that fit into the time. Resumed work keeps its earlier choice.

        Raises:
            ValueError: if the time is too short for useful work.
        """
        record, name = work / RECORD_NAME, f"{minutes:g} minutes for {counts}"
        choices = read_record(work).get("choices", {})
        if name not in choices:
            paces = measure_paces(self.here, views.train, counts[-1], self.beginning)
            try:
                choice = choose_work(paces, 60 * minutes - (time.time() - self.began), counts, len(views.train))
            except TooLittleTime as error:
                least = math.ceil(2 * (minutes + error.missing / 60)) / 2
                raise ValueError(
                    f"--minutes {minutes:g} is too short for this splat on this machine: give at least {least:g}."
                ) from error
            choices = {**choices, name: [choice.views, choice.iterations]}
            write_json(record, {"choices": choices})
        choice = Choice(*choices[name])
        self.console.print(
            f"Within {minutes:g} minutes: {choice.iterations} steps on {choice.views} of the {len(views.train)} views."
        )
        return choice

    def prepare(self, work: Path, views: Views, counts: Sequence[int], iterations: int, seed: int) -> Plan:
        """Write the splats in their unit frame, and the capture of their renders, unless they exist."""
        capture = work / f"capture-{len(views.train)}"
        paths = tuple(work / f"splat-{number}.ply" for number in range(1, len(self.splats) + 1))
        if not capture.exists():
            teachers = [
                Teacher(path, with_degree(splat, self.sh_degree), teacher.antialiased, None, {})
                for path, splat, teacher in zip(paths, self.splats, self.teachers)
            ]
            for teacher in teachers:
                write_bytes(teacher.path, FORMATS["ply"].file_of(teacher.gaussians, teacher.antialiased))
            ensemble = TeacherEnsemble(teachers, self.device)
            with Progress(console=self.console, transient=True) as bar:
                task = bar.add_task("Rendering the splat", total=None)
                write_capture(
                    capture, ensemble, views.train, views.test,
                    lambda done, of: bar.update(task, completed=done, total=of),
                )  # fmt: skip
        kind = self.device.type
        runs = work / "runs"
        return Plan(capture, paths, tuple(counts), runs, iterations, self.sh_degree, self.antialiased, kind, 42 + seed)

    def write(self, plan: Plan, count: int, several: bool) -> Shrunk:
        """Write the file of one size, in the splat's own units."""
        small = with_degree(read_teacher(plan.run_of(count)).gaussians, self.sh_degree)
        ending = self.form.ending
        stem = self.output.name.removesuffix(ending)
        path = self.output.with_name(f"{stem}-{count}{ending}") if several else self.output
        content = self.form.file_of(self.frame.out_of(small), self.antialiased)
        write_bytes(path, content)
        return Shrunk(path, small, len(content) / 1e6)

    def measured(self, files: Sequence[Shrunk], views: Views) -> list[Row]:
        """Compare each file, and the most important Gaussians without a refit, with the original."""
        self.here = self.here.to(self.device)
        true = pictures(self.here, views.test, self.antialiased)
        rows = [Row("the original", len(self.here), None)]

        def background() -> Tensor:
            return torch.rand(3, device=self.device)

        weights = importance(self.here, views.train, background, antialiased=self.antialiased)
        for file in files:
            count = len(file.gaussians)
            chosen = self.here[choose(weights, count, sampled=False)]
            for name, splat, megabytes in (
                (f"{count} most important, no refit", chosen, None), (file.path.name, file.gaussians, file.megabytes)
            ):  # fmt: skip
                shown = pictures(splat.to(self.device), views.test, self.antialiased)
                rows.append(compared(name, shown, true, count, megabytes))
        return rows
