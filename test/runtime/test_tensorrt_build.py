"""Checks of TensorRT without a GPU: its real builder compiles every graph, and the doubles match the real bindings.

The builder is TensorRT for RTX's, which has TensorRT's interface and compiles on machines without a GPU.
"""

import dataclasses
import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from gpu_double import Gpu, cuda_bindings_module, tensorrt_module

from lighttrack_ros.models import load_model
from lighttrack_ros.runtime import build
from lighttrack_ros.runtime.conversion import CROPS, convert, paired
from lighttrack_ros.runtime.onnxruntime import OnnxRuntimeEngine
from lighttrack_ros.runtime.ranges import Ranges

AMPERE, ADA = (8, 6), (8, 9)
NANO = Path(__file__).resolve().parents[2] / "engines/lighttrack_nano"


@pytest.fixture(scope="module")
def trt():
    return pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu12 (pip install '.[test]' on x86_64)")


@pytest.fixture(scope="module")
def graphs_of(tmp_path_factory):
    """Graphs by model, each with the sizes of its free dimensions."""
    torch = pytest.importorskip("torch")
    from lighttrack_ros.export.dytrack import export_dytrack
    from lighttrack_ros.export.mixformerv2 import export_mixformerv2
    from lighttrack_ros.networks import dytrack, mixformerv2

    @functools.cache
    def graphs(name):
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        if name == "lighttrack":
            model = load_model(NANO)
            searches = [(model.search_graph, {"side": side}) for side in model.search_sizes]
            searches.append((model.search_graph, {"side": 160, CROPS: 2}))
            return [(model.template_graph, {"side": model.template_size}), *searches]
        if name == "mixformerv2":
            architecture = dataclasses.replace(mixformerv2.SMALL, depth=2)  # all blocks are alike
            network = mixformerv2.MixFormerV2(architecture).eval()
            templates = [folder / f"template_{block}.onnx" for block in range(architecture.depth)]
            searches = [folder / "search.onnx"]
            export_mixformerv2(network, templates, searches[0])
        else:
            exits = (1, 2, 4, 5)
            architecture = dytrack.Architecture(
                channels=128, exit_channels=24, exits=exits, template_size=64, search_size=128
            )
            network = dytrack.DyTrack(architecture).eval()
            templates, searches = [folder / "template.onnx"], [folder / f"stage_{i}.onnx" for i in range(len(exits))]
            export_dytrack(network, templates[0], searches)
        return [(graph, {}) for graph in (*templates, *searches)]

    return graphs


@pytest.mark.parametrize("name", ["lighttrack", "mixformerv2", "dytrack"])
def test_every_graph_compiles_in_every_precision(trt, graphs_of, name):
    log = build.tensorrt_log(trt)
    for graph, dimensions in graphs_of(name):
        reference = reference_of(graph, dimensions)
        for precision in ("fp32", "fp16", "int8"):
            model = convert(graph, dimensions, precision, any_ranges(graph))
            network = parsed(trt, log, model)
            assert network_specs(network) == dict(reference.inputs) | dict(reference.outputs)
            layers = [network.get_layer(index) for index in range(network.num_layers)]
            kinds = {layer.type for layer in layers}
            assert not any("PLUGIN" in kind.name for kind in kinds), kinds
            for layer in layers:
                if layer.type == trt.LayerType.NORMALIZATION:
                    assert layer.get_output(0).dtype == trt.DataType.FLOAT  # in fp16 its sums may overflow
                if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY):
                    wanted = trt.DataType.FLOAT if precision == "fp32" else trt.DataType.HALF
                    assert layer.get_output(0).dtype == wanted, layer.name
                if layer.type == trt.LayerType.QUANTIZE:
                    assert layer.get_output(0).dtype == trt.DataType.INT8
            assert (trt.LayerType.QUANTIZE in kinds) == (precision == "int8")
            plan, timings = build.build_plan(trt, model, precision, compute_capability=AMPERE)
            assert len(plan) > 10_000
            assert timings == b""  # this TensorRT keeps none


def test_the_plan_is_for_the_requested_gpu(trt):
    model = convert(NANO / "template.onnx", {"side": 128}, "fp16")
    plans = [build.build_plan(trt, model, "fp16", compute_capability=capability)[0] for capability in (AMPERE, ADA)]
    assert plans[0] != plans[1]


def test_a_refused_graph_raises_the_builders_messages(trt):
    bytes_first = (NANO / "template.onnx").read_bytes()  # as exported: bytes go into a transpose
    with pytest.raises(build.LightTrackError, match=r"(?s)TensorRT cannot parse the graph: .*UInt8"):
        build.build_plan(trt, bytes_first, "fp32", compute_capability=AMPERE)


