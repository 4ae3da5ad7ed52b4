"""Files that somebody hands over, damaged in any way: what can be read is read, the rest is an error of ours."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lighttrack_ros.commands.arguments import parse_box, parse_rate
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import parse_intensity_range
from lighttrack_ros.media.frames import parse_size
from lighttrack_ros.models import load_model
from lighttrack_ros.runtime.plan_cache import PlanCache, PlanKey
from lighttrack_ros.runtime.ranges import load_ranges
from lighttrack_ros.session.verifier import Verifier

# Bytes that are replaced, near the file's begin, near its end or anywhere (by a share of its length); and a cut.
_places = st.one_of(st.integers(0, 300), st.integers(-300, -1), st.floats(0, 1))
_changes = st.lists(
    st.tuples(_places, st.one_of(st.binary(min_size=1, max_size=8), st.just(b"\xff\xff\xff\x7f"))), max_size=5
)
damages = st.tuples(_changes, st.one_of(st.just(1.0), st.floats(0, 1)))


def damaged(content: bytes, damage: tuple[list[tuple[float, bytes]], float]) -> bytes:
    data = bytearray(content)
    for place, replacement in damage[0]:
        begin = round(place * len(data)) if isinstance(place, float) else place % max(len(data), 1)
        data[begin : begin + len(replacement)] = replacement
    return bytes(data[: round(damage[1] * len(data))])


def is_read_or_refused(read: Callable[[], object]) -> None:
    with contextlib.suppress(LightTrackError):
        read()


@pytest.fixture(scope="module")
def copy(model, tmp_path_factory):
    """A model folder that may be damaged, and the one as it was."""
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(model, folder)
    return folder, model


@pytest.mark.parametrize("name", ["model.yaml", "ranges.yaml", "verifier.npz"])
def test_files_of_a_model(copy, name):
    folder, whole = copy
    if not (whole / name).is_file():
        pytest.skip(f"the model has no {name}")
    read = {
        "model.yaml": lambda: load_model(str(folder)),
        "ranges.yaml": lambda: load_ranges(folder / "search.onnx"),
        "verifier.npz": lambda: Verifier.load(folder / name),
    }[name]
    content = (whole / name).read_bytes()

    @given(damages)
    @settings(max_examples=30 if name == "ranges.yaml" else 120)
    def check(damage):
        (folder / name).write_bytes(damaged(content, damage))
        is_read_or_refused(read)

    check()
    (folder / name).write_bytes(content)
    read()


def test_arrays_that_unpack_to_gigabytes_are_not_unpacked(copy, tmp_path):
    path = tmp_path / "verifier.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("cell_mean.npy", "w") as array:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10_000_000,)}
        np.lib.format.write_array_header_1_0(array, header)
        for _ in range(40):
            array.write(bytes(1_000_000))
    with pytest.raises(LightTrackError, match="when unpacked"):
        Verifier.load(path)


_ENGINES = """
import sys
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.load import load_engine
from pathlib import Path
for name in sys.argv[2:]:
    try:
        load_engine(Path(name), sys.argv[1], 1, {"side": 128}).run({})
    except LightTrackError:
        pass
