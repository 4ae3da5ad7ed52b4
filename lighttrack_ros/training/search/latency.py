"""How long a path takes on this device: each layer of the supernet is measured once, a path's time is their sum.

A layer by itself also pays for entering and leaving the memory layout that the backend prefers, which inside a network
its neighbours share; and a run costs something by itself. Two constants account for both: they are fitted on a few
whole networks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export.graphs import OnBytes, export_graph, with_folded_normalisation
from lighttrack_ros.networks.lighttrack import LightTrack
from lighttrack_ros.runtime import Engine, load_engine
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.space import Space, timed_layers

_WARM_UP = 3  # runs that are not counted
_CALM = 25  # percentile of the rounds that is taken: others work on the machine, too


@dataclass(frozen=True)
class LatencyModel:
    """Predicts a path's time, ms a frame, of the search network (crop in, maps out).

    Attributes:
        table: name of a layer -> ms of it alone.
        share: of the layers' sum that a network takes.
        fixed: ms that a network takes besides.
    """

    table: dict[str, float]
    share: float
    fixed: float

    def predict(self, path: str) -> float:
        return self.share * self.total(path) + self.fixed

    def total(self, path: str) -> float:
        """The sum of a path's layers, each measured alone."""
        return sum(self.table[name] for name in timed_layers(path))


@dataclass(frozen=True)
class Timing:
    """Where things are measured.

    Attributes:
        backend, threads: of `runtime.load_engine`.
        side: of the search crop, pixels.
        rounds: all that is compared runs in turn, so many times.
    """

    backend: str = "onnxruntime"
    threads: int = 1
    side: int = 256
    rounds: int = 30


def measure_latency(supernet: Supernet, space: Space, timing: Timing, paths: int = 8, seed: int = 0) -> LatencyModel:
    """Measure every layer alone, and so many random paths as a whole to fit the two constants.

    Raises:
        LightTrackError: the backend cannot run a layer, or fewer than two paths are asked for.
    """
    if paths < 2:
        raise LightTrackError(f"{paths} paths, expected 2 or more to fit two constants")
    table = measure_layers(supernet, timing)
    rng = np.random.default_rng(seed)
    chosen = [space.random_path(rng) for _ in range(paths)]
    measured = measure_paths(supernet, chosen, timing)
    return fitted(table, chosen, measured)


def fitted(table: dict[str, float], paths: Sequence[str], measured: Sequence[float]) -> LatencyModel:
    """The constants by least squares of the relative errors."""
    sums = np.array([LatencyModel(table, 1, 0).total(path) for path in paths])
    times = np.array(measured)
    terms = np.stack([sums, np.ones_like(sums)], 1) / times[:, None]
    (share, fixed), *_ = np.linalg.lstsq(terms, np.ones_like(times), rcond=None)
    return LatencyModel(table, float(share), float(fixed))


@torch.no_grad()
def measure_layers(supernet: Supernet, timing: Timing) -> dict[str, float]:
    """Name of each layer, see `timed_layers`, -> ms of it alone."""
    supernet.eval()
    with tempfile.TemporaryDirectory(prefix="lighttrack-search-") as scratch:
        engines = {}
        for number, (name, shape) in enumerate(_input_shapes(supernet, timing.side).items()):
            graph = Path(scratch) / f"{number}.onnx"
            layer = supernet.layers[name.removesuffix(" @8")]
            arguments: tuple[Tensor, ...] = (torch.zeros(shape),)
            module: nn.Module = layer
            if name == "stem":
                module = nn.Sequential(layer, nn.Hardswish())
            elif name.startswith(("cls", "reg")) and len(name.removesuffix(" @8").split()) == 2:
                (module,) = layer.children()  # the prediction: its container has no forward of its own
            elif name.startswith("fusion"):
                module = _Fusion(layer)
                cells: int = layer.fusion.pw_corr.CA_layer.fc1.in_channels  # type: ignore[union-attr,assignment]
                arguments = (torch.zeros(1, cells, shape[1]), torch.zeros(shape))
            inputs = ["template", "x"][-len(arguments) :]
            export_graph(module, arguments, graph, inputs, ["y"])
            engines[name] = _engine(graph, timing)
        return dict(zip(engines, _time(list(engines.values()), timing), strict=True))