def test_the_builder_reports_progress_and_can_be_stopped(trt):
    texts = []

    class Told(build.Progress):
        class Phases(dict):
            def __setitem__(self, phase, steps):
                super().__setitem__(phase, steps)
                texts.append(progress.text())

        def __init__(self):
            super().__init__()
            self.phases = self.Phases()

    model = convert(NANO / "template.onnx", {"side": 128}, "fp16")
    progress = Told()
    build.build_plan(trt, model, "fp16", progress=progress, compute_capability=AMPERE)
    assert len(texts) > 20
    assert all(re.fullmatch(r", [A-Z][a-z ]+ \d+/\d+", text) for text in texts)
    assert progress.phases == {}  # each has ended
    steps = len(texts)
    texts.clear()
    progress.stop = True
    with pytest.raises(build.LightTrackError, match=r"(?i)cancel"):
        build.build_plan(trt, model, "fp16", progress=progress, compute_capability=AMPERE)
    assert len(texts) < steps / 2


@pytest.mark.parametrize("name", ["lighttrack", "mixformerv2", "dytrack"])
def test_conversion_keeps_the_networks_outputs(graphs_of, name):
    """fp32 matches to the last bits. fp16 tests only the weights' rounding: ONNX Runtime on the CPU sums in fp32."""
    rng = np.random.default_rng(0)
    for graph, dimensions in graphs_of(name):
        engine = reference_of(graph, dimensions)
        inputs = {
            name: rng.integers(0, 256, spec.shape, np.uint8)
            if spec.dtype == np.uint8
            else rng.standard_normal(spec.shape, np.float32)
            for name, spec in engine.inputs.items()
        }
        expected = engine.run(inputs)
        for precision, tolerance in (("fp32", 1e-4), ("fp16", 3e-2)):
            session = ort.InferenceSession(convert(graph, dimensions, precision), providers=["CPUExecutionProvider"])
            outputs = dict(zip(engine.outputs, session.run(list(engine.outputs), inputs), strict=True))
            for output, array in outputs.items():
                scale = np.abs(expected[output]).max()
                assert np.abs(array - expected[output]).max() <= tolerance * scale, (graph.name, output, precision)


def test_the_tensorrt_double_has_the_signatures_of_tensorrt_for_rtx(trt):
    compare_signatures({(kind, name): getattr(getattr(trt, kind), name).__doc__ for kind, name in double_methods()})
    assert [pair for pair in double_names() if not hasattr(getattr(trt, pair[0]), pair[1])] == []


def test_the_tensorrt_double_has_the_signatures_of_tensorrt(tmp_path):
    """Compared with NVIDIA's bindings wheel; the libraries behind it (gigabytes) are replaced by empty functions."""
    package = find_spec("tensorrt_bindings")
    compiler = shutil.which("cc")
    if package is None or compiler is None or not shutil.which("nm") or not shutil.which("readelf"):
        pytest.skip("needs tensorrt-cu12-bindings, a C compiler and binutils")
    (binary,) = Path(package.origin).parent.glob("tensorrt*.so")
    needed = re.findall(r"\[(libnv\S+)\]", run("readelf", "-d", binary))
    undefined = [line.split() for line in run("nm", "-D", "--undefined-only", binary).splitlines()]
    functions = [name for kind, name in undefined if kind == "U" and re.fullmatch(r"(create|get|init)[A-Z]\w+", name)]
    (tmp_path / "empty.c").write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in functions))
    for library in needed:
        options = ["-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", tmp_path / library]
        run(compiler, *options, tmp_path / "empty.c")
    methods = [list(pair) for pair in double_methods()]
    script = (
        "import json, tensorrt as trt\n"
        f"docs = [getattr(getattr(trt, kind), name).__doc__ for kind, name in {methods!r}]\n"
        f"missing = [pair for pair in {double_names()!r} if not hasattr(getattr(trt, pair[0]), pair[1])]\n"
        "print(json.dumps([docs, missing]))"
    )
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(binary.parent)}
    docs, missing = json.loads(run(sys.executable, "-c", script, env=environment))
    compare_signatures(dict(zip(double_methods(), docs, strict=True)))
    assert missing == []


def test_the_cuda_double_has_the_signatures_of_cuda_bindings():
    driver = pytest.importorskip("cuda.bindings.driver")
    double = cuda_bindings_module(Gpu())
    functions = [name for name in vars(double) if re.match(r"cu[A-Z]", name)]
    assert len(functions) > 25
    for name in functions:
        (arguments,) = re.findall(rf"^{name}\((.*)\)", getattr(driver, name).__doc__)
        real = [re.split(r"[ :]", argument.split(":")[0].strip())[-1] for argument in arguments.split(",") if argument]
        assert real == list(inspect.signature(getattr(double, name)).parameters), name
    for name in ("CUresult", "CUdevice_attribute", "CUstreamCaptureMode", "CUstream_flags", "CUevent_flags"):
        for member in getattr(double, name):
            assert getattr(getattr(driver, name), member.name).value == member.value
    assert driver.CU_MEMHOSTALLOC_DEVICEMAP == double.CU_MEMHOSTALLOC_DEVICEMAP


