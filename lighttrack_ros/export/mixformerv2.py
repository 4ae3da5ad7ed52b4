"""Export MixFormerV2 as the ONNX graphs of a model folder: one per block for the templates, one for each frame."""

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
from lighttrack_ros.networks.mixformerv2 import MixFormerV2
from lighttrack_ros.networks.transformer import KeysValues


@torch.no_grad()
def export_mixformerv2(network: MixFormerV2, template_graphs: Sequence[Path], search_graph: Path) -> list[Difference]:
    """Write the graphs of a MixFormerV2 network and compare them with its full forward pass.

    Template graph b is block b of the templates' share. The first takes `template` and `online_template`,
    (side, side, 3) uint8 BGR; the others take `tokens`, which the one before gives as `next_tokens`. Each gives
    `keys` and `values` (1, heads, 2 * template tokens, 64), and all but the last `next_tokens`
    (1, 2 * template tokens, channels).

    The search graph takes `crop`, (side, side, 3) uint8 BGR, and `keys_0`, `values_0`, ... of every block. It
    gives `box` (1, 4): centre x, centre y, width, height in units of the crop's side, and `score` (1,), 0..1.

    Args:
        network: any device and mode; it is not changed.
        template_graphs: files to write, one per block.
        search_graph: file to write.

    Raises:
        LightTrackError: an output differs by more than a thousandth of its largest value.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    architecture = network.architecture
    side = architecture.template_size
    template, online_template = random_crop(side), random_crop(side).flip(0)
    search = random_crop(architecture.search_size)
    on_bytes = with_folded_normalisation(network, "backbone.patch_embed.proj")

    differences = []
    inputs = {"template": template, "online_template": online_template}
    tokens = network.template_tokens(normalised(template), normalised(online_template))
    cache: dict[str, Tensor] = {}
    for index, path in enumerate(template_graphs):
        tokens, (keys, values) = network.template_block(index, tokens)
        outputs = {"keys": keys, "values": values}
        if index + 1 < architecture.depth:
            outputs["next_tokens"] = tokens
        block = _TemplateBlock(on_bytes, index)
        export_graph(block, tuple(inputs.values()), path, list(inputs), list(outputs))
        differences += compare_graph(path, inputs, outputs)
        inputs = {"tokens": tokens}
        cache |= {f"keys_{index}": keys, f"values_{index}": values}

    inputs = {"crop": search, **cache}
    box, logit = network(*(normalised(crop) for crop in (template, online_template, search)))
    outputs = {"box": box, "score": logit.sigmoid()}
    export_graph(_Search(on_bytes), tuple(inputs.values()), search_graph, list(inputs), list(outputs))
    return differences + compare_graph(search_graph, inputs, outputs)


class _TemplateBlock(OnBytes):
    def __init__(self, network: MixFormerV2, index: int) -> None:
        super().__init__()
        self.network = network
        self.index = index

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tokens = self.network.template_tokens(*map(self.image, inputs)) if self.index == 0 else inputs[0]
        tokens, (keys, values) = self.network.template_block(self.index, tokens)
        last = self.index + 1 == self.network.architecture.depth
        return (keys, values) if last else (keys, values, tokens)


class _Search(OnBytes):
    def __init__(self, network: MixFormerV2) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor, *cache: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(cache[::2], cache[1::2], strict=True)
        box, logit = self.network.track(self.image(crop), [KeysValues(*pair) for pair in pairs])
        return box, logit.sigmoid()