@torch.no_grad()
def measure_paths(supernet: Supernet, paths: Sequence[str], timing: Timing) -> list[float]:
    """ms of each path's search network as a whole."""
    supernet.eval()
    with tempfile.TemporaryDirectory(prefix="lighttrack-search-") as scratch:
        engines = []
        for number, path in enumerate(paths):
            graph = Path(scratch) / f"{number}.onnx"
            network = with_folded_normalisation(supernet.network(path), "features.conv_stem")
            crop = torch.zeros(timing.side, timing.side, 3, dtype=torch.uint8)
            template = network.template_features(torch.zeros(1, 3, 128, 128))
            export_graph(_Search(network), (crop, template), graph, ["crop", "template"], ["logits", "distances"])
            engines.append(_engine(graph, timing))
        return _time(engines, timing)


def _input_shapes(supernet: Supernet, side: int) -> dict[str, tuple[int, ...]]:
    """Name of each layer -> shape of its input, batch first."""
    sides, eighth = (side // 2, side // 4, side // 8, side // 16), "fusion 40" in supernet.layers
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in supernet.layers.items():
        module: Any = layer
        kind, *rest = name.split()
        if name == "stem":
            shape = (1, 3, side, side)
        elif name == "first":
            shape = (1, module.conv_dw.in_channels, side // 2, side // 2)
        elif kind == "fusion":
            n = side // (8 if rest == ["40"] else 16)
            shape = (1, int(rest[0]), n, n)
        elif kind in ("cls", "reg"):
            first = module.conv1 if len(rest) == 3 else next(module.children())
            shape = (1, first.in_channels, side // 16, side // 16)
            if eighth:
                shapes[f"{name} @8"] = (1, first.in_channels, side // 8, side // 8)
        else:
            stage, block = map(int, kind.split("-"))
            entered = sides[stage] if block == 0 else sides[min(stage + 1, 3)]
            shape = (1, module.conv_pw.in_channels, entered, entered)
        shapes[name] = shape
    return shapes


def _engine(graph: Path, timing: Timing) -> Engine:
    engine = load_engine(graph, timing.backend, timing.threads)
    generator = np.random.default_rng(0)
    for buffer in engine.input_buffers.values():  # zeros might be quicker
        noise = generator.standard_normal(buffer.shape)
        buffer[...] = 127 + 50 * noise if buffer.dtype == np.uint8 else noise
    return engine


def _time(engines: Sequence[Engine], timing: Timing) -> list[float]:
    """ms of each, all in turn, so that what else the machine does falls on all of them.

    One thread on the processor is measured by its processor time, which others disturb less; all else by the clock.
    """
    alone = timing.threads == 1 and not timing.backend.startswith(("auto", "tensorrt"))
    clock = time.thread_time if alone else time.perf_counter
    times = np.zeros((timing.rounds, len(engines)))
    for number in tqdm(range(-_WARM_UP, timing.rounds), unit="round", leave=False, disable=None):
        for column, engine in enumerate(engines):
            started = clock()
            for output in engine.run({}).values():
                np.asarray(output)  # waits for what runs beside the processor
            if number >= 0:
                times[number, column] = 1e3 * (clock() - started)
    for engine in engines:
        engine.close()
    return [float(value) for value in np.percentile(times, _CALM, axis=0)]


class _Search(OnBytes):
    def __init__(self, network: LightTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.match(template, self.network.search_features(self.image(crop)))


class _Fusion(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, template: Tensor, x: Tensor) -> Tensor:
        fused: Tensor = self.layer.fusion(template, self.layer.neck.BN_x(x))
        return fused
