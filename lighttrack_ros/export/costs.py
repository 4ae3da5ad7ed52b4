"""Measure the time of each network per frame on this machine, in one run.

Weights are random, because the time does not depend on them. The variants run in turn, round after round, so that
other load on the machine affects all of them alike; ratios are medians over rounds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lighttrack_ros.export.dytrack import export_dytrack
from lighttrack_ros.export.graphs import OnBytes, export_graph, with_folded_normalisation
from lighttrack_ros.export.lighttrack import export_lighttrack
from lighttrack_ros.export.mixformerv2 import export_mixformerv2
from lighttrack_ros.networks import dytrack, lighttrack, mixformerv2
from lighttrack_ros.runtime import Engine, load_engine

WARM_UP = 2  # rounds that are not counted


@dataclass(frozen=True)
class Cost:
    """The cost of one variant: one way to run one network.

    Attributes:
        parameters, macs: in millions; MACs of convolutions and matrix products.
        median_ms, p95_ms: time of one run.
        ratio: its time divided by that of the model's first row, median over rounds.
    """

    model: str
    what: str
    parameters: float
    macs: float
    median_ms: float
    p95_ms: float
    ratio: float


@dataclass(frozen=True)
class _Variant:
    model: str
    what: str
    parameters: float
    macs: float
    run: Callable[[], object]


class _Load(Protocol):
    def __call__(self, graph: Path, dimensions: Mapping[str, int] = ..., /) -> Engine: ...


def measure(models: list[str], rounds: int, threads: int, backend: str = "onnxruntime") -> list[Cost]:
    """The costs of all variants of some models; see `Cost`."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="lighttrack-bench-") as scratch:
        load = partial(_engine, threads, backend)
        variants = [variant for name in models for variant in MODELS[name](name, Path(scratch), load)]
        times = np.zeros((rounds, len(variants)))
        for number in tqdm(range(-WARM_UP, rounds), unit="round", leave=False, disable=None):
            for column, variant in enumerate(variants):
                started = time.perf_counter()
                variant.run()
                if number >= 0:
                    times[number, column] = 1e3 * (time.perf_counter() - started)
    first = {variant.model: column for column, variant in reversed(list(enumerate(variants)))}
    return [
        Cost(
            variant.model,
            variant.what,
            variant.parameters,
            variant.macs,
            float(np.median(times[:, column])),
            float(np.percentile(times[:, column], 95)),
            float(np.median(times[:, column] / times[:, first[variant.model]])),
        )
        for column, variant in enumerate(variants)
    ]


def _lighttrack(name: str, scratch: Path, load: _Load) -> Iterator[_Variant]:
    # The published network comes first: ratios refer to it.
    for what, path in (("frame", lighttrack.MOBILE), ("lighttrack_nano's frame", lighttrack.NANO)):
        network = lighttrack.LightTrack(lighttrack.Architecture.parse(path)).eval()
        graphs = scratch / f"{name}_{len(path)}_template.onnx", scratch / f"{name}_{len(path)}_search.onnx"
        export_lighttrack(network, *graphs, 128, (256,))
        image, features = torch.zeros(1, 3, 256, 256), network.template_features(torch.zeros(1, 3, 128, 128))
        engine = load(graphs[1], {"side": 256})
        yield _variant(name, what, network, partial(network.forward, features, image), partial(engine.run, {}))


