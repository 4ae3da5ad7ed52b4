"""The engine protocol on the CPU backends: fixed sizes, bound buffers, clear errors."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime import load_engine


@pytest.fixture
def graph(tmp_path):
    """y = x as float + offset, for a square x of any side."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["f", "o"], ["y"])],
            "add",
            [
                helper.make_tensor_value_info("x", TensorProto.UINT8, ["side", "side"]),
                helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 1]),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["side", "side"])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "add.onnx")
    return tmp_path / "add.onnx"


def offset(value):
    return np.full((1, 1), value, np.float32)


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request):
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    return request.param


def test_shapes_are_static_once_loaded(graph, backend):
    engine = load_engine(graph, backend, dimensions={"side": 3})
    assert engine.backend == backend
    assert engine.inputs["x"] == ((3, 3), np.dtype(np.uint8))
    assert engine.outputs["y"] == ((3, 3), np.dtype(np.float32))


def test_inputs_may_be_given_held_or_written_in_place(graph, backend):
    engine = load_engine(graph, backend, dimensions={"side": 2})
    engine.input_buffers["x"][:] = [[1, 2], [3, 4]]
    engine.hold({"o": offset(10)})
    assert engine.run({})["y"].tolist() == [[11, 12], [13, 14]]
    assert engine.run({"o": offset(20)})["y"].tolist() == [[21, 22], [23, 24]]
    assert engine.run({"x": np.full((2, 2), 7, np.uint8)})["y"].tolist() == [[17, 17], [17, 17]]
    engine.input_buffers["x"][0, 0] = 5
    assert engine.run({})["y"].tolist() == [[15, 12], [13, 14]]
    assert engine.run({"x": np.arange(8, dtype=np.uint8).reshape(2, 4)[:, ::2]})["y"].tolist() == [[10, 12], [14, 16]]


def test_every_slot_holds_its_own(graph, backend):
    engine = load_engine(graph, backend, dimensions={"side": 2})
    engine.input_buffers["x"][:] = [[1, 2], [3, 4]]
    for slot in (0, 1, 5):
        engine.hold({"o": offset(10 * slot)}, slot)
    for slot in (5, 1, 5, 0):
        assert engine.run({}, slot)["y"][0, 0] == 1 + 10 * slot
    engine.hold({"o": offset(40)}, 1)
    assert [engine.run({}, slot)["y"][0, 0] for slot in (0, 1, 5)] == [1, 41, 51]


def test_an_engine_takes_another_engines_output_as_input(graph, backend):
    first, second = (
        load_engine(graph, backend, dimensions={"side": 1}),
        load_engine(graph, backend, dimensions={"side": 1}),
    )
    first.input_buffers["x"][:] = 3
    passed = first.run({"o": offset(1)})["y"]
    assert second.run({"o": passed})["y"].tolist() == [[4]]
    first.input_buffers["x"][:] = 8
    first.run({})
    assert second.run({"o": passed})["y"].tolist() == [[8]], "the buffer is shared, not copied"


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"z": np.zeros((2, 2), np.uint8)}, "no input 'z', expected x, o"),
        ({"x": np.zeros((3, 2), np.uint8)}, r"input x is uint8 \(3, 2\), expected uint8 \(2, 2\)"),
        ({"x": np.zeros((2, 2), np.float32)}, "input x is float32"),
    ],
)
def test_wrong_inputs_are_refused_and_nothing_is_lost(graph, backend, inputs, complaint):
    engine = load_engine(graph, backend, dimensions={"side": 2})
    engine.input_buffers["x"][:] = 5
    for call in (engine.run, engine.hold):
        with pytest.raises(LightTrackError, match=complaint):
            call(inputs)
    assert engine.run({})["y"].tolist() == [[5, 5], [5, 5]]


def test_the_error_names_a_graph_that_cannot_be_loaded(graph, backend, tmp_path):
    with pytest.raises(LightTrackError, match=r"none\.onnx: no such graph"):
        load_engine(tmp_path / "none.onnx")
    with pytest.raises(LightTrackError, match=r"backend is 'abacus', expected one of auto, onnxruntime"):
        load_engine(graph, "abacus")
    with pytest.raises(LightTrackError, match=r"x has free dimensions \['side', 'side'\]"):
        load_engine(graph, backend)
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    with pytest.raises(LightTrackError, match=r"rubbish\.onnx: (ONNX Runtime cannot load it|cannot be read)"):
        load_engine(tmp_path / "rubbish.onnx", backend)


def test_negative_threads_are_refused(graph, backend):
    with pytest.raises(LightTrackError, match="threads is -1, expected 0"):
        load_engine(graph, backend, -1, {"side": 2})


def test_closing_twice_is_safe(graph, backend):
    engine = load_engine(graph, backend, dimensions={"side": 2})
    engine.close()
    engine.close()


def test_openvino_matches_onnx_runtime(mobile):
    """The bounds hold on processors with and without bfloat16."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    generator = np.random.default_rng(0)
    crop = cv2.resize(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    template = np.ascontiguousarray(crop[64:192, 64:192])
    scores = {}
    for backend in ("onnxruntime", "openvino"):
        kept = load_engine(mobile / "template.onnx", backend, 1, {"side": 128}).run({"crop": template})
        found = load_engine(mobile / "search.onnx", backend, 1, {"side": 256}).run({"crop": crop, **kept})
        scores[backend] = 1 / (1 + np.exp(-found["logits"]))
    np.testing.assert_allclose(scores["openvino"], scores["onnxruntime"], atol=0.05)
    assert scores["onnxruntime"].max() > 0.5
