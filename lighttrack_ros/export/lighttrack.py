"""Export a LightTrack network as the ONNX graphs of a model folder."""

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
from lighttrack_ros.networks.lighttrack import LightTrack

_FREE = {"crop": {0: "side", 1: "side"}, **{name: {2: "n", 3: "n"} for name in ("logits", "distances", "features")}}


@torch.no_grad()
def export_lighttrack(
    network: LightTrack, template_graph: Path, search_graph: Path, template_size: int, search_sizes: Sequence[int]
) -> list[Difference]:
    """Write the two graphs of a LightTrack network and compare them with it on random crops.

    Both take `crop`, (side, side, 3) uint8 BGR with the free dimension `side`. The template graph gives
    `template_features` (1, cells, channels); it contains everything that depends on the template alone. The search
    graph also takes these, and gives `logits` (1, 1, n, n), `distances` (1, 4, n, n) and `features`
    (1, channels, n, n): the search features that are matched with the template, from which a session knows the
    target's appearance.

    Args:
        network: any device and mode; it is not changed.
        template_graph, search_graph: files to write.
        template_size, search_sizes: sides of the crops, for the comparison.

    Raises:
        LightTrackError: an output differs by more than a thousandth of its largest value.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    on_bytes = with_folded_normalisation(network, "features.conv_stem")
    template, search = _Template(on_bytes), _Search(on_bytes)
    crop = torch.zeros(template_size, template_size, 3, dtype=torch.uint8)
    export_graph(template, (crop,), template_graph, ["crop"], ["template_features"], _FREE)
    inputs, outputs = ["crop", "template_features"], ["logits", "distances", "features"]
    export_graph(search, (crop, template(crop)), search_graph, inputs, outputs, _FREE)

    crop = random_crop(template_size)
    features = network.template_features(normalised(crop))
    free = {"side": template_size}
    differences = compare_graph(template_graph, {"crop": crop}, {"template_features": features}, free)
    for side in search_sizes:
        crop = random_crop(side)
        image = normalised(crop)
        logits, distances = network(features, image)
        differences += compare_graph(
            search_graph,
            {"crop": crop, "template_features": features},
            {"logits": logits, "distances": distances, "features": network.search_features(image)},
            {"side": side},
        )
    return differences


class _Template(OnBytes):
    def __init__(self, network: LightTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor) -> Tensor:
        return self.network.template_features(self.image(crop))


class _Search(OnBytes):
    def __init__(self, network: LightTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor, template_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.network.search_features(self.image(crop))
        return *self.network.match(template_features, features), features
