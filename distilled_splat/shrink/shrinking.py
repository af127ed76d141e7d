"""The whole job: views, a capture of the splat's own renders, a student of each size, files, and what was lost."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from distilled_splat.ops.importance import importance
from distilled_splat.ops.space import Space
from distilled_splat.ops.views import View, resized
from distilled_splat.runs.faults import writing_to
from distilled_splat.runs.files import write_beside, write_bytes, write_json
from distilled_splat.runs.fingerprints import digest
from distilled_splat.runs.lock import lock_run
from distilled_splat.runs.record import RECORD_NAME, read_record
from distilled_splat.shrink.camera_choice import choose_reading
from distilled_splat.shrink.capture import write_capture
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.invented_cameras import ASPECT, FIELD_OF_VIEW, invent, looking, sharpness
from distilled_splat.shrink.measure import Row, compared, pictures
from distilled_splat.shrink.preview import write_preview
from distilled_splat.shrink.refit import Plan, refit
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.splat.formats import FORMATS, Format, with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.pruning import choose
from distilled_splat.student.virtual_views import views_between
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher, read_teacher

RECIPE = 1
"""Number of the recipe; what another one has begun is begun anew."""
PIXELS_PER_GAUSSIAN = 1.5
"""Size of a usual Gaussian in an invented picture: about what it was in the photos, and no larger."""
NARROWEST, WIDEST = 256, 800
"""Pixels across a picture."""
GLANCE = 64
"""Pixels across the small renders by which views are judged."""
SHARP = 0.7
"""Part of a view that must be detail."""
TEST_VIEWS = 24
HELD_OUT_EVERY = 8


@dataclass(frozen=True)
class Views:
    """What a splat is looked at from, in its unit frame.

    Attributes:
        train: views to learn from.
        test: views to measure at.
        up: unit vector, for pictures of them only, [3].
        words: how they were found.
    """

    train: list[View]
    test: list[View]
    up: Tensor
    words: str


@dataclass(frozen=True)
class Shrunk:
    """One file that was written.

    Attributes:
        path: where it lies.
        gaussians: what it holds, in the unit frame.
        megabytes: its size, in 10^6 bytes.
    """

    path: Path
    gaussians: Gaussians
    megabytes: float


def read_splats(paths: Sequence[Path]) -> list[Teacher]:
    """Read the splats of one scene, the first being that which is to be shrunk.

    Raises:
        ValueError: if there is none, or one cannot be read.
    """
    if not paths:
        raise ValueError("There is no splat to shrink: give a file, or a run folder.")
    return [read_teacher(path) for path in paths]


def invented_views(gaussians: Gaussians, count: int, seed: int) -> Views:
    """Find views of a splat in its unit frame; see `invented_cameras`.

    Raises:
        ValueError: if there is no place to look at it from.
    """
    device = gaussians.means.device
    up = upright(gaussians)

    def shows(eye: Tensor, look: Tensor, scale: float) -> bool:
        focal = GLANCE / 2 / math.tan(FIELD_OF_VIEW / 2)
        view = looking(eye, look, up, GLANCE, round(GLANCE / ASPECT), focal, device)
        return sharpness(gaussians, view, scale) >= SHARP

    found = invent(Space.of(gaussians), count, shows, seed)
    lens = PIXELS_PER_GAUSSIAN * math.exp(found.scale)
    width = round(min(max(2 * lens * math.tan(FIELD_OF_VIEW / 2), NARROWEST), WIDEST))
    focal = width / 2 / math.tan(FIELD_OF_VIEW / 2)
    if float((found.eyes @ up).median()) < float((gaussians.means.cpu() @ up).median()):
        up = -up  # people look down more than up
    views = [
        looking(eye, look, up, width, round(width / ASPECT), focal, device)
        for eye, look in zip(found.eyes, found.looks)
    ]
    test = [view for view in views_between(views, 3 * TEST_VIEWS, seed=seed + 1)
            if sharpness(gaussians, small(view), found.scale) >= SHARP][:TEST_VIEWS]  # fmt: skip
    if not test:
        views, test = held_out(views)
    return Views(views, test, up, f"{len(views)} invented views of {width}x{round(width / ASPECT)}")


def held_out(views: list[View]) -> tuple[list[View], list[View]]:
    """Set every eighth view apart, and of few views the last; a single one serves for both."""
    test = views[::HELD_OUT_EVERY] if len(views) >= HELD_OUT_EVERY else views[-1:]
    train = [view for view in views if not any(view is other for other in test)]
    return train or views, test


def given_views(path: Path, gaussians: Gaussians, frame: UnitFrame) -> Views:
    """Read the views that are given, and bring them into the unit frame.

    Args:
        path: see `given_cameras.read_cameras`.
        gaussians: the splat in its unit frame.
        frame: that frame.

    Raises:
        ValueError: if they cannot be read, or see nothing of the splat.
    """
    device = gaussians.means.device
    given = read_cameras(path).moved(1 / frame.size, frame.centre)
    name, views = choose_reading(given, gaussians, device)
    here = [within(View(view.viewmat.to(device), view.K.to(device), view.width, view.height)) for view in views]
    ups = torch.stack([-view.viewmat[1, :3] for view in here]).mean(dim=0).cpu()
    up = ups / ups.norm() if float(ups.norm()) > 1e-3 else upright(gaussians)
    train, test = held_out(here)
    return Views(train, test, up, f"{len(here)} cameras of {given.kind}, read in the {name} frame")


def within(view: View) -> View:
    """Return a view no wider and no higher than invented ones may be."""
    factor = min(WIDEST / max(view.width, view.height), 1.0)
    return rescaled(view, factor)


def small(view: View) -> View:
    """Return a view at the size of a glance."""
    return rescaled(view, GLANCE / view.width)


def rescaled(view: View, factor: float) -> View:
    """Return a view at another resolution."""
    return resized(view, max(round(view.width * factor), 1), max(round(view.height * factor), 1))


def upright(gaussians: Gaussians) -> Tensor:
    """Guess which way is up, by the axis along which a splat is flattest; the sign is open, [3]."""
    means = gaussians.means.cpu().double()
    inner = means[means.abs().amax(dim=1) < 1]
    inner = inner if len(inner) > 3 else means
    spread = (inner - inner.mean(dim=0)).T @ (inner - inner.mean(dim=0))
    return torch.linalg.eigh(spread).eigenvectors[:, 0].float()


class Shrinking:
    """One splat that is being shrunk, with the folder in which that can be resumed."""

    def __init__(self, paths: Sequence[Path], output: Path, form: Format, sh_degree: int, console: Console) -> None:
        """Read the splats.

        Args:
            paths: of the splats of one scene, the first being that which is to be shrunk.
            output: the file to write.
            form: its format.
            sh_degree: spherical harmonics above this degree are left out.
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

    def run(
        self,
        counts: Sequence[int],
        cameras: Optional[Path],
        num_views: int,
        iterations: int,
        seed: int,
        preview: Optional[Path],
        report: Optional[Path],
        keep_work: bool,
    ) -> tuple[list[Row], int]:
        """Do the whole job, and return the table's rows and the number of views that they were measured at.

        Args:
            counts: sizes, the largest first.
            cameras: a file of cameras, None to find them.
            num_views: how many to find.
            iterations: steps of each refit.
            seed: of all that is drawn.
            preview: file for a picture of the views, None for none.
            report: file for the report of the smallest size, None for none.
            keep_work: whether the folder of the work stays.

        Raises:
            ValueError: if there is no place to look from, or the cameras do not fit.
            SystemExit: if a training fails or is interrupted.
        """
        files = [(str(teacher.path.absolute()), teacher.path.stat().st_size, teacher.path.stat().st_mtime_ns)
                 for teacher in self.teachers]  # fmt: skip
        settings = [RECIPE, files, str(cameras), num_views, iterations, seed, self.sh_degree]
        work = self.output.parent / f".{self.output.name}.work" / digest(settings)
        lock = lock_run(work)
        try:
            with writing_to(work):
                views = self.views(cameras, num_views, seed)
                self.console.print(f"{views.words}; {len(views.test)} more to measure by.")
                if preview is not None:
                    write_preview(preview, self.here, [*views.train, *views.test], views.up)
                    self.console.print(f"The views: {preview}")
                plan = self.prepare(work, views, iterations, seed)
            refit(plan, counts)
            with writing_to(self.output.parent):
                written = [self.write(plan, count, several=len(counts) > 1) for count in counts]
                for file in written:
                    self.console.print(f"Written: {file.path}")
                if report is not None:
                    page = plan.run_of(counts[-1]) / "report.html"
                    write_beside(report, lambda temporary: shutil.copyfile(page, temporary))
            rows = self.measured(written, views)
        except ValueError:
            if not read_record(work).get("prepared"):
                shutil.rmtree(work.parent, ignore_errors=True)  # there is no place to look from, and so no work
            raise
        finally:
            lock.release(force=True)
        if not keep_work:
            shutil.rmtree(work.parent, ignore_errors=True)
        return rows, len(views.test)

    def views(self, cameras: Optional[Path], num_views: int, seed: int) -> Views:
        """Find the views, or read those that are given."""
        if cameras is not None:
            return given_views(cameras, self.here, self.frame)
        return invented_views(self.here, num_views, seed)

    def prepare(self, work: Path, views: Views, iterations: int, seed: int) -> Plan:
        """Write the splats in their unit frame, and the capture of their renders, unless that is there."""
        capture, record = work / "capture", work / RECORD_NAME
        paths = tuple(work / f"splat-{number}.ply" for number in range(1, len(self.splats) + 1))
        if not read_record(work).get("prepared"):
            for path, splat, teacher in zip(paths, self.splats, self.teachers):
                content = FORMATS["ply"].file_of(with_degree(splat, self.sh_degree), teacher.antialiased)
                write_bytes(path, content)
            ensemble = TeacherEnsemble(
                [Teacher(path, with_degree(splat, self.sh_degree), teacher.antialiased, None, {})
                 for path, splat, teacher in zip(paths, self.splats, self.teachers)], self.device
            )  # fmt: skip
            with Progress(console=self.console, transient=True) as bar:
                task = bar.add_task("Rendering the splat", total=None)
                write_capture(
                    capture, ensemble, views.train, views.test,
                    lambda done, of: bar.update(task, completed=done, total=of),
                )  # fmt: skip
            write_json(record, {"prepared": True})
        kind = self.device.type
        return Plan(capture, paths, work / "runs", iterations, self.sh_degree, self.antialiased, kind, 42 + seed)

    def write(self, plan: Plan, count: int, several: bool) -> Shrunk:
        """Write one size in the splat's own units."""
        small = with_degree(read_teacher(plan.run_of(count)).gaussians, self.sh_degree)
        ending = self.form.ending
        stem = self.output.name.removesuffix(ending)
        path = self.output.with_name(f"{stem}-{count}{ending}") if several else self.output
        content = self.form.file_of(self.frame.out_of(small), self.antialiased)
        write_bytes(path, content)
        return Shrunk(path, small, len(content) / 1e6)

    def measured(self, files: Sequence[Shrunk], views: Views) -> list[Row]:
        """Compare each file, and the most important Gaussians without a refit, with the original."""
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
