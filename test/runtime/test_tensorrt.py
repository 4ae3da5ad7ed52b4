"""The TensorRT engine and its plan cache, on the strict doubles of CUDA and TensorRT (gpu_double.py)."""

import dataclasses
import itertools
import json
import logging
import re
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from gpu_double import ContractError, Gpu, Stream, installed
from onnx import TensorProto, helper

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import selftest
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.clips import scene_clips
from lighttrack_ros.media.scene.scene import Scene
from lighttrack_ros.models import load_model
from lighttrack_ros.runtime import load_engine
from lighttrack_ros.runtime.load import tensorrt_is_here
from lighttrack_ros.runtime.onnxruntime import OnnxRuntimeEngine
from lighttrack_ros.runtime.plan_cache import PlanCache
from lighttrack_ros.runtime.tensorrt import TensorRTEngine
from lighttrack_ros.runtime.watch import watch
from lighttrack_ros.trackers import compile_pairs, create_tracker

FIRST, SECOND = {"side": 6}, {"side": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    tensorrt_is_here.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lighttrack_ros.trackers._COMPARED_FRAMES", 2)  # drawing them takes most of the time
    return tmp_path / "cache/lighttrack_ros/plans"


@pytest.fixture
def graphs(tmp_path) -> tuple[Path, Path]:
    """Two graphs: the first turns bytes into features, the second takes bytes and these features."""
    crop = helper.make_tensor_value_info("crop", TensorProto.UINT8, ["side", "side", 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 3])
    scaled = [
        helper.make_node("Transpose", ["crop"], ["planes"], perm=[2, 0, 1]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "weights"], ["scaled"]),
    ]
    mean = helper.make_node("ReduceMean", ["scaled"], ["means"], axes=[1, 2], keepdims=0)
    weights = onnx.numpy_helper.from_array(np.float32([[[0.5]], [[0.25]], [[2]]]), "weights")
    one = onnx.numpy_helper.from_array(np.int64([1, 3]), "shape")
    score, pixels = (
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 3]),
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [3, "side", "side"]),
    )
    reshape = helper.make_node("Reshape", ["means", "shape"], ["features"])
    plain = helper.make_node("Reshape", ["means", "shape"], ["own"])
    add = helper.make_node("Add", ["own", "features"], ["score"])
    out = helper.make_node("Identity", ["scaled"], ["pixels"])
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    for path, nodes, inputs, outputs in (
        (first, [*scaled, mean, reshape], [crop], [features]),
        (second, [*scaled, mean, plain, add, out], [crop, features], [score, pixels]),
    ):
        graph = helper.make_graph(nodes, "graph", inputs, outputs, [weights, one])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, path)
    return first, second