print("all of them")
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_graphs(model, tmp_path, backend):
    """In a process of their own: a library that crashes must not take the tests with it."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the extra [openvino]")
    content = (model / "template.onnx").read_bytes()
    paths: list[str] = []

    @given(damages)
    @settings(max_examples=30)
    def write(damage):
        paths.append(str(tmp_path / f"{len(paths)}.onnx"))
        Path(paths[-1]).write_bytes(damaged(content, damage))

    write()
    done = subprocess.run([sys.executable, "-c", _ENGINES, backend, *paths], capture_output=True, text=True)
    assert done.stdout.endswith("all of them\n"), done.stderr[-2000:]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".avi"])
def test_videos(tmp_path, suffix):
    pytest.importorskip("av", reason="needs the extra [video]")
    from lighttrack_ros.media.video import VideoFile, VideoWriter

    path = tmp_path / f"video{suffix}"
    image = np.kron(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    with VideoWriter(path, 128, 96, 30) as writer:
        for index in range(12):
            writer.write(np.roll(image, index, 1))
    content = path.read_bytes()

    @given(damages)
    @settings(max_examples=30)
    def check(damage):
        path.write_bytes(damaged(content, damage))
        is_read_or_refused(lambda: [frame.shape for frame in itertools.islice(VideoFile(path), 50)])

    check()


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ROS 1"])
def test_bags(request, tmp_path, kind):
    pytest.importorskip("rosbags", reason="needs the extra [bags]")
    from lighttrack_ros.media.bag import ImageBag, is_bag, write_bag

    if kind == "mcap":
        images = ((10**18 + index * 10**7, np.full((24, 32, 3), index, np.uint8)) for index in range(6))
        write_bag(tmp_path / "bag", images, "/camera/image_raw", "cam")
        files = list((tmp_path / "bag").iterdir())
    else:
        cases = request.getfixturevalue("shared") / "cases"
        folder = cases / ("06_sqlite_wal/bag" if kind == "sqlite3" else "13_ros1")
        files = [path for path in folder.iterdir() if path.suffix != ".md" and path.stat().st_size < 10**6]
        files = files if kind == "sqlite3" else [path for path in files if path.suffix == ".bag"][:1]
    contents = {path.name: path.read_bytes() for path in files}
    folder = tmp_path / "damaged"
    folder.mkdir()

    @given(st.sampled_from(sorted(contents)), damages)
    @settings(max_examples=60)
    def check(name, damage):
        for other, content in contents.items():
            (folder / other).write_bytes(damaged(content, damage) if other == name else content)

        def read():
            path = folder if len(contents) > 1 else folder / name
            is_bag(path)
            bag = ImageBag(path)
            try:
                return list(bag)
            finally:
                bag.close()

        is_read_or_refused(read)

    check()


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "x.safetensors"])
def test_checkpoints(tmp_path, name):
    torch = pytest.importorskip("torch", reason="needs torch")
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    from lighttrack_ros.networks.lighttrack import read_checkpoint

    path = tmp_path / name
    tensors = {"a.weight": torch.ones(30, 30), "a.bias": torch.ones(3)}
    if name.endswith(".pth"):
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=name.startswith("new"))
    else:
        safetensors.save_file(tensors, path)
    content = path.read_bytes()

    @given(damages)
    @settings(max_examples=100)
    def check(damage):
        path.write_bytes(damaged(content, damage))
        is_read_or_refused(lambda: read_checkpoint(path))

    check()


def test_the_cache_of_plans(tmp_path):
    cache = PlanCache(tmp_path)
    key = PlanKey("graph", {"side": 160}, "fp16", 1, "TensorRT 10", 12060, "a GPU", "8.6")
    cache.store(key, b"plan", "model/search.onnx", 1.0)
    facts = cache.path(key).with_suffix(".json")
    content = facts.read_bytes()

    @given(st.one_of(damages, st.none()), st.recursive(st.none() | st.text() | st.floats(), st.lists))
    def check(damage, anything):
        facts.write_bytes(json.dumps(anything).encode() if damage is None else damaged(content, damage))
        assert len(cache.entries()) <= 1
        cache.is_checked(key)
        cache.check(key, "equal")

    check()


@given(st.one_of(st.text(max_size=30), st.lists(st.floats().map(str) | st.text(max_size=3), max_size=6).map(",".join)))
@settings(max_examples=300)
def test_arguments(text):
    for parse in (parse_box, parse_size, parse_intensity_range, lambda value: parse_rate(value, least=1)):
        is_read_or_refused(lambda parse=parse: parse(text))
    with contextlib.suppress(LightTrackError):
        box = parse_box(text)
        assert all(map(math.isfinite, box))
        assert box.width > 0
