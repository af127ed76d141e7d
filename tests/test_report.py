"""The report: whole in one file, right in its numbers, there at the end of a run, and harmless to it."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import PATIENCE, chromium, picture, wait_until
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from tiny import prepared, tiny_student, trained

from distilled_splat import cli
from distilled_splat.evaluation.compare import compare, geometry_table
from distilled_splat.evaluation.held_out import open_run
from distilled_splat.evaluation.lpips_weights import read_weights
from distilled_splat.evaluation.report import CURVES, REPORT_NAME, scalars, write_report
from distilled_splat.evaluation.report_splats import splats_of
from distilled_splat.evaluation.results import read_results
from distilled_splat.ops.render import render
from distilled_splat.ops.views import resized
from distilled_splat.runs.record import read_record, update_record
from distilled_splat.teachers.reading import read_teacher

CONTROL = {
    "scene": "scene", "row": "no <teachers>", "fraction": 0.12, "seed": 3, "gaussians": 321, "megabytes": 0.08,
    "psnr": 12.34, "ssim": 0.567, "seconds": 8.0,
}  # fmt: skip


class Page(HTMLParser):
    """Collects a page's words, and all that it would fetch."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)
        self.fetched += [
            f"{value}"
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not f"{value}".startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"}.intersection(self.open):
            self.words.append(data)


@pytest.fixture(scope="module")
def student(scene: Path, teachers: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a student that has just been trained."""
    options = {"num_gaussians": 300, "lambda_structure": 1.0, "lambda_kd": 1.0, "min_teacher_advantage": 0.0}
    config = tiny_student(scene, tmp_path_factory.mktemp("reported"), teachers, **options)
    config.steps_per_eval_image = 2
    return trained(config).base_dir


def test_a_run_ends_with_its_report(student: Path) -> None:
    content = (student / REPORT_NAME).read_text(encoding="utf8")
    words = " ".join(" ".join(Page(content).words).split())
    for row in compare(student / "config.yml").rows:
        assert f"{row.name} {row.gaussians:,} {row.megabytes:.2f} {row.psnr:.2f} {row.ssim:.4f}" in words
    _, rows = geometry_table(compare(student / "config.yml"))
    assert len(rows) == 5 and all(" ".join(row).strip() in words for row in rows)
    assert "geometry, by depth maps depth error depth error beyond alpha error floaters" in words
    assert "300 Gaussians" in words
    for title in ("PSNR on a held-out photo", "loss on the pseudo label", "structural loss"):
        assert title in content
    assert read_record(student)["command"] in words
    assert "torch" in words and "nerfstudio 1." in words


def test_how_images_look_is_measured_of_the_rows_that_are_asked_for(student: Path) -> None:
    try:
        read_weights()
    except ValueError as error:
        pytest.skip(str(error))
    *teachers, row = compare(student / "config.yml", perceptual_of=("student",)).rows
    assert all(teacher.lpips_vgg is None and "lpips_vgg" not in teacher.photos for teacher in teachers)
    assert row.lpips_vgg is not None and 0.1 < row.lpips_vgg < 1.5
    assert row.lpips_vgg == pytest.approx(sum(row.photos["lpips_vgg"]) / len(row.photos["lpips_vgg"]))
    assert len(row.photos["lpips_vgg"]) == len(row.photos["ssim"]) == len(row.photos["psnr"]) > 1


def test_the_report_draws_what_was_measured_as_curves(scene: Path, teachers: tuple[Path, ...], tmp_path: Path) -> None:
    config = tiny_student(scene, tmp_path, teachers, iterations=60, num_gaussians=300)
    config.logging.steps_per_log = config.steps_per_eval_image = 10
    run = trained(config).base_dir
    found = scalars(run)
    drawn = {title: [step for step, _ in found[tag]] for title, tag in CURVES.items() if tag in found}
    assert {"PSNR on a held-out photo, dB", "loss on the photo", "loss on the teachers' depth"} <= set(drawn)
    assert drawn["PSNR on a held-out photo, dB"] == [10, 20, 30, 40, 50]
    assert all(len(steps) >= 5 for steps in drawn.values())
    content = (run / REPORT_NAME).read_text(encoding="utf8")
    assert all(html.escape(title, quote=False) in content for title in drawn)


def test_the_report_fetches_nothing(student: Path) -> None:
    content = (student / REPORT_NAME).read_text(encoding="utf8")
    assert all(address.startswith("data:") for address in Page(content).fetched)
    assert not re.findall(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", content)


def test_controls_of_the_benchmark_are_rows(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**CONTROL, "scene": "another", "row": "elsewhere"}
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"setting": {}, "results": [CONTROL, other]}))
    arguments = (
        "report",
        "--load-config",
        student / "config.yml",
        "--results",
        results,
        "--output",
        tmp_path / "r.html",
    )
    monkeypatch.setattr(sys, "argv", ["distilled-splat", *map(str, arguments)])
    cli.main()
    content = (tmp_path / "r.html").read_text(encoding="utf8")
    words = " ".join(" ".join(Page(content).words).split())
    assert "no <teachers>, 12 %, seed 3 321 0.08 12.34 0.5670 8" in words and "<teachers>" not in content
    assert "elsewhere" not in words
    assert f"{tmp_path / 'r.html'}" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"results": 3}', '{"results": [{}]}', '{"results": [[]]}', "\x00"])
def test_other_files_are_no_results(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"results\.json is not a results\.json of `distilled-splat bench quality`"):
        read_results(path)


def test_a_report_that_fails_leaves_the_run_finished(
    scene: Path, teachers: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder lies where the report would be written."""
    config = tiny_student(scene, tmp_path, teachers, num_gaussians=300)
    config.timestamp = "run"
    (config.output_dir / "scene" / config.method_name / "run" / REPORT_NAME / "in the way").mkdir(parents=True)
    trainer = trained(config)
    assert read_record(trainer.base_dir)["finished"] is True
    told = " ".join(capsys.readouterr().out.split())
    assert "its report could not be written (IsADirectoryError: " in told
    assert f"write it later: distilled-splat report --load-config {trainer.base_dir / 'config.yml'}" in told


def test_a_run_without_teachers_and_logs_has_a_report_too(student: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(student, bare, ignore=shutil.ignore_patterns("events.*", REPORT_NAME))
    update_record(bare, teachers=[], command=None)
    words = " ".join(Page(write_report(bare / "config.yml").read_text(encoding="utf8")).words)
    assert "300 Gaussians" in words and "mean of teachers" not in words and "Training" not in words


@pytest.mark.slow
def test_the_slider_and_a_phone(student: Path) -> None:
    with chromium(1000, 900) as page:
        page.get((student / REPORT_NAME).resolve().as_uri())
        wait_until(lambda: page.execute_script("return document.getElementById('right').naturalWidth"), "the pictures")
        page.execute_script("document.getElementById('pair').scrollIntoView()")
        half = picture(page)
        move = "const cut = document.getElementById('cut'); cut.value = 5; cut.dispatchEvent(new Event('input'))"
        page.execute_script(move)
        wait_until(lambda: np.abs(picture(page) - half).mean() > 0.05, "the line's move")
        before = page.execute_script("return document.getElementById('right').src")
        choose = "const name = document.getElementById('right-name'); name.value = 'photo';"
        page.execute_script(choose + "name.dispatchEvent(new Event('change'))")
        assert page.execute_script("return document.getElementById('right').src") != before
        for width in (1000, 390):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
        assert not page.get_log("browser")


@pytest.mark.slow
def test_student_and_teacher_are_seen_from_a_held_out_camera(student: Path, teachers: tuple[Path, ...]) -> None:
    """What Spark draws, on its canvas and with its own sorting, looks like what our rasterizer draws."""
    run = open_run(student / "config.yml")
    first = next(run.held_out())
    with chromium(500, 700) as page:
        page.get((student / REPORT_NAME).resolve().as_uri())
        page.set_script_timeout(PATIENCE)
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 300, "height": 600, "deviceScaleFactor": 1, "mobile": False}
        )
        page.execute_script("document.getElementById('stage-open').click()")

        def stage() -> list[int]:
            return page.execute_script(
                "const stage = document.getElementById('stage'); stage.scrollIntoView({block: 'center'}); "
                "const b = stage.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom].map(Math.round)"
            )

        left, upper, right, lower = stage()
        width, height = right - left, lower - upper
        view = resized(first.view, width, height)
        splats = (run.model.gaussians().detach(), read_teacher(teachers[0]).gaussians)
        ours = [255 * render(splat, view).over(first.background).numpy() for splat in splats]
        middle, edge = width // 2, 6  # the stage has round corners
        expected, otherwise = (
            np.concatenate((one[:, :middle], other[:, middle:]), axis=1)[edge:-edge, edge:-edge]
            for one, other in (ours, ours[::-1])
        )

        def alike() -> bool:
            left, upper, *_ = stage()  # words that come above it move it
            seen = picture(page, (left, upper, left + width, upper + height))[edge:-edge, edge:-edge]
            likeness = np.corrcoef(seen.ravel(), expected.ravel())[0, 1]
            difference = np.abs(seen - expected).mean()
            return bool(likeness > 0.9 and difference < 12 and difference < np.abs(seen - otherwise).mean())

        wait_until(alike, "the splats' picture")
        assert not page.get_log("browser")


@pytest.mark.slow
def test_splats_are_left_out_where_they_are_too_large(student: Path, tmp_path: Path) -> None:
    run = open_run(student / "config.yml")
    both = splats_of(run)
    assert both is not None and [splat["name"] for splat in both["splats"]] == ["student", "standard teacher"]
    sizes = [len(base64.b64decode(splat["spz"])) / 1e6 for splat in both["splats"]]
    one = splats_of(run, sum(sizes) - 1e-6)
    assert one is not None and [splat["name"] for splat in one["splats"]] == ["student"]
    assert splats_of(run, sizes[0] - 1e-6) is None and splats_of(run, 0) is None
    path = write_report(student / "config.yml", output=tmp_path / "without.html", most_megabytes=0)
    assert "stage" not in path.read_text(encoding="utf8").partition("<body>")[2]


def test_a_report_without_its_photos_leaves_the_run_finished(
    scene: Path, teachers: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The held-out photos are gone when the report reads them."""
    capture = tmp_path / scene.name
    shutil.copytree(scene, capture)
    config = tiny_student(capture, tmp_path / "runs", teachers, num_gaussians=300)
    trainer = prepared(config)
    held_out = trainer.pipeline.datamanager.eval_dataset.image_filenames
    trainer.callbacks.append(
        TrainingCallback(
            [TrainingCallbackLocation.AFTER_TRAIN_ITERATION], lambda step: [p.unlink(missing_ok=True) for p in held_out]
        )
    )
    trainer.train()
    assert read_record(trainer.base_dir)["finished"] is True
    assert "its report could not be written" in " ".join(capsys.readouterr().out.split())
