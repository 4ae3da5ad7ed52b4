"""Export a DyTrack network as the ONNX graphs of a model folder: one for the template, one for each stage."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lighttrack_ros.export.graphs import (
    Difference,
    OnBytes,
    compare_graph,
    export_graph,
    normalised,
    random_crop,
    with_folded_normalisation,
)
from lighttrack_ros.networks.dytrack import DyTrack, Passed, TemplateShare
from lighttrack_ros.networks.transformer import KeysValues


@torch.no_grad()
def export_dytrack(network: DyTrack, template_graph: Path, stage_graphs: Sequence[Path]) -> list[Difference]:
    """Write the graphs of a DyTrack network and compare them with all exits of its forward pass.

    The template graph takes `crop`, (side, side, 3) uint8 BGR. For every stage s it gives `mean_<s>`, and
    `keys_<s>_<b>` and `values_<s>_<b>` of each of the stage's blocks.

    Stage graph s takes these. In addition the first stage takes `crop`; the others take `tokens`, `features`,
    `centre` and `quality`, which the stage before gives as `next_tokens` and so on. Each gives `box` (1, 4): centre x,
    centre y, width, height in units of the crop's side, and `next_quality` (1,), 0..1, the expected overlap of the
    box with the true box.

    Args:
        network: any device and mode; it is not changed.
        template_graph: file to write.
        stage_graphs: files to write, one per exit.

    Raises:
        LightTrackError: an output differs by more than a thousandth of its largest value.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    on_bytes = with_folded_normalisation(network, "patch_embed.proj")

    crop = random_crop(network.architecture.template_size)
    shares = network.template_shares(normalised(crop))
    held = [_held(index, share) for index, share in enumerate(shares)]
    outputs = {name: tensor for stage in held for name, tensor in stage.items()}
    export_graph(_Template(on_bytes), (crop,), template_graph, ["crop"], list(outputs))
    differences = compare_graph(template_graph, {"crop": crop}, outputs)

    crop = random_crop(network.architecture.search_size)
    inputs = {"crop": crop}
    before: Tensor | Passed = normalised(crop)
    for index, path in enumerate(stage_graphs):
        before, prediction = network.stage(index, before, shares[index])
        outputs = {"box": prediction.box, "next_quality": before.quality}
        if index + 1 < len(stage_graphs):
            outputs = {"box": prediction.box} | {f"next_{name}": value for name, value in before._asdict().items()}
        inputs |= held[index]
        export_graph(_Stage(on_bytes, index), tuple(inputs.values()), path, list(inputs), list(outputs))
        differences += compare_graph(path, inputs, outputs)
        inputs = before._asdict()
    return differences


def _held(stage: int, share: TemplateShare) -> dict[str, Tensor]:
    """A stage's share of the template, by tensor names of the graphs."""
    named: dict[str, Tensor] = {}
    for block, (keys, values) in enumerate(share.keys_values):
        named |= {f"keys_{stage}_{block}": keys, f"values_{stage}_{block}": values}
    return named | {f"mean_{stage}": share.mean}


class _Template(OnBytes):
    def __init__(self, network: DyTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor) -> tuple[Tensor, ...]:
        shares = self.network.template_shares(self.image(crop))
        return tuple(tensor for index, share in enumerate(shares) for tensor in _held(index, share).values())


class _Stage(OnBytes):
    def __init__(self, network: DyTrack, index: int) -> None:
        super().__init__()
        self.network = network
        self.index = index

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        count = 1 + 2 * len(self.network.architecture.blocks_of(self.index))
        given, (*cache, mean) = inputs[:-count], inputs[-count:]
        keys_values = [KeysValues(*pair) for pair in zip(cache[::2], cache[1::2], strict=True)]
        before = Passed(*given) if self.index else self.image(given[0])
        # The template's tokens are for training only; `mean` fills their place.
        passed, prediction = self.network.stage(self.index, before, TemplateShare(keys_values, mean, mean))
        last = self.index + 1 == len(self.network.exits)
        return (prediction.box, passed.quality) if last else (prediction.box, *passed)
