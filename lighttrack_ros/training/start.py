"""Start a student from a model folder: read its weights back from its graphs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.models import Model
from lighttrack_ros.networks.checkpoint import load_strictly
from lighttrack_ros.networks.lighttrack import STD, Architecture, LightTrack
from lighttrack_ros.training.folding import fold


def read_graphs(model: Model) -> LightTrack:
    """The network of a LightTrack model folder, batch norms folded as they are in the graphs.

    Raises:
        LightTrackError: the model is of another tracker, the package onnx is missing, or the graphs were not written
            by `lighttrack import` or `export`.
    """
    if model.tracker != "lighttrack" or model.architecture is None:
        raise LightTrackError(f"{model.folder}: a {model.tracker} model; only a LightTrack's weights can be read back")
    network = LightTrack(Architecture.parse(model.architecture), model.template_size).eval()
    fold(network)
    names = dict(network.named_modules())
    state = _weights(model.search_graph, names) | {
        name: tensor for name, tensor in _weights(model.template_graph, names).items() if name.startswith("neck.BN_z.")
    }
    stem = "features.conv_stem.weight"
    if stem in state:  # export folds the swap to RGB and the division by 255 STD into the stem
        state[stem] = state[stem].flip(1) * (255 * torch.tensor(STD).view(1, 3, 1, 1))
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    return load_strictly(network, counters | state, f"the architecture {model.architecture}")


def _weights(graph: Path, modules: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    """Tensors by the network's own names; a folded convolution's are known by the node that uses them."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise LightTrackError("reading a model folder's weights needs the package onnx (pip install onnx)") from error
    content = onnx.load(graph).graph
    tensors = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in content.initializer}
    for node in content.node:
        if node.op_type == "Identity" and node.input[0] in tensors:  # the exporter stores equal tensors once
            tensors[node.output[0]] = tensors[node.input[0]]
    state = {name[len("network.") :]: tensor for name, tensor in tensors.items() if name.startswith("network.")}
    for node in content.node:
        if node.op_type != "Conv" or node.input[1].startswith("network."):
            continue
        name = _module(node.output[0])
        name = name if name in modules else f"head.{name}"
        for key, tensor in zip(("weight", "bias"), node.input[1:], strict=False):
            state[f"{name}.{key}"] = tensors[tensor]
    return state


def _module(output: str) -> str:
    """`/features/blocks/blocks.1/blocks.1.0/conv_pw/Conv_output_0` -> `features.blocks.1.0.conv_pw`."""
    parts: list[str] = []
    for part in output.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):  # inside of containers the exporter repeats their name
            parts.pop()
        parts.append(part)
    return ".".join(parts)
