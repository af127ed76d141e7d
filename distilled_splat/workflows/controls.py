"""`distilled-splat bench quality`: students with and without teachers, at the same size, steps and views."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

from rich.console import Console

from distilled_splat.evaluation.results import GEOMETRY, PERCEPTUAL, carried_over, read_file, with_result
from distilled_splat.jobs.command import run_job
from distilled_splat.jobs.graph import Job
from distilled_splat.runs.files import write_json
from distilled_splat.runs.record import RECORD_NAME, is_run_of, read_record
from distilled_splat.workflows.control_kinds import (
    CAPPED,
    DEFAULT,
    KINDS,
    PAPER_ABLATION,
    STOCK,
    STOCK_OPTIONS,
    STUDENT,
    TEACHER,
    TEACHERS,
    THREE_KINDS,
    teachers_for,
    wanted_rows,
)
from distilled_splat.workflows.controls_report import write_report
from distilled_splat.workflows.few_photos import thinned
from distilled_splat.workflows.scene_names import check_names


@dataclass
class QualityBench:
    """Train teachers, students and controls on scenes, and write results.json, a table, a plot and pictures.

    Every 8th view is held out; of blender's data, those of transforms_test.json. Finished trainings are not
    repeated, so an interrupted command can be given again.
    results.json keeps the results that other commands have measured in the same folder.
    """

    data: tuple[Path, ...]
    """Folders of the scenes, in nerfstudio's format or in blender's (with a transforms_train.json)."""
    output: Path = Path("quality")
    """Folder for the runs and the results."""
    iterations: int = 3000
    """Training steps of every teacher and every student."""
    fractions: tuple[float, ...] = (0.05, 0.12, 0.25)
    """Sizes of the students, as fractions of the standard teacher's Gaussians."""
    seeds: int = 3
    """Number of students of each kind and size, each with a seed of its own."""
    every: tuple[int, ...] = (1,)
    """Train on every n-th training photo, to see what few photos do; with several numbers, on each of these captures.
    The held-out photos stay the same."""
    rows: tuple[str, ...] = ()
    """Kinds of students to train: names in the table, or patterns of them. By default all but "paper: *", the ablation
    of the paper's own method."""

    def run(self) -> None:
        """Train what is missing, measure everything, and write the results.

        Raises:
            ValueError: if --rows names an unknown row, or the output holds runs of other settings or other photos.
            SystemExit: if a training fails.
        """
        _ = self.wanted  # before anything is read or trained
        scenes = self.captures()
        path, setting = self.output / "results.json", self.setting(scenes)
        results: list[dict[str, Any]] = []
        if path.exists():
            self.check_scenes(path, setting["data"])
            setting, results = carried_over(path, setting)
        for scene in scenes:
            for result in self.scene_results(scene):
                keep_earlier(path, results)
                results = with_result(results, result)
                write_json(path, {"setting": setting, "results": results})
            self.picture(scene)
        write_report(self.output, results)

    def captures(self) -> list[Path]:
        """Return the captures to train on: the scenes, and where --every asks for it, the same with fewer photos.

        Raises:
            ValueError: if a scene's folder has no transforms file, two scenes have one name, or --every holds a number
                below 1.
        """
        check_names(self.data)
        for scene in self.data:
            if not any((scene / name).is_file() for name in ("transforms.json", "transforms_train.json")):
                raise ValueError(f"{scene} is not a capture: it has no transforms.json and no transforms_train.json.")
        if min(self.every, default=1) < 1:
            raise ValueError(f"--every takes numbers of at least 1, not {min(self.every)}.")
        folder = self.output / "captures"
        return [scene if n == 1 else thinned(scene, n, folder) for scene in self.data for n in self.every]

    def check_scenes(self, path: Path, digests: dict[str, str]) -> None:
        """Refuse to mix runs of a scene with runs of other files under the same name.

        Args:
            path: results.json of an earlier command.
            digests: `folder_digest` of each scene now.

        Raises:
            ValueError: if the files of a scene have changed since its runs.
        """
        known = read_file(path).get("setting", {}).get("data", {})
        for name, digest in digests.items():
            runs = self.output / "runs" / name
            if known.get(name, digest) != digest and runs.exists():
                raise ValueError(
                    f"The files of the scene {name} have changed since the runs in {runs} were trained: give another "
                    "--output, or remove that folder."
                )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of the rows to train."""
        return wanted_rows(self.rows)

    def picture(self, scene: Path) -> None:
        """Write a picture beside the results: photo, standard teacher, default student (middle size), its error."""
        from distilled_splat.evaluation.compare import compare
        from distilled_splat.evaluation.pictures import PICTURED_VIEWS, student_picture

        if DEFAULT not in self.wanted:
            return
        path = self.output / f"{scene.name}.png"
        fraction = sorted(self.fractions)[len(self.fractions) // 2]
        teacher = self.output / "runs" / scene.name / TEACHER / "standard"
        name = f"{slug(DEFAULT)}-{round(fraction * gaussian_count(teacher))}-0"
        student = self.output / "runs" / scene.name / STUDENT / name
        if not path.exists() or path.stat().st_mtime <= (student / RECORD_NAME).stat().st_mtime:
            comparison = compare(student / "config.yml", [teacher], PICTURED_VIEWS, perceptual_of=())
            student_picture(comparison, path)

    def setting(self, scenes: Sequence[Path]) -> dict[str, Any]:
        """Return everything besides the code that all results depend on: data, steps, versions, machine."""
        from distilled_splat.ops.processor import processor_name

        packages = ("distilled-splat", "nerfstudio", "gsplat", "torch", "numba")
        return {
            "data": {scene.name: folder_digest(scene) for scene in scenes},
            "iterations": self.iterations,
            "versions": {name: metadata.version(name) for name in packages},
            "python": platform.python_version(),
            "processor": processor_name(),
        }

    def scene_results(self, scene: Path) -> Iterator[dict[str, Any]]:
        """Train and measure the teachers and students of one scene, one after the other."""
        kinds = [kind for kind in (*KINDS, *PAPER_ABLATION) if kind.row in self.wanted]
        teachers = {name: self.train_teacher(scene, name) for name in teachers_for(kinds)}
        yield from measured(scene, teachers)
        three = [teachers[name] for name in THREE_KINDS]
        if STOCK in self.wanted:
            for seed in range(self.seeds):
                as_written = "--pipeline.model.schedule-length", str(self.iterations)
                run = self.train(scene, TEACHER, f"{slug(STOCK)}-{seed}", seed, *STOCK_OPTIONS, *as_written)
                yield student_result(scene, STOCK, None, seed, run, three)
        count = gaussian_count(teachers["standard"])
        for fraction in self.fractions:
            size = round(fraction * count)
            for kind in kinds:
                for seed in range(self.seeds):
                    run = self.train(
                        scene,
                        kind.method,
                        f"{slug(kind.row)}-{size}-{seed}",
                        seed,
                        "--pipeline.model.num-gaussians", str(size),
                        *kind.options,
                        "--pipeline.model.teachers", *(str(teachers[name]) for name in kind.teachers),
                    )  # fmt: skip
                    yield student_result(scene, kind.row, fraction, seed, run, three)
            if CAPPED in self.wanted:
                for seed in range(self.seeds):
                    # without a point cloud, the scene's random Gaussians must leave room to grow
                    capped = (
                        "--pipeline.model.max-gaussians", str(size),
                        "--pipeline.model.num-random", str(max(size // 2, 1)),
                        "--max-num-iterations", str(2 * self.iterations),
                    )  # fmt: skip
                    run = self.train(scene, TEACHER, f"capped-{size}-{seed}", seed, *capped)
                    yield student_result(scene, CAPPED, fraction, seed, run, three)

    def train_teacher(self, scene: Path, name: str) -> Path:
        """Train one teacher. Its kind is the first word of its name."""
        seed = TEACHERS.index(name)
        return self.train(scene, TEACHER, slug(name), seed, "--pipeline.model.variant", name.split()[0])

    def train(self, scene: Path, method: str, name: str, seed: int, *options: str) -> Path:
        """Run `ns-train` unless the run is finished, and return the run folder.

        Raises:
            ValueError: if the folder holds a finished run of other settings.
            SystemExit: if the training fails.
        """
        from distilled_splat.ops.free_memory import release_memory
        from distilled_splat.training.photos import dataparser_words
        from distilled_splat.workflows.training_jobs import LOG_NAME, is_finished

        folder = self.output / "runs" / scene.name / method / name
        command = (
            "-m", "nerfstudio.scripts.train", method,
            "--data", str(scene), "--output-dir", str(self.output / "runs"), "--timestamp", name,
            "--max-num-iterations", str(self.iterations), "--machine.seed", str(42 + seed),
            "--pipeline.datamanager.train-cameras-sampling-seed", str(42 + seed),
            "--vis", "tensorboard", "--steps-per-eval-image", "1000000", "--steps-per-eval-all-images", "1000000",
            *options, *dataparser_words(scene),
        )  # fmt: skip
        job = Job(name, command, folder / LOG_NAME, partial(is_finished, folder))
        if job.done():
            check_settings(folder, command[2:])
        else:
            Console().print(f"{scene.name}: {name}")
            release_memory()
            code = run_job(job)
            if not job.done():
                raise SystemExit(f"The training of {name} on {scene} failed with exit code {code}; see {job.log}.")
        return folder


def keep_earlier(path: Path, carried: Sequence[dict[str, Any]]) -> None:
    """Rename a results.json that holds other results than those that a new one starts with, so that none are lost."""
    if path.exists() and not carried and read_file(path).get("results"):
        taken = time.strftime("%Y-%m-%d-%H%M%S", time.localtime(path.stat().st_mtime))
        path.replace(path.with_name(f"{path.stem}-{taken}{path.suffix}"))


def check_settings(run: Path, words: Sequence[str]) -> None:
    """Refuse a finished run that `ns-train` would train with other settings today.

    Args:
        run: the run's folder.
        words: the arguments of `ns-train`.

    Raises:
        ValueError: if the run was trained with other settings, or with another version of this package.
    """
    import tyro
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    from distilled_splat.runs.fingerprints import settings_fingerprint

    config: Any = tyro.cli(AnnotatedBaseConfigUnion, args=list(words), prog="ns-train")  # type: ignore[arg-type]
    config.pipeline.datamanager.data = config.data  # as ns-train does
    if not is_run_of(read_record(run), settings_fingerprint(config)):
        raise ValueError(
            f"{run} was trained with other settings, or with another version of this package: give another --output, "
            "or remove that folder."
        )


def slug(name: str) -> str:
    """Turn a row's name into a folder's name."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def gaussian_count(run: Path) -> int:
    """Return the number of Gaussians of a finished run."""
    from distilled_splat.teachers.reading import read_teacher

    return len(read_teacher(run).gaussians)