def crop_of(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def expected(graphs, first_crop, second_crop) -> dict[str, np.ndarray]:
    first, second = OnnxRuntimeEngine(graphs[0], FIRST, 1), OnnxRuntimeEngine(graphs[1], SECOND, 1)
    features = first.run({"crop": first_crop})["features"]
    return {name: array.copy() for name, array in second.run({"crop": second_crop, "features": features}).items()}


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
@pytest.mark.parametrize("version", ["8.6.2", "10.3.0", "11.4.0.106"])
def test_outputs_equal_onnxruntime_with_features_passed_by_address(graphs, binding, integrated, version):
    with installed(Gpu(integrated=integrated), binding, version) as gpu:
        first, second = TensorRTEngine(graphs[0], FIRST, "fp32"), TensorRTEngine(graphs[1], SECOND, "fp32")
        features = None
        for frame in range(6):
            if frame % 3 == 0:  # a new target
                first_crop = crop_of(6, frame)
                first.input_buffers["crop"][:] = first_crop
                features = first.run({})["features"]
            second_crop = crop_of(4, 100 + frame)
            second.input_buffers["crop"][:] = second_crop
            gpu.calls.clear()
            outputs = second.run({"features": features})
            calls = list(gpu.calls)
            reference = expected(graphs, first_crop, second_crop)
            np.testing.assert_allclose(np.asarray(outputs["score"]), reference["score"], rtol=1e-5)
        # The features never left the GPU, and the settled frame is one launch (PyCUDA: copies and one enqueue).
        if binding == "cuda-bindings":
            assert calls == ["cuCtxPushCurrent", "cuGraphLaunch", "cuStreamSynchronize", "cuCtxPopCurrent"]
        else:
            assert "set_tensor_address" not in calls
            assert calls.count("execute_async_v3") == 1
            copies = [call for call in calls if "Memcpy" in call]
            assert copies == ([] if integrated else ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"])
        first.close()
        second.close()
        second.close()


def test_only_outputs_that_the_host_reads_are_downloaded(graphs):
    with installed(Gpu(), "pycuda") as gpu:
        engine = TensorRTEngine(graphs[1], SECOND, "fp32")
        outputs = engine.run({})
        assert gpu.calls.count("cuMemcpyDtoHAsync") == 0
        np.asarray(outputs["score"])
        gpu.calls.clear()
        engine.run({})
        np.asarray(outputs["score"])
        assert gpu.calls.count("cuMemcpyDtoHAsync") == 1
        engine.close()


def test_every_slot_holds_its_own_and_has_a_graph_of_its_own(graphs):
    with installed(Gpu()):
        first, second = TensorRTEngine(graphs[0], FIRST, "fp32"), TensorRTEngine(graphs[1], SECOND, "fp32")
        crops, second_crop = [crop_of(6, seed) for seed in (1, 3)], crop_of(4, 2)
        references = [expected(graphs, crop, second_crop)["score"] for crop in crops]
        assert not np.array_equal(*references)
        for slot, crop in enumerate(crops):
            second.hold(first.run({"crop": crop}), slot)
        second.input_buffers["crop"][:] = second_crop
        for _ in range(4):  # with calls, then as CUDA graphs
            for slot, reference in enumerate(references):
                np.testing.assert_allclose(np.asarray(second.run({}, slot)["score"]), reference, rtol=1e-5)
        first.close()
        second.close()


def test_held_inputs_stay_and_passed_arrays_apply_to_one_run(graphs):
    with installed(Gpu()):
        first, second = TensorRTEngine(graphs[0], FIRST, "fp32"), TensorRTEngine(graphs[1], SECOND, "fp32")
        first_crop, second_crop = crop_of(6, 1), crop_of(4, 2)
        reference = expected(graphs, first_crop, second_crop)["score"]
        second.hold(first.run({"crop": first_crop}))
        first.run({"crop": crop_of(6, 3)})  # overwrites its output, not what is held
        for _ in range(4):
            outputs = second.run({"crop": second_crop})
            np.testing.assert_allclose(np.asarray(outputs["score"]), reference, rtol=1e-5)
        second.hold({"features": np.zeros((1, 3), np.float32)})
        features = OnnxRuntimeEngine(graphs[0], FIRST, 1).run({"crop": first_crop})["features"]
        held = np.asarray(second.run({"crop": second_crop})["score"]).copy()
        np.testing.assert_allclose(held, reference - features, rtol=1e-4)
        given = second.run({"crop": second_crop, "features": features})  # for this run only
        np.testing.assert_allclose(np.asarray(given["score"]), reference, rtol=1e-5)
        np.testing.assert_array_equal(np.asarray(second.run({"crop": second_crop})["score"]), held)
        first.close()
        second.close()


def test_an_engine_runs_in_another_thread_than_it_was_created_in(graphs):
    with installed(Gpu()):
        engine = TensorRTEngine(graphs[0], FIRST, "fp32")
        results = []
        for _ in range(4):
            thread = threading.Thread(target=lambda: results.append(np.asarray(engine.run({})["features"]).copy()))
            thread.start()
            thread.join()
        assert len(results) == 4
        engine.close()


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_without_a_cuda_graph_it_runs_and_logs_why(graphs, caplog, call):
    with installed(Gpu()) as gpu:
        engine = TensorRTEngine(graphs[0], FIRST, "fp32")
        gpu.failing[call] = 0
        crop = crop_of(6, 5)
        for _ in range(4):
            features = np.asarray(engine.run({"crop": crop})["features"])
        reference = OnnxRuntimeEngine(graphs[0], FIRST, 1).run({"crop": crop})["features"]
        np.testing.assert_allclose(features, reference, rtol=1e-5)
        assert gpu.launches == 0
        assert [r for r in caplog.records if "runs without a CUDA graph" in r.message and call in r.message]
        assert gpu.calls.count("cuStreamBeginCapture") == 1  # tried once
        engine.close()


def test_a_network_that_fails_during_capture_runs_without_a_cuda_graph(graphs, caplog):
    with installed(Gpu()) as gpu:
        engine = TensorRTEngine(graphs[0], FIRST, "fp32")
        engine.run({})
        gpu.failing["execute_async_v3"] = 0
        with pytest.raises(LightTrackError, match=r"first\.onnx: .*made to fail"):
            engine.run({})
        del gpu.failing["execute_async_v3"]
        np.asarray(engine.run({})["features"])
        engine.close()


@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_no_failing_call_leaks_resources(graphs, binding, cache):
    """Let each CUDA and TensorRT call fail once; the error names the graph or CUDA, and everything is freed."""
    for number in itertools.count():
        gpu = Gpu()
        gpu.fail_at = number
        failed = None
        kept = []  # as a debugger keeps errors, and the reference cycles of Python 3.13: nothing may live on with them
        with installed(gpu, binding):
            engine = None
            try:
                engine = TensorRTEngine(graphs[1], SECOND, "fp32")
                for _ in range(3):
                    np.asarray(engine.run({})["score"])
                engine.hold({"features": np.zeros((1, 3), np.float32)})
                engine.run({})
            except LightTrackError as error:
                failed = str(error)
                kept.append(error)
            finally:
                try:
                    if engine:
                        engine.close()
                except LightTrackError as error:
                    failed = failed or str(error)
            engine = None
        if failed is not None:
            assert "CUDA" in failed or "TensorRT" in failed or "graph" in failed
        for path in cache.glob("*"):
            path.unlink()  # the builder's calls are part of every life
        if number >= len(gpu.calls):
            assert number > 40
            return


def test_wrong_use_raises_clear_errors(graphs):
    with installed(Gpu()):
        engine = TensorRTEngine(graphs[1], SECOND, "fp32")
        with pytest.raises(LightTrackError, match="no input 'image', expected crop, features"):
            engine.run({"image": np.zeros(1)})
        with pytest.raises(LightTrackError, match=r"input features is float64 \(1, 3\), expected float32 \(1, 3\)"):
            engine.run({"features": np.zeros((1, 3))})
        with pytest.raises(LightTrackError, match=r"input crop is uint8 \(5, 4, 3\), expected uint8 \(4, 4, 3\)"):
            engine.hold({"crop": np.zeros((5, 4, 3), np.uint8)})
        outputs = engine.run({})
        engine.close()
        with pytest.raises(LightTrackError, match="the engine is closed"):
            engine.run({})
        with pytest.raises(LightTrackError, match="the engine is closed"):
            np.asarray(outputs["score"])
        with pytest.raises(LightTrackError, match=r"crop has free dimensions \['side', 'side'\]"):
            TensorRTEngine(graphs[0], {}, "fp32")


def test_the_error_contains_tensorrts_log_lines(graphs):
    for call in ("parse", "build_serialized_network", "create_network", "Builder", "Runtime"):
        with installed(Gpu()) as gpu:
            gpu.failing[call] = 0
            with pytest.raises(LightTrackError, match=r"first\.onnx: TensorRT.*made to fail"):
                TensorRTEngine(graphs[0], FIRST, "fp32")


def test_a_plan_is_built_once_per_key(graphs, cache):
    def load(gpu=None, precision="fp16", dimensions=FIRST, version="10.3.0") -> int:
        with installed(gpu or Gpu(), tensorrt=version) as device:
            TensorRTEngine(graphs[0], dimensions, precision).close()
            return device.calls.count("build_serialized_network")

    assert load() == 1
    assert load() == 0
    assert load(precision="fp32") == 1
    assert load(dimensions={"side": 8}) == 1
    assert load(version="10.4.0") == 1
    assert load(Gpu(name="Other")) == 1
    assert load(Gpu(driver=12080)) == 1
    assert load() == 0
    graphs[0].write_bytes(graphs[1].read_bytes())
    assert load() == 1
    assert len(PlanCache().entries()) == 7
    assert {entry.key.precision for entry in PlanCache().entries()} == {"fp16", "fp32"}
    assert not [path for path in cache.iterdir() if path.suffix not in (".plan", ".json", ".timings", ".lock")]


@pytest.mark.parametrize(("version", "seen"), [("8.6.2", ""), ("10.3.0", ", Timing tactics 1/5")])
def test_a_long_compilation_logs_its_progress(graphs, caplog, monkeypatch, version, seen):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("lighttrack_ros.runtime.plans._TELL_EVERY", 0.01)
    monkeypatch.setattr("lighttrack_ros.runtime.plans._LOOK_EVERY", 0.01)
    statuses = set()
    with installed(Gpu(), tensorrt=version) as gpu, watch() as watched:

        def until_it_is_told(step):
            statuses.add(watched.status())
            while step == 1 and not any(record.message.endswith(f" after 0 s{seen}") for record in caplog.records):
                time.sleep(0.01)

        gpu.on_build_step = until_it_is_told
        TensorRTEngine(graphs[0], FIRST, "fp32").close()
        assert watched.status() == ""
    told = [record.message.split(": ")[1] for record in caplog.records if record.name.endswith("plans")]
    assert told[0] == "compiling for Double in fp32"
    assert f"still compiling after 0 s{seen}" in told
    assert told[-1].startswith("compiled in ")
    (status,) = statuses
    assert re.fullmatch(r"compiling \S+/first\.onnx for Double in fp32, 0 s", status)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("compiling")]


@pytest.mark.parametrize(("version", "steps"), [("8.6.2", 5), ("10.3.0", 2)])
@pytest.mark.parametrize("by", ["the watch", "a signal"])
def test_a_compilation_can_be_stopped(graphs, cache, caplog, version, steps, by):
    """It stops at its next step if this TensorRT can, else at its end; no plan is kept, and everything is freed."""
    caplog.set_level(logging.INFO)
    done = []
    with installed(Gpu(), tensorrt=version) as gpu, watch() as watched:

        def stop(step):
            done.append(step)
            if step == 1:
                watched.stop.set() if by == "the watch" else signal.raise_signal(signal.SIGINT)
                while not any("the compilation stops" in record.message for record in caplog.records):
                    time.sleep(0.01)

        gpu.on_build_step = stop
        with pytest.raises(LightTrackError if by == "the watch" else KeyboardInterrupt):
            TensorRTEngine(graphs[0], FIRST, "fp32")
        assert len(done) == steps
        assert not list(cache.glob("*.plan"))
        watched.stop.clear()
        gpu.on_build_step = lambda step: None
        TensorRTEngine(graphs[0], FIRST, "fp32").close()  # nothing is in its way


def test_two_threads_build_the_same_plan_once(graphs, caplog):
    caplog.set_level(logging.INFO)
    with installed(Gpu()) as gpu:
        with PlanCache().building():
            threads = [
                threading.Thread(target=lambda: TensorRTEngine(graphs[0], FIRST, "fp32").close()) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            while sum("waiting for another" in record.message for record in caplog.records) < 2:
                time.sleep(0.01)
        for thread in threads:
            thread.join()
        assert gpu.calls.count("build_serialized_network") == 1


def test_waiting_for_another_compilation_can_be_stopped(graphs):
    with installed(Gpu()), PlanCache().building(), watch() as watched:
        watched.stop.set()
        with pytest.raises(LightTrackError, match="told to stop while another process is compiling"):
            TensorRTEngine(graphs[0], FIRST, "fp32")


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"half"])
def test_a_plan_that_does_not_load_is_built_again(graphs, cache, caplog, damage):
    with installed(Gpu()):
        TensorRTEngine(graphs[0], FIRST, "fp32").close()
    (plan,) = cache.glob("*.plan")
    whole = plan.read_bytes()
    plan.write_bytes(whole[:10] if damage == b"half" else damage)
    with installed(Gpu()) as gpu:
        engine = TensorRTEngine(graphs[0], FIRST, "fp32")
        assert np.asarray(engine.run({})["features"]).shape == (1, 3)
        engine.close()
        assert gpu.calls.count("build_serialized_network") == 1
    assert plan.read_bytes() == whole
    assert [record for record in caplog.records if "does not load" in record.message]