EVERY_CALL = """
import numpy as np
from lighttrack_ros.runtime.cuda import open_cuda

cuda = open_cuda()
assert cuda.device == ("Stub", (8, 7), True, {driver}), cuda.device
with cuda.current():
    device, host, stream = cuda.allocate(800), cuda.allocate_host(400), cuda.create_stream()
    assert cuda.stream_address(stream) > 0
    assert host.array.shape == (400,) and not host.array.any()
    sent, received = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    cuda.upload(device, sent, stream)
    cuda.copy(device + 400, device, 400, stream)
    cuda.download(received, device + 400, stream)
    cuda.upload(host.address, sent, stream)
    cuda.synchronize(stream)
    assert (received == sent).all() and (host.array.view(np.float32) == sent).all()
    cuda.begin_capture(stream)
    graph = cuda.end_capture(stream)
    cuda.launch(graph, stream)
    cuda.destroy_graph(graph)
    start, end = cuda.create_event(), cuda.create_event()
    cuda.record(start, stream)
    cuda.record(end, stream)
    try:
        print(cuda.milliseconds(start, end))
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
    cuda.destroy_event(start)
    cuda.destroy_event(end)
    cuda.free(device)
    cuda.free_host(host)
    cuda.destroy_stream(stream)
cuda.close()
"""


@pytest.mark.parametrize("driver", [12060, 13000])
def test_the_real_cuda_bindings_pass_every_call_to_the_driver(tmp_path, driver):
    """For the drivers of JetPack 6 and 7; cuda_stub.c, in C, checks the arguments that arrive."""
    bindings, compiler = pytest.importorskip("cuda.bindings"), shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    options = ["-shared", "-fPIC", f"-DDRIVER={driver}", "-Wl,-soname,libcuda.so.1", "-o", tmp_path / "libcuda.so.1"]
    run(compiler, *options, Path(__file__).parents[1] / "cuda_stub.c", "-ldl")
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    said = run(sys.executable, "-c", EVERY_CALL.format(driver=driver), env=environment).strip()
    if driver < 12080 and int(bindings.__version__.split(".")[0]) >= 13:  # there it wants a function of CUDA 12.8
        assert re.match(r"LightTrackError: CUDA: cuEventElapsedTime: .*'cuda-python==12\.\*' on JetPack 6", said), said
    else:
        assert said == "2.5"


def reference_of(graph, dimensions):
    return OnnxRuntimeEngine(graph, dimensions, 1, model=paired(graph) if CROPS in dimensions else None)


def any_ranges(graph):
    """Any range for every tensor: whether a graph compiles does not depend on the values."""
    names = {name for node in onnx.load(graph).graph.node for name in [*node.input, *node.output]}
    return Ranges("", 1, (), dict.fromkeys(names, (-8.0, 8.0)))


def parsed(trt, log, model):
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model), [parser.get_error(index).desc() for index in range(parser.num_errors)]
    return network


def network_specs(network):
    dtypes = {"FLOAT": np.float32, "UINT8": np.uint8}
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    return {tensor.name: (tuple(tensor.shape), np.dtype(dtypes[tensor.dtype.name])) for tensor in tensors}


def double_methods():
    """Class and name of every method of the TensorRT double."""
    double = tensorrt_module(Gpu(), "11.0.0")
    kinds = ["Builder", "INetworkDefinition", "IBuilderConfig", "ITimingCache", "OnnxParser", "ParserError", "Runtime"]
    kinds += ["ICudaEngine", "IExecutionContext"]
    found = []
    for kind in kinds:
        for name, member in vars(getattr(double, kind)).items():
            constructor = name == "__init__" and kind in ("Builder", "OnnxParser", "Runtime")
            if inspect.isfunction(member) and (constructor or not name.startswith("_")):
                found.append((kind, name))
    assert len(found) > 20
    return found


def double_names():
    """Class and name of every constant and attribute of the TensorRT double."""
    double = tensorrt_module(Gpu(), "11.0.0")
    enums = ["NetworkDefinitionCreationFlag", "BuilderFlag", "MemoryPoolType", "TensorIOMode", "DataType"]
    found = [(kind, member.name) for kind in enums for member in getattr(double, kind)]
    found += [("ILogger", name) for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "log")]
    found += [("IProgressMonitor", name) for name in ("phase_start", "step_complete", "phase_finish")]
    return [
        *found,
        ("IBuilderConfig", "progress_monitor"),
        ("ICudaEngine", "num_io_tensors"),
        ("OnnxParser", "num_errors"),
    ]


def compare_signatures(docs):
    """The double has the real parameters, by name, from the first on; further real parameters have defaults."""
    double = tensorrt_module(Gpu(), "11.0.0")
    for (kind, name), doc in docs.items():
        signature = inspect.signature(getattr(getattr(double, kind), name))
        ours = list(signature.parameters)[1:]
        overloads = re.findall(rf"^(?:\d+\. )?{name}\((self.*)\) -> (\S+)", doc, re.MULTILINE)
        assert overloads, (kind, name)
        for arguments, result in overloads:
            real = [argument.strip() for argument in re.split(r", (?=\w+: )", arguments)][1:]
            names = [argument.split(":")[0] for argument in real]
            rest_optional = all("=" in argument for argument in real[len(ours) :])
            if names[: len(ours)] == ours and rest_optional:
                assert (signature.return_annotation == "bool") == (result == "bool"), (kind, name)
                break
        else:
            pytest.fail(f"{kind}.{name}: ours {ours}, real {overloads}")


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options).stdout