def _mixformerv2(architecture: mixformerv2.Architecture) -> Callable[[str, Path, _Load], Iterator[_Variant]]:
    def variants(name: str, scratch: Path, load: _Load) -> Iterator[_Variant]:
        network = mixformerv2.MixFormerV2(architecture).eval()
        sides = architecture.template_size, architecture.template_size, architecture.search_size
        images = [torch.zeros(1, 3, side, side) for side in sides]

        graph = scratch / f"{name}_full.onnx"
        crops = tuple(torch.zeros(side, side, 3, dtype=torch.uint8) for side in sides)
        whole = _WholeMixFormerV2(with_folded_normalisation(network, "backbone.patch_embed.proj"))
        with torch.no_grad():
            export_graph(whole, crops, graph, ["template", "online_template", "crop"], ["box", "score"])
        full = load(graph)
        yield _variant(name, "frame, as published", network, lambda: network(*images), lambda: full.run({}))

        blocks = [scratch / f"{name}_template_{block}.onnx" for block in range(architecture.depth)]
        graph = scratch / f"{name}_search.onnx"
        export_mixformerv2(network, blocks, graph)
        search = load(graph)
        with torch.inference_mode():
            cache = network.template_cache(*images[:2])
        yield _variant(
            name, "frame, templates kept", network, lambda: network.track(images[2], cache), lambda: search.run({})
        )

        engines = [load(block) for block in blocks]
        yield _variant(
            name,
            f"new templates, in {len(blocks)} steps",
            network,
            lambda: network.template_cache(*images[:2]),
            lambda: [engine.run({}) for engine in engines],
        )

    return variants


def _dytrack(architecture: dytrack.Architecture) -> Callable[[str, Path, _Load], Iterator[_Variant]]:
    def variants(name: str, scratch: Path, load: _Load) -> Iterator[_Variant]:
        network = dytrack.DyTrack(architecture).eval()
        graphs = [scratch / f"{name}_stage_{stage}.onnx" for stage in range(len(architecture.exits))]
        export_dytrack(network, scratch / f"{name}_template.onnx", graphs)
        template, search = (
            torch.zeros(1, 3, side, side) for side in (architecture.template_size, architecture.search_size)
        )
        with torch.inference_mode():
            shares = network.template_shares(template)
        stages = [load(graph) for graph in graphs]

        def count(deepest: int) -> None:
            before: Tensor | dytrack.Passed = search
            for index in range(deepest + 1):
                before, _ = network.stage(index, before, shares[index])

        def track(deepest: int) -> None:
            passed: dict[str, Any] = {}
            for stage in stages[: deepest + 1]:
                outputs = stage.run(passed)
                float(np.asarray(outputs["next_quality"])[0])
                passed = {key.removeprefix("next_"): value for key, value in outputs.items() if key != "box"}

        for exit_ in reversed(range(len(stages))):  # the whole network first: ratios refer to it
            what = f"frame, exit {exit_} (after block {architecture.exits[exit_]})"
            yield _variant(name, what, network, partial(count, exit_), partial(track, exit_))

    return variants


MODELS: dict[str, Callable[[str, Path, _Load], Iterator[_Variant]]] = {
    "lighttrack_mobile": _lighttrack,
    "mixformerv2_small": _mixformerv2(mixformerv2.SMALL),
    "mixformerv2_base": _mixformerv2(mixformerv2.BASE),
    "dytrack_small": _dytrack(dytrack.SMALL),
}


def _variant(
    model: str, what: str, network: nn.Module, forward: Callable[[], object], run_once: Callable[[], object]
) -> _Variant:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        forward()
    parameters = sum(tensor.numel() for tensor in network.parameters())
    return _Variant(model, what, parameters / 1e6, counter.get_total_flops() / 2e6, run_once)


def _engine(threads: int, backend: str, graph: Path, dimensions: Mapping[str, int] | None = None) -> Engine:
    """An engine whose inputs hold noise, because zeros might be faster."""
    engine = load_engine(graph, backend, threads, dimensions)
    generator = np.random.default_rng(0)
    for buffer in engine.input_buffers.values():
        buffer[...] = (
            generator.integers(0, 256, buffer.shape)
            if buffer.dtype == np.uint8
            else generator.standard_normal(buffer.shape)
        )
    return engine


class _WholeMixFormerV2(OnBytes):
    def __init__(self, network: mixformerv2.MixFormerV2) -> None:
        super().__init__()
        self.network = network

    def forward(self, template: Tensor, online_template: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
        box, logit = self.network(self.image(template), self.image(online_template), self.image(crop))
        return box, logit.sigmoid()