def test_a_read_only_cache_costs_only_time(graphs, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        with installed(Gpu()) as gpu:
            TensorRTEngine(graphs[0], FIRST, "fp32").close()
            assert gpu.calls.count("build_serialized_network") == 1
    assert [record for record in caplog.records if "will not be kept" in record.message]


def test_timings_of_another_gpu_are_ignored(graphs, cache):
    with installed(Gpu()):
        TensorRTEngine(graphs[0], FIRST, "fp32").close()
    (timings,) = cache.glob("*.timings")
    timings.write_bytes(b"of another GPU")
    with installed(Gpu()) as gpu:
        TensorRTEngine(graphs[1], SECOND, "fp32").close()
        assert gpu.calls.count("build_serialized_network") == 1


def test_auto_takes_tensorrt_if_it_is_found_and_else_logs_why_not(graphs, caplog):
    caplog.set_level(logging.DEBUG)
    with installed(Gpu()):
        engine = load_engine(graphs[0], "auto", dimensions=FIRST)
        assert engine.backend == "tensorrt"
        engine.close()
    tensorrt_is_here.cache_clear()
    with installed(Gpu()) as gpu:
        gpu.failing["cuInit"] = 0
        engine = load_engine(graphs[0], "auto", dimensions=FIRST)
        assert engine.backend == "onnxruntime"
    (line,) = {record.message for record in caplog.records if record.message.startswith("no TensorRT here")}
    assert "ONNX Runtime on the CPU" in line
    assert "docs/tensorrt.md" in line
    (line,) = {record.message for record in caplog.records if record.message.startswith("no TensorRT: ")}
    assert "cuInit" in line
    assert "--runtime nvidia (Jetson) or --gpus all" in line
    tensorrt_is_here.cache_clear()
    with installed(Gpu(), binding="none"):
        assert load_engine(graphs[0], "auto", dimensions=FIRST).backend == "onnxruntime"
        with pytest.raises(LightTrackError, match=r"pip install cuda-python.*JetPack 6.*JetPack 7"):
            load_engine(graphs[0], "tensorrt", dimensions=FIRST)


def test_auto_falls_back_if_a_graph_does_not_compile(graphs, caplog):
    with installed(Gpu()) as gpu:
        gpu.failing["build_serialized_network"] = 0
        engine = load_engine(graphs[0], "auto", dimensions=FIRST)
        assert engine.backend == "onnxruntime"
        assert [record for record in caplog.records if "made to fail" in record.message]


def test_without_tensorrt_the_error_says_how_to_install_it(graphs, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LightTrackError, match=r"JetPack 6 and 7: sudo apt install python3-libnvinfer.*Desktop: pip"):
        load_engine(graphs[0], "tensorrt", dimensions=FIRST)


@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_timing_repeats_the_last_run(graphs, binding):
    with installed(Gpu(), binding):
        engine = TensorRTEngine(graphs[0], FIRST, "fp32")
        engine.run({})
        gpu_ms, host_ms = engine.milliseconds(5)
        assert gpu_ms.shape == host_ms.shape == (5,)
        assert (gpu_ms > 0).all()
        assert (host_ms > 0).all()
        engine.close()


def test_the_double_is_strict():
    """A double that accepts every call would prove nothing."""
    gpu = Gpu()
    with pytest.raises(ContractError, match="no current context"):
        gpu.allocate(4, pinned=False)
    gpu.retained += 1
    gpu.push()
    block = gpu.allocate(300, pinned=False)
    stream = gpu.make(Stream())
    with pytest.raises(ContractError, match="run over the end"):
        gpu.copy(block.address, block.address + 200, 200, stream)
    gpu.copy(block.address, block.address + 200, 50, stream)
    with pytest.raises(ContractError, match="nobody wrote"):
        gpu.synchronize(stream)
    gpu.copy(block.address, block.address + 200, 50, stream)
    with pytest.raises(ContractError, match="work is pending"):
        gpu.free(block.address, pinned=False)
    gpu.things[stream].queue.clear()
    gpu.begin_capture(stream)
    with pytest.raises(ContractError, match="inside a capture"):
        gpu.allocate(4, pinned=True)
    gpu.end_capture(stream)
    with pytest.raises(AssertionError):
        gpu.check_clean()
    gpu.free(block.address, pinned=False)
    with pytest.raises(ContractError, match="after free"):
        gpu.find(block.address, 1)


@pytest.fixture
def scene():
    return [(from_bgr(frame.image), frame.box) for frame, _ in zip(Scene(), range(8), strict=False)]


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_a_whole_tracker_gives_onnxruntimes_boxes(scene, binding, integrated):
    """Engines pass tensors on inside a tracker, for two targets in turn; nothing is allocated after loading."""
    model = load_model(NANO)
    reference = create_tracker(model, "onnxruntime", 1)
    with installed(Gpu(integrated=integrated), binding) as gpu:
        tracker = create_tracker(model, "tensorrt-fp32")
        once = {"cuMemAlloc", "cuMemHostAlloc", "cuStreamBeginCapture", "set_tensor_address", "parse"}
        assert once - {"cuStreamBeginCapture"} <= set(gpu.calls)
        gpu.calls.clear()
        for start in (0, 4):
            frame, box = scene[start]
            tracker.init(frame, box)
            reference.init(frame, box)
            for frame, _ in scene[start + 1 : start + 4]:
                estimate, expected_estimate = tracker.update(frame), reference.update(frame)
                np.testing.assert_allclose(estimate.box, expected_estimate.box, atol=0.01)
                assert estimate.confidence == pytest.approx(expected_estimate.confidence, abs=1e-4)
        assert not once & set(gpu.calls)
        if binding == "cuda-bindings":
            assert gpu.calls.count("cuGraphLaunch") == 2 + 6  # templates, frames
            assert "execute_async_v3" not in gpu.calls
        tracker.close()


def test_an_engine_that_is_not_closed_frees_everything_when_collected(graphs):
    with installed(Gpu()):
        outputs = TensorRTEngine(graphs[0], FIRST, "fp32").run({})
        with pytest.raises(LightTrackError, match="features: the engine that gave it is gone"):
            np.asarray(outputs["features"])


NANO = Path(__file__).resolve().parents[2] / "engines/lighttrack_nano"
PLANS = 1 + len(load_model(NANO).search_sides)  # of the template, and of each size of the search crop
DISTORTIONS = {
    "not finite": lambda output: np.full_like(output, np.nan),
    "boxes": lambda output: output * np.float32(1.5) if output.shape[1] == 4 else output,
    "scores": lambda output: output - np.float32(4) if output.shape[1] == 1 else output,
}


def test_a_compiled_model_is_compared_with_onnxruntime_once(caplog):
    caplog.set_level(logging.INFO)

    def comparisons() -> int:
        with installed(Gpu()):
            create_tracker(load_model(NANO), "tensorrt").close()
        said = [record for record in caplog.records if "against ONNX Runtime" in record.message]
        caplog.clear()
        return len(said)

    assert comparisons() == 1
    assert comparisons() == 0
    entries = PlanCache().entries()
    assert len(entries) == PLANS
    assert all(re.match(r"boxes differ by 0\.\d+ px .* on 1 frames; from afar, ", entry.checked) for entry in entries)
    # Each of them had its share in that.
    compared = {clip[0][1].area / (clip[0][0].width * clip[0][0].height) for clip in map(list, scene_clips(2))}
    assert min(compared) < load_model(NANO).hyper_parameters.small_target < max(compared)
    # Killed between compiling and comparing.
    facts = entries[0].path.with_suffix(".json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"checked": ""}))
    assert comparisons() == 1
    assert comparisons() == 0


def test_a_wrong_plan_for_small_targets_only_is_found():
    with installed(Gpu()) as gpu:
        # Cells of the larger of the two search sizes.
        gpu.distort = lambda output: DISTORTIONS["boxes"](output) if output.shape[-1] == 18 else output
        with pytest.raises(LightTrackError, match="does not agree with ONNX Runtime"):
            create_tracker(load_model(NANO), "tensorrt")


@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_auto_falls_back_if_networks_compile_but_do_not_run(caplog, binding):
    with installed(Gpu(), binding) as gpu:
        gpu.failing["execute_async_v3"] = 0
        with pytest.raises(LightTrackError, match="the network does not run") as kept:
            create_tracker(load_model(NANO), "tensorrt")
        assert not gpu.living(), "the engines live as long as the error that somebody keeps"
        assert kept.value.__traceback__
        tracker = create_tracker(load_model(NANO), "auto")
        assert tracker.backend == "onnxruntime"
        assert not gpu.living()
        tracker.close()
        (line,) = (r.message for r in caplog.records if "running on ONNX Runtime instead" in r.message)
        assert "made to fail" in line


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_plans_with_wrong_results_are_refused_and_deleted(caplog, distortion):
    with installed(Gpu()) as gpu:
        gpu.distort = DISTORTIONS[distortion]
        with pytest.raises(LightTrackError, match=r"lighttrack_nano in fp16, compiled by tensorrt 10.* does not agree"):
            create_tracker(load_model(NANO), "tensorrt")
        assert PlanCache().entries() == []
        tracker = create_tracker(load_model(NANO), "auto")
        assert tracker.backend == "onnxruntime"
        tracker.close()
        assert [r for r in caplog.records if "running on ONNX Runtime instead: lighttrack_nano in fp16" in r.message]
        assert PlanCache().entries() == []


@pytest.fixture
def sequence(tmp_path) -> Path:
    frames = [frame for frame, _ in zip(Scene(3, 320, 240), range(4), strict=False)]
    folder = tmp_path / "sequences/short"
    (folder / "img").mkdir(parents=True)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"img/{index:04d}.png"), frame.image)
    (folder / "groundtruth.txt").write_text("".join(",".join(map(str, frame.box)) + "\n" for frame in frames))
    return folder.parent


