"""Files from strangers: whatever is in them, one sentence or a valid splat, within seconds and bounded memory.

FUZZ_EXAMPLES sets the number of inputs per test: `FUZZ_EXAMPLES=20000 pytest tests/test_hostile.py -k random`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import cloud, columns_of, ply_bytes
from foreign_files import bundle, checkpoint, glb, glb_parts, ksplat, saved, sog_members, spz, webp, zstd_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange_files import Bomb, packed, parameters, write_run

from distilled_splat.teachers.reading import Teacher, read_teacher

fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),  # type: ignore[arg-type]
)


def outcome(path: Path) -> str | Teacher:
    """Read a file as a teacher; return the sentence with which it is refused, or a splat that is in order."""
    try:
        teacher = read_teacher(path)
    except ValueError as refused:
        sentence = str(refused)
        assert str(path) in sentence and "\n" not in sentence and len(sentence) < 900
        return sentence
    gaussians = teacher.gaussians
    count = len(gaussians)
    assert count > 0 and gaussians.sh_degree <= 4
    shapes = [tuple(tensor.shape) for tensor in vars(gaussians).values()]
    assert shapes == [(count, 3), (count, 4), (count, 3), (count,), (count, 3), (count, gaussians.sh.shape[1] - 1, 3)]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in vars(gaussians).values())
    return teacher


def read_bytes(name: str, content: bytes) -> str | Teacher:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return outcome(path)


Change = Callable[[bytes], bytes]


def at(content: bytes, place: float) -> int:
    return min(int(place * len(content)), max(len(content) - 1, 0))


def cut(place: float) -> Change:
    return lambda content: content[: at(content, place)]


def flip(place: float, bit: int) -> Change:
    def change(content: bytes) -> bytes:
        where = at(content, place)
        return content[:where] + bytes([content[where] ^ 1 << bit]) + content[where + 1 :] if content else content

    return change


def put(place: float, new: bytes, instead_of: int) -> Change:
    return lambda content: content[: at(content, place)] + new + content[at(content, place) + instead_of :]


def number(which: int, new: int) -> Change:
    """Replace one of the numbers that are written in digits, such as a count."""

    def change(content: bytes) -> bytes:
        head, end, body = content.partition(b"end_header")
        words = head.split(b" ")
        words[which % len(words)] = str(new).encode() + (b"\n" if b"\n" in words[which % len(words)] else b"")
        return b" ".join(words) + end + body

    return change


PLACES = st.one_of(st.floats(0, 1), st.floats(0, 0.02), st.floats(0.98, 1))
CHANGES = st.lists(
    st.one_of(
        st.builds(cut, PLACES),
        st.builds(flip, PLACES, st.integers(0, 7)),
        st.builds(put, PLACES, st.binary(max_size=12), st.integers(0, 12)),
        st.builds(number, st.integers(0, 400), st.integers(-2, 2**70)),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, changes: list[Change]) -> bytes:
    for change in changes:
        content = change(content)
    return content


@fuzzed
@given(
    form=st.sampled_from(["binary_little_endian", "binary_big_endian", "ascii"]),
    degree=st.integers(0, 4),
    changes=CHANGES,
)
def test_random_damage_to_a_ply(form: str, degree: int, changes: list[Change]) -> None:
    read_bytes("splat.ply", changed(ply_bytes(columns_of(cloud(3, degree)), form=form), changes))


@fuzzed
@given(
    lines=st.lists(
        st.one_of(
            st.builds(
                "element {} {}".format, st.sampled_from(["vertex", "face", "chunk", "sh"]), st.integers(0, 2**40)
            ),
            st.builds(
                "property {} {}".format,
                st.sampled_from(["float", "double", "uchar", "uint", "list uchar int", "list float float", "half"]),
                st.sampled_from([*columns_of(cloud(1)), "packed_position", "min_x", "red"]),
            ),
            st.sampled_from(["comment x", "obj_info y", "end_header", "", "format ascii 1.0", "property", "element"]),
            st.text(max_size=20),
        ),
        max_size=30,
    ),
    form=st.sampled_from(["binary_little_endian", "binary_big_endian", "ascii"]),
    body=st.binary(max_size=300),
)
def test_random_headers_of_a_ply(lines: list[str], form: str, body: bytes) -> None:
    text = "\n".join(["ply", f"format {form} 1.0", *lines, "end_header", ""])
    read_bytes("splat.ply", text.encode("utf8", errors="replace") + body)


@fuzzed
@given(values=st.lists(st.floats(width=32), min_size=59, max_size=59))
def test_random_numbers_in_a_ply(values: list[float]) -> None:
    """A number that is none is refused; any other arrives as it was written, but for what editors write infinite."""
    with np.errstate(invalid="ignore"):
        columns = dict(zip(columns_of(cloud(1)), np.array(values, np.float32)[:, None]))
    found = read_bytes("splat.ply", ply_bytes(columns))
    meant = {"opacity": (np.inf, -np.inf), **dict.fromkeys(("scale_0", "scale_1", "scale_2"), (-np.inf,))}
    sound = [np.isfinite(value[0]) or value[0] in meant.get(name, ()) for name, value in columns.items()]
    assert isinstance(found, Teacher) == all(sound)
    if isinstance(found, Teacher):
        assert found.gaussians.means[0].tolist() == values[:3]


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("compressed")
    return {form: packed(folder, form, count=260, degree=1).read_bytes() for form in ("ply", "spz")}


@pytest.mark.parametrize("form", ["ply", "spz"])
@fuzzed
@given(changes=CHANGES)
def test_random_damage_to_a_compressed_splat(form: str, compressed: dict[str, bytes], changes: list[Change]) -> None:
    read_bytes(f"splat.{form}", changed(compressed[form], changes))


@fuzzed
@given(changes=CHANGES)
def test_random_damage_inside_a_spz(compressed: dict[str, bytes], changes: list[Change]) -> None:
    """The damage lies under the compression, where no checksum finds it."""
    read_bytes("splat.spz", gzip.compress(changed(gzip.decompress(compressed["spz"]), changes)))


SOUND: dict[str, Callable[[], bytes]] = {
    "bare.spz": lambda: spz(zipped=False),
    "newest.spz": lambda: spz(version=4),
    "rows.splat": lambda: bytes(np.random.default_rng(0).integers(1, 100, 320, np.uint8)),
    "plain.ksplat": lambda: ksplat(0)[0],
    "halves.ksplat": lambda: ksplat(1)[0],
    "bytes.ksplat": lambda: ksplat(2)[0],
    "bundle.sog": lambda: bundle(sog_members()),
    "splat.glb": lambda: glb(*glb_parts(cloud(degree=1))),
    "gsplat.pt": lambda: saved(checkpoint(cloud())),
}


@pytest.mark.parametrize("name", SOUND)
@fuzzed
@given(changes=CHANGES)
def test_random_damage_to_other_formats(name: str, changes: list[Change]) -> None:
    read_bytes(name, changed(SOUND[name](), changes))


@fuzzed
@given(changes=CHANGES, which=st.sampled_from(sorted(sog_members())), version=st.sampled_from([1, 2]))
def test_random_damage_inside_a_sog(changes: list[Change], which: str, version: int) -> None:
    members = sog_members(version=version)
    read_bytes("splat.sog", bundle({**members, which: changed(members[which], changes)}))


@fuzzed
@given(place=st.integers(0, 400), value=st.deferred(lambda: JSON), form=st.sampled_from(["sog", "glb"]))
def test_random_values_in_the_json_of_other_formats(place: int, value: Any, form: str) -> None:
    """One value of the document, at any depth, is another."""
    members, (document, body) = sog_members(), glb_parts(cloud(degree=1))
    content = json.loads(members["meta.json"]) if form == "sog" else document
    places = list(places_in(content))
    parent, key = places[place % len(places)]
    parent[key] = value
    if form == "sog":
        read_bytes("splat.sog", bundle({**members, "meta.json": json.dumps(content).encode()}))
    else:
        read_bytes("splat.glb", glb(content, body))


def places_in(item: Any) -> Iterator[tuple[Any, Any]]:
    """Go through all places of a JSON document, and the first three of each list."""
    if isinstance(item, (dict, list)):
        for key in item if isinstance(item, dict) else range(min(len(item), 3)):
            yield item, key
            yield from places_in(item[key])


def checkpoint_bytes(**changes: Any) -> bytes:
    state = {f"_model.gauss_params.{name}": value for name, value in {**parameters(3), **changes}.items()}
    file = io.BytesIO()
    torch.save({"step": 7, "pipeline": state, "optimizers": {"means": {"lr": np.float64(0.1)}}}, file)
    return file.getvalue()


CHECKPOINT = checkpoint_bytes()


@fuzzed
@given(changes=CHANGES)
def test_random_damage_to_a_checkpoint(changes: list[Change]) -> None:
    read_bytes("step-000000001.ckpt", changed(CHECKPOINT, changes))


def rezipped(change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return the checkpoint with each member passed through `change`, as an archive in order."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(CHECKPOINT)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


@fuzzed
@given(changes=CHANGES, which=st.sampled_from(["data.pkl", "data/0", "version", "byteorder"]))
def test_random_damage_inside_a_checkpoint(changes: list[Change], which: str) -> None:
    """The damage lies inside the archive, where no checksum finds it."""
    read_bytes(
        "step-000000001.ckpt",
        rezipped(lambda name, content: changed(content, changes) if name.endswith(which) else content),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@fuzzed
@given(
    transform=st.one_of(JSON, st.lists(st.lists(st.floats(), min_size=4, max_size=4), min_size=3, max_size=3)),
    scale=JSON,
    record=st.one_of(JSON, st.fixed_dictionaries({}, optional=dict.fromkeys(("variant", "photos", "seconds"), JSON))),
    config=st.text(max_size=60),
)
def test_random_notes_beside_a_checkpoint(transform: Any, scale: Any, record: Any, config: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder, parameters())
        (folder / "dataparser_transforms.json").write_text(json.dumps({"transform": transform, "scale": scale}))
        (folder / "distilled_splat.json").write_text(json.dumps(record))
        (folder / "config.yml").write_text(config, encoding="utf8", errors="replace")
        teacher = outcome(folder)
        assert isinstance(teacher, Teacher)
        assert teacher.variant in ("standard", "perturbed", "dropout")
        assert all(isinstance(photo, str) for photo in teacher.photos)
        assert teacher.seconds is None or isinstance(teacher.seconds, float)
        assert teacher.frame is None or (teacher.frame[0].shape == (3, 4) and isinstance(teacher.frame[1], float))


def deflated() -> bytes:
    """A checkpoint of 300 megabytes of zeros in 300 kilobytes."""
    return rezipped(
        lambda name, content: bytes(300_000_000) if name.endswith("data/0") else content, zipfile.ZIP_DEFLATED
    )


def calling(function: Any, *arguments: Any) -> bytes:
    """A checkpoint whose pickle calls a function that torch allows."""

    class Call:
        def __reduce__(self) -> tuple:
            return (function, arguments)

    return rezipped(lambda name, content: pickle.dumps(Call(), 2) if name.endswith("data.pkl") else content)


def streams_of(count: int) -> bytes:
    """A .spz of version 4 whose streams are said to have as much as its header says, in a few bytes."""
    frame = zstd_frame(bytes(11))
    table = b"".join(struct.pack("<QQ", len(frame), size * count) for size in (9, 1, 3, 3, 4))
    return struct.pack("<4sIIBBBBI12x", b"NGSP", 4, count, 0, 12, 0, 5, 32) + table + frame * 5


def ksplat_of(count: int = 1, places: int = 1, compression: int = 0, buckets: int = 0) -> bytes:
    """A .ksplat of headers alone."""
    header = struct.pack("<BBxxIIIIHxx", 0, 1, places, 1, count, count, compression)
    section = struct.pack("<IIIIfHxxIIIIH", count, count, 256, buckets, 5.0, 12, 0, 0, 0, 0, 0)
    return header.ljust(4096, b"\0") + section.ljust(1024, b"\0")


def sog_with(old: bytes, new: bytes) -> bytes:
    """A .sog whose meta.json says something else."""
    members = sog_members()
    assert old in members["meta.json"]
    return bundle({**members, "meta.json": members["meta.json"].replace(old, new)})


def with_count(count: int, **view: int) -> tuple[Any, bytes]:
    """A .glb whose accessors are said to have so many values."""
    document, body = glb_parts(cloud())
    for accessor, its_view in zip(document["accessors"], document["bufferViews"]):
        accessor["count"] = count
        its_view.update(view)
    return document, body


def shown_often(times: int) -> bytes:
    """A .glb of many nodes that show one mesh."""
    document, body = glb_parts(cloud(count=5000))
    return glb({**document, "nodes": times * [{"mesh": 0}]}, body)


BOMBS: dict[str, Callable[[], bytes]] = {
    "deflated.ckpt": deflated,
    "six-gigabytes.ckpt": lambda: calling(bytearray, 6_000_000_000),
    "two-gigabytes.ckpt": lambda: calling(np.float64(0).__reduce__()[0], np.dtype("V2000000000")),
    "sixty-gigabytes.ckpt": lambda: calling(torch.Tensor, 16_000_000_000),
    "long-pickle.ckpt": lambda: rezipped(
        lambda name, content: b"\x80\x02" + b"N0" * 20_000_000 + b"." if name.endswith("data.pkl") else content
    ),
    "repeated.ckpt": lambda: checkpoint_bytes(
        **{name: value[:1].expand(10**9, *value.shape[1:]) for name, value in parameters(3).items()}
    ),
    "sparse.ckpt": lambda: checkpoint_bytes(means=torch.eye(3).to_sparse()),
    "integers.ckpt": lambda: checkpoint_bytes(means=torch.ones(3, 3, dtype=torch.int64)),
    "not-a-dictionary.ckpt": lambda: rezipped(
        lambda name, content: pickle.dumps([1, 2], 2) if name.endswith("data.pkl") else content
    ),
    "billions.ply": lambda: ply_bytes(columns_of(cloud(3)), count=10**10),
    "billions-in-ascii.ply": lambda: ply_bytes(columns_of(cloud(3)), form="ascii", count=10**10),
    "picture.ply": lambda: b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "billions-bare.spz": lambda: struct.pack("<4sIIBBBx", b"NGSP", 3, 4 * 10**9, 3, 12, 0),
    "inflating.spz": lambda: gzip.compress(struct.pack("<4sIIBBBx", b"NGSP", 3, 10**7, 0, 12, 0) + bytes(2 * 10**8)),
    "billions-in-streams.spz": lambda: streams_of(4 * 10**9),
    "millions-in-streams.spz": lambda: streams_of(3 * 10**7),
    "odd.splat": lambda: bytes(33),
    "empty.splat": lambda: b"",
    "billions.ksplat": lambda: ksplat_of(count=4 * 10**9),
    "sections.ksplat": lambda: ksplat_of(places=2**32 - 1),
    "buckets.ksplat": lambda: ksplat_of(buckets=2**31),
    "no-buckets.ksplat": lambda: ksplat_of(compression=1) + bytes(24),
    "pixels.sog": lambda: bundle({**sog_members(), "quats.webp": webp(np.zeros((13000, 13000, 4), np.uint8))}),
    "count.sog": lambda: sog_with(b": 50", b": 5e15"),
    "infinite.sog": lambda: sog_with(b": 50", b": Infinity"),
    "elsewhere.sog": lambda: sog_with(b'"quats.webp', b'"/etc/hostname'),
    "deflated.sog": lambda: bundle({**sog_members(), "meta.json": b" " * 10**8}, zipfile.ZIP_DEFLATED),
    "deep.sog": lambda: bundle({**sog_members(), "meta.json": b"[" * 10**6}),
    "billions.glb": lambda: glb(*with_count(10**12)),
    "instances.glb": lambda: shown_often(300_000),
    "strides.glb": lambda: glb(*with_count(10**9, byteStride=0)),
    "calling.pt": lambda: calling(bytearray, 6_000_000_000),
    "repeated.pt": lambda: saved(
        {"splats": {name: v[:1].expand(10**9, *v.shape[1:]) for name, v in checkpoint(cloud())["splats"].items()}}
    ),
    "endless-header.ply": lambda: b"ply\nformat ascii 1.0\n" + b"comment " * 20_000_000,
}


def test_bombs_are_refused_in_seconds_and_little_memory(tmp_path: Path) -> None:
    """Each is at most 160 megabytes; a process of its own tells what reading it took."""
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    code = """
import json, resource, sys, time
from pathlib import Path
from distilled_splat.teachers.reading import read_teacher

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

