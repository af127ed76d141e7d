"""Reading teachers: every form that is accepted, and one clear sentence for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from strange_files import parameters, write_run

from distilled_splat.teachers.reading import read_teacher


@pytest.mark.parametrize("prefix", ["_model.gauss_params.", "module._model.gauss_params.", "_model."])
def test_run_folder_config_and_checkpoint_are_the_same_teacher(tmp_path: Path, prefix: str) -> None:
    content = parameters()
    checkpoint = write_run(tmp_path / "a run ü", content, prefix)
    for path in (checkpoint, checkpoint.parent.parent, checkpoint.parent.parent / "config.yml", checkpoint.parent):
        teacher = read_teacher(path)
        assert torch.equal(teacher.gaussians.means, content["means"])
        assert torch.equal(teacher.gaussians.logit_opacities, content["opacities"][:, 0])
        assert teacher.gaussians.sh_degree == 3
        assert teacher.antialiased
        assert teacher.frame is not None and teacher.frame[1] == 2
        assert teacher.variant == "standard"


def test_colours_behind_a_sigmoid_are_turned_into_coefficients(tmp_path: Path) -> None:
    content = parameters(sh_degree=0)
    teacher = read_teacher(write_run(tmp_path, content))
    colors = teacher.gaussians.sh_dc * 0.28209479177387814 + 0.5
    assert torch.allclose(colors, torch.sigmoid(content["features_dc"]), atol=1e-6)
    back = teacher.gaussians.to_splatfacto(0)["features_dc"]
    assert torch.allclose(back, content["features_dc"], atol=1e-3)


def test_coefficients_are_cut_and_padded_to_the_students_degree(tmp_path: Path) -> None:
    content = parameters(sh_degree=2)
    gaussians = read_teacher(write_run(tmp_path, content)).gaussians
    assert torch.equal(gaussians.to_splatfacto(1)["features_rest"], content["features_rest"][:, :3])
    padded = gaussians.to_splatfacto(3)["features_rest"]
    assert padded.shape == (5, 15, 3)
    assert torch.equal(padded[:, :8], content["features_rest"]) and not padded[:, 8:].any()


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in parameters().items() if key != name}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (without("quats"), "quats missing"),
        (without("features_rest"), "features_rest missing"),
        (parameters(0), "has no Gaussians"),
        ({**parameters(), "scales": torch.zeros(5, 2)}, "scales has shape"),
        ({**parameters(), "opacities": torch.zeros(4, 1)}, "opacities has shape"),
        ({**parameters(), "features_rest": torch.zeros(5, 7, 3)}, "features_rest has shape"),
        ({**parameters(), "means": torch.full((5, 3), torch.nan)}, "NaN or infinite"),
    ],
)
def test_a_bad_splat_is_refused_by_name(tmp_path: Path, content: dict[str, torch.Tensor], complaint: str) -> None:
    path = write_run(tmp_path, content)
    with pytest.raises(ValueError, match=complaint) as refusal:
        read_teacher(path)
    assert str(path) in str(refusal.value)


def test_missing_empty_and_foreign_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_teacher(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no checkpoint"):
        read_teacher(tmp_path)
    other = tmp_path / "picture.png"
    other.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="is not a run or splat file"):
        read_teacher(other)
    for name, data in (("empty", b""), ("cut", b"PK\x03\x04" + b"\0" * 50)):
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(data)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            read_teacher(path)