def test_compile_list_and_prune(capsys, monkeypatch):
    with installed(Gpu(name="Old")):
        assert main(["compile", str(NANO), "--frames", "2"]) == 0
    with installed(Gpu()) as gpu:
        assert main(["compile", str(NANO), "--precision", "fp16", "--frames", "2"]) == 0
        assert gpu.calls.count("build_serialized_network") == PLANS
        assert "lighttrack_nano is compiled in fp16" in capsys.readouterr().out
        assert main(["compile", "--list"]) == 0
        listed = capsys.readouterr().out
        assert "lighttrack_nano/search.onnx side=288 fp16 for Double with tensorrt 10.3.0, CUDA 12.6" in listed
        assert listed.count("from afar, boxes differ by 0.") == 2 * PLANS
        assert f"{2 * PLANS} plans" in listed
        assert main(["compile", "--prune"]) == 0
        assert capsys.readouterr().out.count("for Old") == PLANS
        assert len(PlanCache().entries()) == PLANS
        monkeypatch.setattr("lighttrack_ros.commands.compile.model_places", lambda: [])
        assert main(["compile", "--prune"]) == 0
        assert PlanCache().entries() == []


def clock(monkeypatch, together, alone):
    """Give what a run for two crops takes, and one for one, ms."""
    times = {2: [together], 1: [alone]}
    monkeypatch.setattr(compile_pairs, "_milliseconds", lambda engine: times[engine.outputs["logits"].shape[0]])