def measured(scene: Path, teachers: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Measure each teacher, and the mean render of the three kinds, on the held-out photos."""
    from distilled_splat.evaluation.compare import compare
    from distilled_splat.evaluation.measuring import MEAN

    for name, run in teachers.items():
        yield result_of(scene, f"{name} teacher", None, 0, run, compare(run / "config.yml", []).rows[-1])
    three = [teachers[name] for name in THREE_KINDS]
    rows = {row.name: row for row in compare(three[0] / "config.yml", three, perceptual_of=(MEAN,)).rows}
    yield result_of(scene, "mean of the three kinds", None, 0, None, rows[MEAN])


def student_result(
    scene: Path, row: str, fraction: Optional[float], seed: int, run: Path, teachers: Sequence[Path]
) -> dict[str, Any]:
    """Measure one student. Without depth maps in the scene, its geometry is measured against these teachers."""
    from distilled_splat.evaluation.compare import compare

    return result_of(
        scene, row, fraction, seed, run, compare(run / "config.yml", teachers, perceptual_of=("student",)).rows[-1]
    )


def result_of(
    scene: Path, name: str, fraction: Optional[float], seed: int, run: Optional[Path], row: Any
) -> dict[str, Any]:
    """Return one measurement as JSON content."""
    # torch takes seconds to import; other subcommands do without it
    from distilled_splat.runs.checkpoints import latest_checkpoint
    from distilled_splat.runs.stages import total

    record = {} if run is None else read_record(run)
    checkpoint = None if run is None else latest_checkpoint(run / "nerfstudio_models")
    return {
        "scene": scene.name,
        "row": name,
        "fraction": fraction,
        "seed": seed,
        "gaussians": row.gaussians,
        "megabytes": row.megabytes,
        "psnr": row.psnr,
        "ssim": row.ssim,
        **{name: getattr(row, name) for name in PERCEPTUAL},
        "seconds": row.seconds,
        "processor_seconds": round(total(record["stages"])[1], 1) if "stages" in record else None,
        **{name: getattr(row, name) for name in GEOMETRY},
        "photos": row.photos,
        "fingerprint": record.get("fingerprint"),
        "checkpoint": None if checkpoint is None else file_digest(checkpoint),
    }


def folder_digest(folder: Path) -> str:
    """Hash the names and the contents of all files in a folder, also behind links."""
    from distilled_splat.runs.fingerprints import digest

    walk = os.walk(folder, followlinks=True)
    files = sorted(Path(place) / name for place, _, names in walk for name in names)
    return digest([[str(path.relative_to(folder)), file_digest(path)] for path in files])


def file_digest(path: Path) -> str:
    """Hash a file to 16 hexadecimal digits (the first of its SHA-256)."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            hasher.update(piece)
    return hasher.hexdigest()[:16]
