"""The whole job of `shrink`: views, a capture of the splat's renders, a student of each size, files, measurements."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import torch
from rich.console import Console
from rich.progress import Progress

from distilled_splat.evaluation.report import write_report
from distilled_splat.ops.free_memory import release_memory
from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.files import write_bytes, write_json
from distilled_splat.runs.fingerprints import digest
from distilled_splat.runs.lock import lock_run
from distilled_splat.runs.record import RECORD_NAME, read_record
from distilled_splat.shrink.budget import Choice, TooLittleTime, choose_work, measure_paces, process_start
from distilled_splat.shrink.capture import write_capture
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.kept_views import VIEWS_NAME, read_views, write_views
from distilled_splat.shrink.measure import Row, closeness, compared_at
from distilled_splat.shrink.preview import write_preview
from distilled_splat.shrink.refit import Plan, refit
from distilled_splat.shrink.selection import Selection, importance_at, select, some
from distilled_splat.shrink.sizes import fitted
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.shrink.viewpoints import Views, given_views, invented_views
from distilled_splat.splat.formats import FORMATS, Format, with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.splat.sog import META
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher, read_teacher

RECIPE = 5
"""Version of the procedure. Work from another version is started again."""
NEEDS_NO_REFIT = 40.0
"""From this PSNR to the original, in dB, the most important Gaussians are written as they are. A refit of a selection
that is as close as this takes it further away (docs/shrink.md)."""


@dataclass(frozen=True)
class Shrunk:
    """One written file.

    Attributes:
        path: path of the file.
        gaussians: its Gaussians, in the unit frame.
        megabytes: its size, in 10^6 bytes.
        is_trained: whether it comes from a refit.
    """

    path: Path
    gaussians: Gaussians
    megabytes: float
    is_trained: bool


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
        self.paths = tuple(paths)
        teachers = read_splats(paths)
        splats = [teacher.gaussians for teacher in teachers]
        self.sh_degree = min(sh_degree, splats[0].sh_degree, form.highest_degree)
        self.antialiased = teachers[0].antialiased
        self.frame = UnitFrame.of(splats)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teachers = [
            replace(teacher, gaussians=self.frame.into(teacher.gaussians).to(self.device)) for teacher in teachers
        ]
        self.began = process_start()
        self.beginning = time.time() - self.began

    def run(
        self,
        sizes: Mapping[int, Optional[float]],
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
            sizes: sizes in Gaussians, the largest first, each with the largest size of its file in megabytes, or None.
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
        counts = list(sizes)
        work = self.output.parent / f".{self.output.name}.work" / self.name_of_work(cameras, num_views, seed)
        lock = lock_run(work)
        try:
            with writing_to(work):
                views = self.views(work, cameras, num_views, seed)
                self.console.print(f"{views.words}; {len(views.test)} more for measuring.")
                if preview is not None:
                    write_preview(preview, self.original, [*views.train, *views.test], views.up)
                    self.console.print(f"Picture of the views: {preview}")
                if minutes is not None:
                    choice = self.choice(work, views, counts, minutes)
                    views, iterations = views.fewer(choice.views), choice.iterations
                selections = select(self.original, views.train, counts, self.sh_degree, self.antialiased)
                refitted = [count for count in counts if selections[count].psnr < NEEDS_NO_REFIT]
                plan = self.prepare(work, views, refitted, iterations, seed)
            self.teachers = []  # the refit needs the memory, and reads the splats itself
            release_memory()
            if refitted:
                refit(plan)
            original = self.frame.into(read_teacher(self.paths[0]).gaussians).to(self.device)
            with writing_to(self.output.parent):
                written = [
                    self.write(plan, original, count, limit, selections[count], views, self.path_of(count, sizes))
                    for count, limit in sizes.items()
                ]
                if report is not None:
                    self.report(plan, counts[-1], written[-1], report)
            rows = self.measured(original, selections, written, views)
        except ValueError:
            if not (work / VIEWS_NAME).exists():
                remove_work(work)  # without views there is no work to resume
            raise
        finally:
            lock.release(force=True)
        if not keep_work:
            remove_work(work)
            if work.parent.exists():
                self.console.print(f"Interrupted or kept work with other settings stays in {work.parent}.")
        return rows, len(views.test)

    @property
    def original(self) -> Gaussians:
        """The splat to shrink, in the unit frame."""
        return self.teachers[0].gaussians

    def name_of_work(self, cameras: Optional[Path], num_views: int, seed: int) -> str:
        """Return a folder name from everything that the capture depends on. Work in a folder of this name is resumed.

        Raises:
            ValueError: if the cameras cannot be read.
        """
        files = [stamps(teacher.path) for teacher in self.teachers]
        given = None if cameras is None else read_cameras(cameras).summary()
        return digest([RECIPE, files, given, num_views, seed, self.sh_degree])

    def views(self, work: Path, cameras: Optional[Path], num_views: int, seed: int) -> Views:
        """Invent the views or read the given cameras, and store them. Resumed work reads the stored views."""
        kept = read_views(work / VIEWS_NAME, self.device)
        if kept is not None:
            self.console.print("Reusing the views of the interrupted command.")
            return kept
        splat = self.original
        found = given_views(cameras, splat, self.frame) if cameras else invented_views(splat, num_views, seed)
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
            paces = measure_paces(self.original, views.train, counts[-1], self.beginning)
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
        paths = tuple(work / f"splat-{number}.ply" for number in range(1, len(self.teachers) + 1))
        if counts and not capture.exists():
            teachers = [
                Teacher(path, with_degree(teacher.gaussians, self.sh_degree), teacher.antialiased, None, {})
                for path, teacher in zip(paths, self.teachers)
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

    def write(
        self,
        plan: Plan,
        original: Gaussians,
        count: int,
        limit: Optional[float],
        selection: Selection,
        views: Views,
        path: Path,
    ) -> Shrunk:
        """Write the file of one size, in the splat's own units: the refit, or the selection if that is closer.

        With a limit in megabytes the file has fewer Gaussians if it would be larger.
        """
        small, is_trained = with_degree(original[selection.rows], self.sh_degree), False
        if count in plan.counts:
            trained = with_degree(read_teacher(plan.run_of(count)).gaussians, self.sh_degree).to(self.device)
            if closeness(trained, original, some(views.train), self.antialiased) > selection.psnr:
                small, is_trained = trained, True
        if limit is not None:
            small = self.within(small, limit, views)
        content = self.content_of(small)
        write_bytes(path, content)
        if self.form is not FORMATS["ply"]:  # other formats round their numbers
            small = self.frame.into(read_teacher(path).gaussians).to(self.device)
        alone = f" (its {len(small)} most important Gaussians, not refitted: {selection.psnr:.1f} dB to the original)"
        note = "" if is_trained else alone
        self.console.print(f"Written: {path}{note}")
        return Shrunk(path, small, len(content) / 1e6, is_trained)

    def content_of(self, gaussians: Gaussians) -> bytes:
        """Return the file of a splat that is in the unit frame."""
        return self.form.file_of(self.frame.out_of(gaussians), self.antialiased)

    def within(self, gaussians: Gaussians, megabytes: float, views: Views) -> Gaussians:
        """Leave out the least important Gaussians until the file has at most this many megabytes."""
        if len(self.content_of(gaussians)) <= 1e6 * megabytes:
            return gaussians
        weights = importance_at(gaussians, some(views.train), self.antialiased)
        found = fitted(gaussians, weights, megabytes, lambda splat: len(self.content_of(splat)))
        self.console.print(
            f"{len(found)} of the {len(gaussians)} Gaussians fit into {megabytes:g} MB: the harmonics of the small "
            "splat compress less well than the original's."
        )
        return found

    def path_of(self, count: int, counts: Collection[int]) -> Path:
        """Return the file of a size: the output, or with several sizes one that has the number in its name."""
        ending = self.form.ending
        stem = self.output.name.removesuffix(ending)
        return self.output.with_name(f"{stem}-{count}{ending}") if len(counts) > 1 else self.output

    def report(self, plan: Plan, count: int, file: Shrunk, path: Path) -> None:
        """Write the report of a result's training, if it was trained."""
        if file.is_trained:
            write_report(plan.run_of(count) / "config.yml", output=path, perceptual_of=())
        else:
            self.console.print(f"{path} is not written: a report shows a training, and {file.path} was not trained.")

    def measured(
        self, original: Gaussians, selections: Mapping[int, Selection], files: Sequence[Shrunk], views: Views
    ) -> list[Row]:
        """Compare each file, and the most important Gaussians without a refit, with the original."""
        named: list[tuple[str, Gaussians, Optional[float]]] = []
        for file, (count, selection) in zip(files, selections.items()):
            named += [
                (f"{count} most important, no refit", original[selection.rows], None),
                (file.path.name, file.gaussians, file.megabytes),
            ]
        qualities = compared_at([splat for _, splat, _ in named], original, views.test, self.antialiased)
        rows = [
            Row(name, len(splat), megabytes, *quality) for (name, splat, megabytes), quality in zip(named, qualities)
        ]
        return [Row("the original", len(original), None), *rows]


def stamps(path: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a splat's files. An unpacked SOG is a folder of several."""
    folder = path if path.is_dir() else path.parent if path.name == META else None
    files = [path] if folder is None else sorted(file for file in folder.iterdir() if file.is_file())
    return [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def remove_work(work: Path) -> None:
    """Remove a work folder, and the folder around it unless it holds work of the same output with other settings."""
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):
        work.parent.rmdir()