@pytest.mark.parametrize(("integrated", "precision"), [(False, "fp16"), (True, "int8")])
def test_two_targets_share_a_run_where_compile_found_that_faster(capsys, monkeypatch, scene, integrated, precision):
    """Without such plans targets go one by one; with them the boxes are the same, and the node compiles nothing."""
    clock(monkeypatch, together=1.0, alone=0.6)
    backend = "tensorrt" if precision == "fp16" else "tensorrt-int8"
    model, boxes = load_model(NANO), []
    with installed(Gpu(integrated=integrated)) as gpu:
        for arguments in ([], ["--pairs"]):
            assert main(["compile", str(NANO), "--precision", precision, "--frames", "2", *arguments]) == 0
            gpu.calls.clear()
            first = create_tracker(model, backend)
            second = first.another()
            assert (first._pairs is not None) == bool(arguments)
            if arguments:
                first._pairs.wait()
            (frame, box), *film = scene
            first.init(frame, box)
            second.init(frame, box._replace(x=box.x + box.width / 4))
            got, shared = [], 0
            for frame, _ in film:
                shared += first.look_ahead(frame, second)
                got += [first.update(frame).box, second.update(frame).box]
            boxes.append(got)
            assert (shared > 2) == bool(arguments)
            assert "build_serialized_network" not in gpu.calls
            first.close()
    np.testing.assert_allclose(boxes[1], boxes[0], atol=0.5)
    printed = capsys.readouterr().out
    assert "two crops of 160 px: 1.000 ms in one run, 1.200 ms in two, results differ by 0." in printed
    assert printed.count(": kept") == 2
    assert main(["compile", "--list"]) == 0
    assert f"search.onnx side=160 crops=2 {precision} for Double" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("together", "alone", "distortion", "expected"),
    [
        (1.1, 0.6, lambda output: output, "one run takes more than 90% of the time of two"),
        (1.0, 0.6, lambda output: output[::-1] if len(output) == 2 else output, "differ by more than 10%"),
        (1.0, 0.6, lambda output: output * np.nan if len(output) == 2 else output, "differ by more than 10%"),
    ],
)
def test_plans_for_two_targets_that_do_not_pay_or_are_wrong_are_deleted(
    capsys, monkeypatch, together, alone, distortion, expected
):
    clock(monkeypatch, together, alone)
    with installed(Gpu()) as gpu:
        gpu.distort = distortion
        assert main(["compile", str(NANO), "--frames", "2", "--pairs"]) == 0
        assert capsys.readouterr().out.count(expected) == 2
        assert len(PlanCache().entries()) == PLANS
        tracker = create_tracker(load_model(NANO), "tensorrt")
        assert tracker._pairs is None
        tracker.close()


