"""int8: calibration on the tracker's own crops, its two forms (TensorRT, ONNX Runtime), and the boxes that result."""

import contextlib
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from gpu_double import Gpu, installed
from onnx import numpy_helper

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.clips import scene_clip, sequence_clips
from lighttrack_ros.media.scene.scene import Scene
from lighttrack_ros.media.sequences import save_scene
from lighttrack_ros.models import load_model
from lighttrack_ros.runtime import load_engine
from lighttrack_ros.runtime.conversion import convert, convert_for_onnxruntime
from lighttrack_ros.runtime.plan_cache import PlanCache
from lighttrack_ros.runtime.ranges import FILE, Calibration, load_ranges, save_calibration
from lighttrack_ros.runtime.tensorrt import TensorRTEngine
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.parity import compare

NANO = Path(__file__).resolve().parents[2] / "engines/lighttrack_nano"
SIZES = {"side": 256}
# A block a stage, a unit a tower, a fifth of the channels.
SMALL = "back_04606664666266000000+cls_012222222+reg_012222222_ops_32+width_20_20+lite"


@pytest.fixture
def nano(tmp_path) -> Path:
    """A copy of the default model, for tests that damage it."""
    return shutil.copytree(NANO, tmp_path / "nano")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A model folder of a network that takes seconds to calibrate; its weights are random."""
    torch = pytest.importorskip("torch")
    from lighttrack_ros.export.lighttrack import export_lighttrack
    from lighttrack_ros.networks.lighttrack import Architecture, LightTrack

    folder = tmp_path_factory.mktemp("engines") / "small"
    folder.mkdir()
    shutil.copy(NANO / "model.yaml", folder)
    torch.manual_seed(0)
    network = LightTrack(Architecture.parse(SMALL))
    export_lighttrack(network, folder / "template.onnx", folder / "search.onnx", 128, (256, 288))
    return folder


@pytest.fixture(scope="module")
def calibrated(small, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("sequences")
    for seed in (1, 2):
        save_scene([Scene(seed)[index] for index in range(12)], place / f"scene{seed}")
    assert main(["calibrate", str(small), "--sequences", str(place)]) == 0
    return small


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}


def test_only_graphs_that_run_every_frame_are_calibrated(calibrated):
    ranges = load_ranges(calibrated / "search.onnx")
    assert ranges.inputs >= 20
    assert load_ranges(calibrated / "template.onnx") is None
    nodes = {node.name for node in onnx.load(calibrated / "search.onnx").graph.node}
    assert set(ranges.kept) < nodes
    low, high = ranges.ranges["/Sub_output_0"]  # the crop less its mean: bytes, as the sequences have them
    assert -124 <= low < 0 < high <= 153
    assert all(low <= high for low, high in ranges.ranges.values())
    relu = [name for name in ranges.ranges if "Relu" in name]
    assert relu
    assert all(ranges.ranges[name][0] >= 0 for name in relu)


def test_a_calibrated_graph_runs_and_is_close_to_fp32(calibrated):
    inputs = {"crop": np.array(Scene(1)[0].image[:256, :256])}  # a kind of picture that was calibrated on
    with contextlib.closing(load_engine(calibrated / "template.onnx", "onnxruntime", 1, {"side": 128})) as engine:
        engine.input_buffers["crop"][:] = Scene(1)[0].image[64:192, 64:192]
        inputs |= {name: np.array(array) for name, array in engine.run({}).items()}
    outputs = {}
    for backend in ("onnxruntime", "onnxruntime-int8", "tensorrt-int8-simulated"):
        with contextlib.closing(load_engine(calibrated / "search.onnx", backend, 1, SIZES)) as engine:
            assert engine.backend == backend
            for name, buffer in engine.input_buffers.items():
                buffer[:] = inputs[name]
            outputs[backend] = {name: np.array(array) for name, array in engine.run({}).items()}
    exact = outputs.pop("onnxruntime")
    for backend, given in outputs.items():
        for name, array in given.items():
            error = np.sqrt(np.mean((array - exact[name]) ** 2)) / exact[name].std()
            # 1 is no relation at all; the boxes of trained weights are compared below
            assert 0 < error < 0.5, (backend, name)


def test_int8_without_ranges_fails_with_the_calibrate_command(nano):
    (nano / FILE).unlink()
    for backend in ("onnxruntime-int8", "tensorrt-int8-simulated"):
        with pytest.raises(LightTrackError, match=rf"nano: no {FILE}.*lighttrack calibrate .*nano --sequences DIR"):
            load_engine(nano / "search.onnx", backend, 1, SIZES)
    with (
        installed(Gpu()),
        pytest.raises(LightTrackError, match=r"lighttrack calibrate .*nano --sequences DIR"),
    ):
        load_engine(nano / "search.onnx", "tensorrt-int8", 1, SIZES)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text.replace("sha256: ", "sha256: 0"), r"was measured on another search\.onnx"),
        (lambda text: text.replace("version: 1", "version: 0"), "version is 0, expected 1"),
        (lambda text: text.replace("ranges:", "ranges: 7 #", 1), "cannot be read"),
        (lambda text: "rubbish", "cannot be read"),
        (lambda text: "a: [", "cannot be read"),
    ],
)
def test_invalid_ranges_fail_with_the_calibrate_command(nano, damage, complaint):
    (nano / FILE).write_text(damage((nano / FILE).read_text()))
    with pytest.raises(LightTrackError, match=rf"{FILE}: {complaint}.*lighttrack calibrate .*nano --sequences DIR"):
        load_ranges(nano / "search.onnx")


def test_the_error_names_a_tensor_without_a_range(nano):
    ranges = load_ranges(nano / "search.onnx")
    without = dataclasses.replace(ranges, ranges={})
    with pytest.raises(LightTrackError, match="no range was measured for the tensor /Sub_output_0"):
        convert(nano / "search.onnx", SIZES, "int8", without)


def test_too_few_crops_are_refused(small, tmp_path, capsys):
    save_scene([Scene(1)[index] for index in range(4)], tmp_path / "scene")
    assert main(["calibrate", str(small), "--sequences", str(tmp_path)]) == 1
    assert re.search(r"ran on [1-3] crops, at least 6 are needed", capsys.readouterr().err), "of one size of crop"


def test_a_read_only_model_folder_fails_before_calibration_starts(small, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    (folder / "ranges.yaml").unlink(missing_ok=True)
    (folder / "ranges.yaml").mkdir()
    save_scene([Scene(1)[index] for index in range(4)], tmp_path / "scene")  # too few: what would be said afterwards
    assert main(["calibrate", str(folder), "--sequences", str(tmp_path)]) == 1
    assert "ranges.yaml: cannot be written (it is a folder)" in capsys.readouterr().err


def test_saved_ranges_load_unchanged(nano):
    ranges = load_ranges(nano / "search.onnx")
    save_calibration(Calibration(("a", "b"), {"search.onnx": ranges}), nano)
    assert load_ranges(nano / "search.onnx") == ranges
    assert load_ranges(nano / "search.onnx").digest == ranges.digest


@pytest.mark.parametrize("strongly_typed", [True, False])
def test_tensorrt_gets_symmetric_signed_values_with_one_scale_per_channel(strongly_typed):
    ranges = load_ranges(NANO / "search.onnx")
    model = onnx.load_from_string(convert(NANO / "search.onnx", SIZES, "int8", strongly_typed=strongly_typed))
    arrays = constants(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    checked = 0
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (arrays[name] for name in node.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()  # anything else is a parse error of TensorRT's
            assert scale.dtype == (np.float16 if strongly_typed else np.float32)
            assert (scale > 0).all()
        if node.op_type == "Conv":
            both = [makers[name].op_type for name in node.input[:2] if name in makers]
            if node.name in ranges.kept or "CA_layer" in node.name:  # a squeeze-excite works on single pixels
                assert "DequantizeLinear" not in both
            else:
                assert both == ["DequantizeLinear", "DequantizeLinear"], node.name
                weights = makers[node.input[1]]
                assert len(arrays[weights.input[1]]) > 1 or node.name.endswith("cls_pred/Conv")
                checked += 1
    assert checked > 40


def test_onnxruntime_gets_unsigned_activations_and_signed_weights():
    model = onnx.load_from_string(convert_for_onnxruntime(NANO / "search.onnx", SIZES))
    arrays = constants(model)
    quantized = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) > 20
    assert all(arrays[node.input[2]].dtype == np.uint8 for node in quantized)
    integers = [array for name, array in arrays.items() if name.endswith("/weights/quantized")]
    assert all(array.dtype == np.int8 and array.min() >= -127 for array in integers)


@pytest.mark.parametrize("backend", ["onnxruntime-int8", "tensorrt-int8-simulated"])
def test_int8_boxes_match_fp32_and_wrong_ranges_do_not(backend, nano, shared):
    clips = shared / "training/videos"

    def problem() -> str:
        tested, reference = (
            create_tracker(load_model(nano), backend, 1),
            create_tracker(load_model(nano), "onnxruntime", 1),
        )
        try:
            return compare(tested, reference, [scene_clip(20), *sequence_clips(clips, 72)]).problem()
        finally:
            tested.close()
            reference.close()

    assert problem() == ""
    ranges = load_ranges(nano / "search.onnx")
    narrow = {name: (low / 8, high / 8) for name, (low, high) in ranges.ranges.items()}
    save_calibration(Calibration((), {"search.onnx": dataclasses.replace(ranges, ranges=narrow)}), nano)
    assert problem() != ""


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0"])
def test_the_plan_key_depends_on_the_ranges(nano, version, tmp_path, monkeypatch):
    """On the strict doubles, which refuse what TensorRT's parser would refuse."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def load(graph: str, precision: str) -> int:
        with installed(Gpu(), tensorrt=version) as gpu:
            TensorRTEngine(nano / graph, {"side": 128}, precision).close()
            return gpu.calls.count("build_serialized_network")

    assert load("search.onnx", "int8") == 1
    assert load("search.onnx", "int8") == 0
    assert load("search.onnx", "fp16") == 1
    assert load("template.onnx", "int8") == 1  # runs once a target: in fp16
    assert load("template.onnx", "fp16") == 0
    ranges = load_ranges(nano / "search.onnx")
    save_calibration(Calibration((), {"search.onnx": dataclasses.replace(ranges, kept=())}), nano)
    assert load("search.onnx", "int8") == 1
    facts = [json.loads(path.read_text())["key"] for path in PlanCache().folder.glob("*.json")]
    assert sorted((key["precision"], key["ranges"] != "") for key in facts) == [
        ("fp16", False),
        ("fp16", False),
        ("int8", True),
        ("int8", True),
    ]