for path in map(Path, sys.argv[1:]):
    before, began = peak(), time.monotonic()
    try:
        sentence = f"read {len(read_teacher(path).gaussians)} Gaussians"
    except ValueError as error:
        sentence = str(error)
    print(json.dumps([path.name, sentence, peak() - before, time.monotonic() - began]))
"""
    paths = [str(tmp_path / name) for name in BOMBS]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report[0] for report in reports] == list(BOMBS)
    for name, sentence, megabytes, seconds in reports:
        assert str(tmp_path / name) in sentence and "\n" not in sentence, name
        assert megabytes < 200, f"{name} took {megabytes} MB: {sentence}"
        assert seconds < 60, f"{name} took {seconds} s"


def test_a_config_that_would_run_code_is_text_to_us(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    write_run(tmp_path / "run", parameters())
    config = tmp_path / "run" / "config.yml"
    config.write_text(f"!!python/object/apply:os.mkdir ['{mark}']\n")
    assert isinstance(outcome(config), Teacher)
    assert not mark.exists()
    import yaml

    yaml.load(config.read_text(), yaml.Loader)
    assert mark.exists(), "the file was no threat"


def test_code_in_a_teachers_checkpoint_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = write_run(tmp_path / "run", parameters())
    torch.save({"pipeline": {"_model.gauss_params.means": Bomb(mark)}}, path)
    assert "cannot be read as a checkpoint" in str(outcome(tmp_path / "run" / "nerfstudio_models"))
    assert not mark.exists()


def test_links_pipes_and_folders_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    loop, other = tmp_path / "loop", tmp_path / "other"
    loop.symlink_to(other)
    other.symlink_to(loop)
    (tmp_path / "dangling.ply").symlink_to(tmp_path / "gone.ply")
    (tmp_path / "endless.ckpt").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.ply")
    inward = tmp_path / "inward" / "nerfstudio_models"
    inward.mkdir(parents=True)
    (inward / "step-000000001.ckpt").symlink_to(inward)
    (inward / "step-000000002.ckpt").mkdir()
    (tmp_path / "folder.ply").mkdir()
    (tmp_path / "empty" / "nerfstudio_models").mkdir(parents=True)
    expected = {
        "loop": "does not exist",
        "dangling.ply": "does not exist",
        "endless.ckpt": "is not a run or splat file",
        "pipe.ply": "is not a run or splat file",
        "inward": "has no checkpoint",
        "folder.ply": "has no checkpoint",
        "empty": "has no checkpoint",
        "n" * 300: "cannot be read",
    }
    for name, complaint in expected.items():
        assert complaint in str(outcome(tmp_path / name))
    with pytest.raises(ValueError, match="cannot be read"):
        read_teacher(Path("~nobody-of-that-name/run"))


def test_pipes_and_floods_beside_a_checkpoint_do_not_hold_it_up(tmp_path: Path) -> None:
    write_run(tmp_path, parameters())
    (tmp_path / "config.yml").unlink()
    os.mkfifo(tmp_path / "config.yml")
    (tmp_path / "dataparser_transforms.json").write_text("[" * 200_000)
    (tmp_path / "distilled_splat.json").write_text(" " * (1 << 24) + "{}")
    teacher = outcome(tmp_path)
    assert isinstance(teacher, Teacher)
    assert teacher.frame is None and teacher.record == {} and not teacher.antialiased