def test_plans_for_two_targets_that_cannot_be_kept_are_an_error(capsys, monkeypatch):
    clock(monkeypatch, together=1.0, alone=0.6)
    with installed(Gpu()):
        assert main(["compile", str(NANO), "--frames", "2"]) == 0

        def fail(*arguments):
            raise OSError("disk full")

        monkeypatch.setattr("lighttrack_ros.runtime.plan_cache.write_whole", fail)
        assert main(["compile", str(NANO), "--frames", "2", "--pairs"]) == 1
        assert "the plan for two crops is not kept, the folder is not writable" in capsys.readouterr().err


def test_the_time_of_two_crops_in_one_run_is_taken_on_the_device(capsys):
    with installed(Gpu()) as gpu:
        assert main(["compile", str(NANO), "--frames", "2", "--pairs"]) == 0
        assert gpu.calls.count("cuEventRecord") == 2 * 2 * 2 * compile_pairs._TIMED_RUNS  # two events, sides, ways
        times = re.findall(r"px: ([0-9.]+) ms in one run, ([0-9.]+) ms in two", capsys.readouterr().out)
        assert len(times) == 2
        assert all(float(one) > 0 and float(two) > 0 for one, two in times)


def test_other_trackers_are_not_compiled_for_two_targets(capsys, imported):
    with installed(Gpu()) as gpu:
        assert main(["compile", str(imported / "mixformerv2"), "--pairs"]) == 1
        assert "only a lighttrack searches for two targets at once" in capsys.readouterr().err
        assert "build_serialized_network" not in gpu.calls


