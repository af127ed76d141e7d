"""`distilled-splat shrink` as it is used: a file in, smaller files out, whatever happens in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from solids import moved_to, solid

from distilled_splat.shrink.bench import table
from distilled_splat.shrink.bench_plot import plot
from distilled_splat.shrink.sizes import sizes_of
from distilled_splat.splat.files import read_splat
from distilled_splat.splat.formats import FORMATS
from distilled_splat.splat.gaussians import Gaussians

pytestmark = pytest.mark.slow
SMALL = ("--views", "8", "--iterations", "40")


def write(path: Path, gaussians: Gaussians) -> Path:
    path.write_bytes(FORMATS["ply"].encode(gaussians))
    return path


def start(*words: object) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).parent / "distilled-splat"), "shrink", *map(str, words)]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def shrink(*words: object, code: int = 0) -> str:
    """Run the command to its end, see that it came with this code, and return its words."""
    process = start(*words)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    assert code == 0 or "Traceback" not in output, output
    return output


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("big") / "big.ply", moved_to(solid(900), 3.0, 20.0))


def test_a_ladder_of_sizes_with_everything_that_can_be_asked_for(big: Path, tmp_path: Path) -> None:
    output = shrink(
        big, "--output", tmp_path / "small.ply", "--num-gaussians", 300, 150, "--keep-fraction", 0.2, *SMALL,
        "--preview", tmp_path / "views.png", "--report", tmp_path / "report.html", "--json", tmp_path / "table.json",
        "--keep-work",
    )  # fmt: skip
    original = read_splat(big).gaussians
    for count in (300, 150, round(0.2 * len(original))):
        found = read_splat(tmp_path / f"small-{count}.ply").gaussians
        assert len(found) == count and found.sh_degree == original.sh_degree
        assert (found.means.mean(dim=0) - 20).abs().max() < 1 and found.means.std(dim=0).mean() < 4
        assert f"Written: {tmp_path / f'small-{count}.ply'}" in output
    table = json.loads((tmp_path / "table.json").read_text())
    rows = {row["name"]: row for row in table["rows"]}
    best = rows["small-300.ply"]
    assert best["psnr"] > rows["300 most important, no refit"]["psnr"] and best["gaussians"] == 300
    assert best["megabytes"] == (tmp_path / "small-300.ply").stat().st_size / 1e6
    assert Image.open(tmp_path / "views.png").size[0] > 600
    assert "<html" in (tmp_path / "report.html").read_text()
    check_starts(tmp_path / ".small.ply.work", (round(0.2 * len(original)), 300, 150))
    assert {path.name for path in tmp_path.iterdir()} == {
        ".small.ply.work",
        "small-300.ply", "small-150.ply", f"small-{round(0.2 * len(original))}.ply", "views.png", "report.html",
        "table.json",
    }  # fmt: skip


def check_starts(work: Path, counts: tuple[int, ...]) -> None:
    """See that the largest student started with the splat, and each other with the next larger one."""
    before: list[int] = []
    for count in counts:
        sizes = "-of-".join(map(str, [count, *before]))
        (run,) = work.glob(f"*/runs/*/*/{sizes}-gaussians-40-steps")
        settings = json.loads((run / "distilled_splat.json").read_text())["settings"]
        start = settings["pipeline"]["model"].get("start_with")
        assert (start is None) if not before else Path(start).name.startswith(f"{before[0]}-")
        assert "splat-1.ply" in str(settings["pipeline"]["model"]["teachers"])
        before.insert(0, count)


def test_an_interrupted_job_is_resumed_by_the_same_command(big: Path, tmp_path: Path) -> None:
    words = (big, "--output", tmp_path / "small.ply", "--num-gaussians", 200, "--views", 8, "--iterations", 800)
    process = start(*words)
    give_up = time.monotonic() + 300
    while not list(tmp_path.glob(".small.ply.work/*/runs/*/*/*/progress.json")):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130 and "resumes from the last checkpoint" in output and "Traceback" not in output
    (checkpoint,) = tmp_path.glob(".small.ply.work/*/runs/*/*/*/nerfstudio_models/*.ckpt")
    made = times_of(tmp_path)
    assert not (tmp_path / "small.ply").exists() and checkpoint.exists()

    assert "Reusing the views" in shrink(*words, "--keep-work")
    assert len(read_splat(tmp_path / "small.ply").gaussians) == 200
    assert times_of(tmp_path) == made
    log = next(tmp_path.glob(".small.ply.work/*/runs/*/*/*/training.log")).read_text()
    assert "Resuming the interrupted run" in " ".join(log.split())


def times_of(folder: Path) -> list[int]:
    """Return when the views were found and when the capture was made; each is there once."""
    work = folder / ".small.ply.work"
    (views,), (capture,) = work.glob("*/views.json"), work.glob("*/capture-*/transforms.json")
    return [views.stat().st_mtime_ns, capture.stat().st_mtime_ns]


def test_views_found_once_serve_other_sizes_and_other_lengths(big: Path, tmp_path: Path) -> None:
    words = (big, "--output", tmp_path / "small.ply", "--views", 8, "--keep-work")
    assert "Reusing the views" not in shrink(*words, "--num-gaussians", 200, "--iterations", 20)
    made, table = times_of(tmp_path), tmp_path / "table.json"
    for count, iterations in ((100, 20), (200, 30), (200, 20)):
        output = shrink(*words, "--num-gaussians", count, "--iterations", iterations, "--json", table)
        assert "Reusing the views" in output and times_of(tmp_path) == made
        assert ("done in" in output) == ((count, iterations) != (200, 20))  # that one is only measured
        assert len(read_splat(tmp_path / "small.ply").gaussians) == count
        assert json.loads(table.read_text())["rows"][-1]["psnr"] > 5
    assert "Reusing the views" not in shrink(*words, "--num-gaussians", 100, "--iterations", 20, "--seed", 1)


def test_work_with_other_settings_is_kept(big: Path, tmp_path: Path) -> None:
    words = (big, "--output", tmp_path / "small.ply", "--num-gaussians", 200, "--views", 8, "--iterations", 20)
    shrink(*words, "--keep-work")
    (kept,) = (tmp_path / ".small.ply.work").iterdir()
    files = sorted(kept.rglob("*"))
    cameras = tmp_path / "cameras.json"
    cameras.write_text("[]")
    shrink(*words, "--cameras", cameras, code=1)  # refused
    output = shrink(*words, "--seed", 1)  # done, and its own work removed
    assert "work with other settings stays" in " ".join(output.split())
    assert sorted(kept.rglob("*")) == files and list(kept.parent.iterdir()) == [kept]
    report = tmp_path / "report.html"
    output = shrink(*words, "--report", report)  # the training is finished; only the report is new
    assert "done in" not in output and not kept.parent.exists()
    assert report.exists() != ("is not written: a report shows a training" in " ".join(output.split()))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("missing.ply",), "does not exist"),
        (("{big}", "--output", "small.xyz"), "end it with"),
        (("{big}", "--output", "{big}"), "which is read: give another name"),
        (("{big}", "--keep-fraction", "1.5"), "is not a fraction"),
        (("{big}", "--num-gaussians", "100000"), "give a smaller size"),
        (("{big}", "--target-mb", "1e-9"), "too small for a single Gaussian"),
        (("{big}", "--cameras", "nowhere.json"), "nowhere.json"),
        (("{big}", "--preview", "views.txt"), "is not a picture"),
        (("{big}", "--report", "{big}/report.html"), "cannot be written"),
        (("{big}", "--json", "{folder}"), "is a folder"),
        (("{one}",), "asks for 1 Gaussians, but the splat has only 1"),
        (("{faint}",), "is invisible"),
    ],
)
def test_what_cannot_be_shrunk_is_one_sentence(
    big: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    faint = solid(50)
    faint.logit_opacities.fill_(-9.0)
    names = {
        "big": big,
        "folder": tmp_path,
        "one": write(tmp_path / "one.ply", solid(50)[torch.tensor([0])]),
        "faint": write(tmp_path / "faint.ply", faint),
    }
    if "--output" not in words:
        words = (*words, "--output", str(tmp_path / "small.ply"))
    output = shrink(*(word.format(**names) for word in words), *SMALL, code=1)
    assert sentence in " ".join(output.split())
    assert not (tmp_path / "small.ply").exists() and not list(tmp_path.glob(".*"))


def test_sizes_are_the_largest_first_and_each_once() -> None:
    original = solid(600)
    sizes = sizes_of(original, (0.1, 0.5), (20, round(0.5 * len(original))), (), FORMATS["ply"], 1)
    assert list(sizes) == [round(0.5 * len(original)), round(0.1 * len(original)), 20]
    assert set(sizes.values()) == {None}


@pytest.mark.parametrize("kind", ["ply", "compressed-ply", "spz", "sog", "splat", "glb"])
def test_a_file_of_a_size_in_megabytes_is_no_larger(kind: str) -> None:
    original, form = solid(3000), FORMATS[kind]
    if form.library is not None:
        pytest.importorskip(form.library)
    for megabytes in (0.05, 0.1):
        ((count, limit),) = sizes_of(original, (), (), (megabytes,), form, min(form.highest_degree, 1)).items()
        assert limit == megabytes
        few = original[torch.randperm(len(original), generator=torch.Generator().manual_seed(1))[:count]]
        assert 0.7 * megabytes < len(form.encode(few)) / 1e6 <= megabytes


def test_a_size_that_needs_no_refit_has_a_table_and_no_report(big: Path, tmp_path: Path) -> None:
    words = (big, "--output", tmp_path / "small.ply", "--keep-fraction", 0.7, *SMALL)
    output = shrink(*words, "--report", tmp_path / "report.html", "--json", tmp_path / "table.json")
    assert "not refitted" in output and "report.html is not written" in output
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"small.ply", "table.json"}


@pytest.mark.parametrize("word", ["--output", "--preview", "--report", "--json"])
def test_nothing_that_is_read_is_overwritten(tmp_path: Path, word: str) -> None:
    write(tmp_path / "big.ply", solid(300))
    ending = {"--preview": ".png", "--report": ".html", "--json": ".json"}.get(word, ".ply")
    (tmp_path / f"link{ending}").symlink_to(tmp_path / "big.ply")
    output = shrink(tmp_path / "x" / ".." / "big.ply", word, tmp_path / f"link{ending}", *SMALL, code=1)
    assert "would overwrite" in output and len(read_splat(tmp_path / "big.ply").gaussians) == len(solid(300))


def test_the_bench_has_a_table_and_a_plot_with_and_without_invented_views(tmp_path: Path) -> None:
    rows = [
        {"scene": "a", "row": "the original", "fraction": None, "gaussians": 9, "seconds": 0.0, "psnr_to_photos": 30.0},
        *(
            {"scene": scene, "row": "shrink", "fraction": part, "gaussians": round(100 * part), "seconds": 1.0,
             "psnr_to_photos": 29.0, "psnr_to_original": 33.0, "ssim_to_original": 0.9, "psnr_elsewhere": elsewhere}
            for part in (0.1, 0.25) for scene, elsewhere in (("a", 31.5), ("b", None))
        ),
    ]  # fmt: skip
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1
    assert "| a | 10% | shrink | 10 | 33.00 | 0.9000 | 31.50 | 29.00 | 1 |" in lines
    assert "| b | 25% | shrink | 25 | 33.00 | 0.9000 |  | 29.00 | 1 |" in lines
    plot(rows, tmp_path / "sizes.png")
    with Image.open(tmp_path / "sizes.png") as image:
        assert image.width > 1000 and image.height > 700


def test_ways_of_shrinking_are_compared_at_the_photos_that_were_held_out(
    teachers: tuple[Path, ...], tmp_path: Path
) -> None:
    rows = ("highest opacity", "importance at the true cameras, no refit", "student with the photos")
    words = [str(Path(sys.executable).parent / "distilled-splat"), "bench", "shrink", "--load-config",
             str(teachers[0] / "config.yml"), "--output", str(tmp_path), "--fractions", "0.25",
             "--iterations", "20", "--rows", *rows]  # fmt: skip
    for _ in range(2):  # the second time everything is there
        done = subprocess.run(words, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads((tmp_path / "results.json").read_text())
        assert [result["row"] for result in results] == ["the original", *rows]
        original, *others = results
        assert "psnr_to_original" not in original and 5 < original["psnr_to_photos"] < 40
        for result in others:
            assert result["gaussians"] == round(0.25 * original["gaussians"])
            assert 0 < result["ssim_to_original"] <= 1 and result["psnr_to_original"] > 5
            assert result["psnr_elsewhere"] is None, "these teachers are too little trained to invent views of them"
    assert all(result["seconds"] < 1 for result in results)
    assert not list(tmp_path.rglob("*.part"))
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")
