"""The table and the plot of the quality benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from PIL import Image
from tiny import tiny_config

from distilled_splat.evaluation.results import carried_over, read_file, with_result
from distilled_splat.methods import splatfacto_teacher
from distilled_splat.runs.files import write_json
from distilled_splat.runs.fingerprints import GENERATION, digest, settings_fingerprint
from distilled_splat.runs.record import update_record
from distilled_splat.workflows.controls import QualityBench, check_settings, folder_digest, keep_earlier
from distilled_splat.workflows.controls_report import summary, table, write_report


def measurement(row: str, fraction: float | None, seed: int, psnr: float) -> dict[str, Any]:
    return {
        "scene": "fox", "row": row, "fraction": fraction, "seed": seed, "gaussians": 1000, "megabytes": 0.248,
        "psnr": psnr, "ssim": 0.9, "seconds": 60.0,
    }  # fmt: skip


RESULTS = [
    measurement("standard teacher", None, 0, 31.0),
    measurement("no teachers", 0.12, 0, 29.0),
    measurement("no teachers", 0.12, 1, 30.0),
]


def test_table_has_mean_and_spread_over_the_seeds() -> None:
    lines = table(RESULTS).splitlines()
    assert len(lines) == 4
    assert "| fox |  | standard teacher | 1000 | 0.2 | 31.00 ± 0.00 |" in lines[2]
    assert "| fox | 12 % | no teachers | 1000 | 0.2 | 29.50 ± 0.71 |" in lines[3] and lines[3].endswith("| 2 |")


def test_table_has_the_geometry_where_it_was_measured() -> None:
    errors = (
        {"depth_error": 0.04, "floaters": 0.0, "processor_seconds": 100.0},
        {"depth_error": 0.05, "floaters": None, "processor_seconds": 110.0},
    )
    measured = [{**measurement("student", 0.12, seed, 30.0), **error} for seed, error in enumerate(errors)]
    head, _, line = table(measured).splitlines()
    assert "| SSIM | depth error | depth error beyond | alpha error | floaters | seconds | processor s |" in head
    assert "| 4.50 ± 0.71 % |  |  | 0.00 ± 0.00 % | 60 | 105 |" in line


def test_spread_is_the_sample_standard_deviation() -> None:
    assert summary([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert summary([5.0]) == (5.0, 0.0)


def test_report_is_a_table_and_a_picture(tmp_path: Path) -> None:
    write_report(tmp_path, RESULTS)
    assert (tmp_path / "table.md").read_text(encoding="utf8") == table(RESULTS)
    with Image.open(tmp_path / "rate-distortion.png") as picture:
        assert picture.width > 500


SETTING = {"data": {"fox": "f1"}, "iterations": 3000, "versions": {"torch": "2"}, "python": "3.11", "processor": "x"}


def test_results_of_an_earlier_command_stay_in_the_table(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    lego = {**RESULTS[1], "scene": "lego"}
    write_json(path, {"setting": {**SETTING, "data": {"fox": "f1", "lego": "l1"}}, "results": [*RESULTS, lego]})
    setting, results = carried_over(path, SETTING)
    assert setting["data"] == {"fox": "f1", "lego": "l1"} and results == [*RESULTS, lego]
    again, smaller = measurement("no teachers", 0.12, 1, 33.0), measurement("no teachers", 0.05, 0, 25.0)
    results = with_result(with_result(results, again), smaller)
    assert results == [RESULTS[0], smaller, RESULTS[1], again, lego]


@pytest.mark.parametrize(
    ("other", "left"),
    [
        ({"iterations": 7000}, 0),
        ({"versions": {"torch": "3"}}, 0),
        ({"data": {"fox": "f2", "lego": "l1"}}, 1),
        ({"data": ["lego"]}, 0),
    ],
)
def test_results_of_another_setting_are_left_out(tmp_path: Path, other: dict[str, Any], left: int) -> None:
    path = tmp_path / "results.json"
    lego = {**RESULTS[1], "scene": "lego"}
    write_json(
        path, {"setting": {**SETTING, "data": {"fox": "f1", "lego": "l1"}, **other}, "results": [RESULTS[1], lego]}
    )
    assert carried_over(path, SETTING)[1] == [lego][:left]


def test_what_is_no_results_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]", encoding="utf8")
    with pytest.raises(ValueError, match=r"not a results\.json"):
        carried_over(tmp_path / "results.json", SETTING)


def test_an_unknown_row_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row 'teh default'"):
        QualityBench(data=(tmp_path,), output=tmp_path / "o", rows=("teh default",)).run()
    assert not (tmp_path / "o").exists()


def test_few_photos_are_captures_of_their_own(scene: Path, tmp_path: Path) -> None:
    bench = QualityBench((scene,), tmp_path, every=(1, 3))
    whole, few = bench.captures()
    assert (whole, few.name) == (scene, f"{scene.name}-every-3")
    digests = bench.setting([whole, few])["data"]
    assert set(digests) == {whole.name, few.name} and digests[whole.name] != digests[few.name]


def test_a_change_behind_a_link_is_a_change(tmp_path: Path) -> None:
    photos, capture = tmp_path / "photos", tmp_path / "capture"
    photos.mkdir()
    capture.mkdir()
    (capture / "images").symlink_to(photos)
    (photos / "1.png").write_bytes(b"one")
    before = folder_digest(capture)
    (photos / "1.png").write_bytes(b"two")
    assert folder_digest(capture) != before


@pytest.mark.parametrize("every", [(0,), (1, -2)])
def test_every_takes_numbers_from_1_on(every: tuple[int, ...], scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        QualityBench((scene,), tmp_path, every=every).run()
    assert not (tmp_path / "runs").exists()


def test_two_scenes_of_one_name_are_refused(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Two scenes have the name"):
        QualityBench((scene, tmp_path / scene.name), tmp_path / "o").run()
    assert not (tmp_path / "o").exists()


def test_a_scene_whose_files_have_changed_is_not_mixed_with_its_old_runs(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"setting": {"data": {"fox": "f1", "lego": "l1"}}, "results": []})
    bench = QualityBench((), tmp_path)
    (tmp_path / "runs" / "fox").mkdir(parents=True)
    bench.check_scenes(path, {"fox": "f1", "lego": "l2"})  # of lego there are no runs
    with pytest.raises(ValueError, match="files of the scene fox have changed"):
        bench.check_scenes(path, {"fox": "f2"})


def test_a_finished_run_is_used_again_only_for_the_same_training(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path)
    run = config.get_base_dir()
    words = ["splatfacto-teacher", "--data", str(scene), "--max-num-iterations", "7"]

    def asked(*more: str) -> str:
        parsed = tyro.cli(AnnotatedBaseConfigUnion, args=[*words, *more])
        parsed.pipeline.datamanager.data = scene
        return settings_fingerprint(parsed)

    update_record(run, finished=True, fingerprint=asked())
    check_settings(run, words)
    check_settings(run, [*words, "--vis", "tensorboard", "--output-dir", str(tmp_path)])  # not settings
    for more in (("--machine.seed", "3"), ("--pipeline.model.sh-degree", "2")):
        with pytest.raises(ValueError, match="was trained with other settings"):
            check_settings(run, [*words, *more])
    update_record(run, fingerprint=digest([GENERATION - 1, "an older version"]))
    with pytest.raises(ValueError, match="another version"):
        check_settings(run, words)


def test_a_folder_without_a_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a capture"):
        QualityBench((tmp_path / "nowhere",), tmp_path).run()


def test_earlier_results_of_another_setting_are_renamed(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    keep_earlier(path, [])  # nothing there
    row = {"scene": "a", "row": "b", "fraction": 0.1, "seed": 0, "gaussians": 1, "megabytes": 1.0, "psnr": 1.0}
    row |= {"ssim": 1.0, "seconds": 1.0}
    write_json(path, {"setting": {}, "results": [row]})
    keep_earlier(path, [row])
    assert path.exists()
    keep_earlier(path, [])
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("results-") and read_file(kept)["results"] == [row]