def test_compile_compares_on_the_users_frames(capsys, sequence):
    arguments = ["compile", str(NANO), "--sequences", str(sequence)]
    with installed(Gpu()) as gpu:
        assert main([*arguments, "--frames", "3"]) == 0
        printed = capsys.readouterr().out
        assert f"Differences to ONNX Runtime in fp32 on 3 frames of {sequence}:" in printed
        rows = [line.split() for line in printed.splitlines()]
        (pixels,) = (row[2:] for row in rows if row[:2] == ["box,", "pixels"])
        assert 0 <= float(pixels[0]) <= float(pixels[2]) < 0.5
        # Good on the generated scene, bad on the user's: refused all the same.
        assert len(PlanCache().entries()) == PLANS
        gpu.distort = DISTORTIONS["boxes"]
        assert main(arguments) == 1
        assert "boxes' median overlap is 0." in capsys.readouterr().err
        assert PlanCache().entries() == []


def test_selftest_compares_times_and_reports(capsys, tmp_path, sequence):
    arguments = ["selftest", "--gpu", str(NANO), "--sequences", str(sequence), "--json", str(tmp_path / "figures.json")]
    with installed(Gpu(), "pycuda") as gpu:
        assert main([*arguments, "--frames", "3"]) == 0
        printed = capsys.readouterr().out
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert json.loads(printed[printed.index("{") :]) == figures
        assert figures["machine"]["gpu"] == "Double"
        assert set(figures["preprocessing"]) == {"crop", "rectangle", "whole_frame"}
        assert "to the GPU from a 720p frame: resized by the CPU " in printed
        rows = figures["models"][:2]  # int8 has tests of its own
        assert [row["precision"] for row in rows] == ["fp32", "fp16"]
        for row in rows:
            assert row["problem"] == ""
            assert row["compared_frames"] == 3
            assert row["overlap"]["least"] > 0.95
            assert list(row["update_ms"]) == ["p50", "p95", "p99", "max"]
            assert set(row["networks"]) == {"template.onnx", "search.onnx"}
            for times in row["networks"].values():
                assert times["gpu_ms"]["p50"] >= 1
                assert 0 < times["host_ms"]["p50"] <= times["host_ms"]["p95"] <= times["host_ms"]["p99"]
        assert "lighttrack_nano fp16: agrees with ONNX Runtime" in printed
        gpu.distort = DISTORTIONS["boxes"]
        assert main([*arguments, "--frames", "3"]) == 1
        assert "do not use this here: lighttrack_nano in fp32: " in capsys.readouterr().err
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert all("median overlap" in row["problem"] for row in figures["models"][:2])
        gpu.distort = DISTORTIONS["not finite"]
        assert main([*arguments, "--frames", "3"]) == 1
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert all("not finite" in row["problem"] for row in figures["models"][:2])


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_selftest_frees_everything_if_a_copy_fails(binding, integrated):
    with installed(Gpu(integrated=integrated), binding):
        assert all(spread["p50"] > 0 for spread in selftest.time_preprocessing(2).values())
    for works in range(3):
        gpu = Gpu()
        gpu.failing["cuMemcpyHtoDAsync"] = works
        with installed(gpu, binding), pytest.raises(LightTrackError, match="cuMemcpyHtoDAsync failed"):
            selftest.time_preprocessing(2)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Small models with random weights, by tracker."""
    torch = pytest.importorskip("torch")
    from lighttrack_ros.networks import dytrack, mixformerv2

    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    networks = {
        "mixformerv2": mixformerv2.MixFormerV2(dataclasses.replace(mixformerv2.SMALL, depth=2)),
        "dytrack": dytrack.DyTrack(
            dytrack.Architecture(channels=128, exit_channels=24, exits=(1, 2, 4), template_size=64, search_size=128)
        ),
    }
    for name, network in networks.items():
        torch.save({"net": network.state_dict()}, place / f"{name}.pth")
        assert main(["import", str(place / f"{name}.pth"), "--name", name, "--output", str(place)]) == 0
    return place


@pytest.mark.parametrize("name", ["mixformerv2", "dytrack"])
def test_selftest_times_the_plans_that_the_tracker_uses(imported, name):
    """It must not compile a second plan of each graph: that takes a Jetson minutes, and no tracker would use it."""
    with installed(Gpu()) as gpu:
        create_tracker(load_model(imported / name), "tensorrt-fp32").close()
        used = len(PlanCache().entries())
        main(["selftest", "--gpu", str(imported / name), "--frames", "2"])  # weights at random need not agree
        entries = [entry for entry in PlanCache().entries() if entry.key.precision == "fp32"]
        assert len(entries) == used
        assert gpu.calls.count("cuEventElapsedTime") > 0


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mixformerv2", {"update_interval": 2, "update_score": 0.0}),
        ("dytrack", {"modes": {"balanced": (1.0, 1.0)}}),  # every stage of every frame
        ("dytrack", {"modes": {"balanced": (0.0, 0.0)}}),  # the first alone
    ],
)
def test_trackers_of_many_engines_give_onnxruntimes_boxes(imported, scene, name, changes, integrated):
    model = load_model(imported / name)
    parameters = dataclasses.replace(model.hyper_parameters, **changes)
    model = dataclasses.replace(model, hyper_parameters=parameters)
    reference = create_tracker(model, "onnxruntime", 1)
    frame, box = scene[0]
    reference.init(frame, box)
    with installed(Gpu(integrated=integrated)) as gpu:
        tracker = create_tracker(model, "tensorrt-fp32")
        tracker.init(frame, box)
        gpu.calls.clear()
        for frame, _ in scene[1:]:
            estimate, expected_estimate = tracker.update(frame), reference.update(frame)
            np.testing.assert_allclose(estimate.box, expected_estimate.box, atol=0.05)
            assert estimate.exit_index == expected_estimate.exit_index
            frame_calls = gpu.calls.copy()
            while tracker.idle_work():
                assert reference.idle_work()
            gpu.calls.clear()
            # A frame is launches alone: no copy, no enqueue, nothing new.
            assert set(frame_calls) <= {"cuCtxPushCurrent", "cuGraphLaunch", "cuStreamSynchronize", "cuCtxPopCurrent"}
        tracker.close()
    reference.close()
