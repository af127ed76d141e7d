"""What decides a run is its method, its data and what differs from the defaults: not where a class lies."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from tiny import tiny_config

from distilled_splat.methods import distilled_splatfacto, distilled_splatfacto_paper, splatfacto_teacher
from distilled_splat.runs import fingerprints
from distilled_splat.runs.fingerprints import plain, scene_fingerprint, settings_fingerprint, settings_of
from distilled_splat.runs.record import read_record, update_record
from distilled_splat.teachers.kinds import TeacherModelConfig
from distilled_splat.workflows.teacher_configs import parsed_scene, teacher_config
from distilled_splat.workflows.teachers_first import tell_of_older_teachers

METHODS = {
    method.config.method_name: method.config
    for method in (splatfacto_teacher, distilled_splatfacto, distilled_splatfacto_paper)
}
DEFAULTS = Path(__file__).parent / "defaults.json"


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names, without the names of classes and the place of the data."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    named = {name: part for name, part in content.items() if name not in ("class", "data")}
    parts = [flat(part, f"{prefix}.{name}".lstrip(".")) for name, part in named.items()]
    return {name: value for part in parts for name, value in part.items()}


def defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults of all our methods; `python tests/test_fingerprints.py` writes them to defaults.json."""
    return {str(name): flat(plain(config)) for name, config in METHODS.items()}


def test_a_default_that_changes_makes_other_runs() -> None:
    """A new option may be added as it is. If a default has changed: raise `GENERATION`, and write defaults.json."""
    known = json.loads(DEFAULTS.read_text())
    today = {name: {option: config.get(option) for option in known[name]} for name, config in defaults().items()}
    assert {"generation": fingerprints.GENERATION, **today} == known


@pytest.mark.parametrize("method", METHODS)
def test_what_keeps_its_default_is_no_setting(scene: Path, tmp_path: Path, method: str) -> None:
    assert settings_of(METHODS[method]) == {"method": method}
    config = tiny_config(distilled_splatfacto, scene, tmp_path, 20, keep_fraction=0.3)
    data = str(scene.resolve())
    parser = {"eval_mode": "interval", "eval_interval": 4}
    assert settings_of(config) == {
        "method": "distilled-splatfacto",
        "max_num_iterations": 20,
        "data": data,
        "pipeline": {"datamanager": {"data": data, "dataparser": parser}, "model": {"keep_fraction": 0.3}},
    }


def test_neither_a_new_option_nor_a_moved_class_makes_another_run(scene: Path, tmp_path: Path) -> None:
    @dataclasses.dataclass
    class TomorrowsModelConfig(TeacherModelConfig):
        another: int = 3

    def fingerprint(kind: type[TeacherModelConfig], **options: Any) -> str:
        config = tiny_config(splatfacto_teacher, scene, tmp_path, 20)
        config.pipeline.model = kind(**options)
        default = copy.deepcopy(METHODS["splatfacto-teacher"])
        default.pipeline.model = kind()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fingerprints, "defaults_of", lambda name: default)
            return settings_fingerprint(config)

    today = settings_fingerprint(tiny_config(splatfacto_teacher, scene, tmp_path, 20))
    assert fingerprint(TeacherModelConfig) == fingerprint(TomorrowsModelConfig) == today
    assert fingerprint(TomorrowsModelConfig, another=4) != today
    assert (
        fingerprint(TomorrowsModelConfig, ssim_lambda=0.3) == fingerprint(TeacherModelConfig, ssim_lambda=0.3) != today
    )


@pytest.mark.parametrize(
    ("name", "value"), [("eval_mode", "all"), ("scale_factor", 2.0), ("orientation_method", "none")]
)
def test_how_the_data_are_parsed_is_a_setting(scene: Path, tmp_path: Path, name: str, value: Any) -> None:
    config = tiny_config(splatfacto_teacher, scene, tmp_path)
    before = settings_fingerprint(config)
    setattr(config.pipeline.datamanager.dataparser, name, value)
    assert settings_fingerprint(config) != before
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig()
    assert settings_of(config)["pipeline"]["datamanager"]["dataparser"]["class"] == "BlenderDataParserConfig"


def test_settings_are_equal_by_value(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(distilled_splatfacto, scene, tmp_path, teachers=(scene,), lambda_kd=0)
    before = settings_fingerprint(config)
    monkeypatch.chdir(scene.parent)
    config.data, config.pipeline.model.teachers = Path(scene.name), [Path(".") / scene.name]
    assert settings_fingerprint(config) == before


def test_runs_of_an_older_version_are_spoken_of_and_left_alone(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(distilled_splatfacto, scene, tmp_path)
    config.set_experiment_name()
    folder = tmp_path / config.experiment_name / config.method_name
    update_record(folder / "2026-01-01_000000", settings="0123456789abcdef", finished=False)
    update_record(folder / "2026-01-02_000000", settings="0123456789abcdef", finished=True)
    config.set_timestamp()
    words = " ".join(capsys.readouterr().out.split())
    assert "unfinished runs of an older distilled-splat (2026-01-01_000000), which this version cannot resume" in words
    assert not config.timestamp.startswith("2026-01-0") and config.load_dir is None
    assert set(read_record(folder / "2026-01-01_000000")) == {"settings", "finished"}

    teachers = teacher_config(config, "standard", "scene").get_base_dir().parent
    update_record(teachers / "standard-0123", settings="0123456789abcdef", finished=True)
    update_record(teachers / "dropout-4567", settings="0123456789abcdef", finished=False)
    tell_of_older_teachers(teachers)
    assert f"To use the old ones: --pipeline.model.teachers {teachers / 'standard-0123'}\n" in capsys.readouterr().out


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps({"generation": fingerprints.GENERATION, **defaults()}, indent=1) + "\n")


def test_another_lens_is_another_scene(scene: Path, tmp_path: Path) -> None:
    capture = tmp_path / scene.name
    shutil.copytree(scene, capture)
    meta = json.loads((capture / "transforms.json").read_text())

    def fingerprint(**lens: Any) -> str:
        (capture / "transforms.json").write_text(json.dumps({**meta, **lens}))
        return scene_fingerprint(parsed_scene(tiny_config(distilled_splatfacto, capture, tmp_path)))

    plain = fingerprint()
    assert plain == fingerprint(k1=0.0, k2=0.0)
    found = [plain, fingerprint(k1=0.1), fingerprint(k1=-0.1), fingerprint(k1=0.1, camera_model="OPENCV_FISHEYE")]
    assert len(set(found)) == len(found)
