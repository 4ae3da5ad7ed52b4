"""Export a PyTorch module as an ONNX graph that takes bytes, and compare the graph with PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import MEAN, STD
from lighttrack_ros.runtime import load_engine

OPSET = 17
_Network = TypeVar("_Network", bound=nn.Module)
_TOLERANCE = 1e-3  # of the largest value of an output; fp32 graphs differ a hundred times less


class Difference(NamedTuple):
    """The difference between one output of a graph and PyTorch's."""

    graph: str  # file name, with the sizes of its free dimensions in the comparison
    output: str
    largest: float  # absolute difference
    scale: float  # largest absolute value


def export_graph(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    free: Mapping[str, Mapping[int, str]] = MappingProxyType({}),
) -> None:
    """Write a module as an ONNX graph; `free` names dimensions of inputs and outputs that stay open."""
    with warnings.catch_warnings():
        # The tracing exporter warns that it is deprecated; it folds batch norms and needs no other package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            arguments,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: dict(axes) for name, axes in free.items() if name in inputs + outputs},
            opset_version=OPSET,
            dynamo=False,
        )


def normalised(crop: Tensor) -> Tensor:
    """The paper's network input, RGB and normalised, from a uint8 HWC BGR crop."""
    rgb = crop.flip(2).permute(2, 0, 1).unsqueeze(0) / 255
    return (rgb - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def random_crop(side: int) -> Tensor:
    """An image of smooth blobs and noise, which gives features as large as a photo does."""
    generator = torch.Generator().manual_seed(side)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    image = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") * 230
    image = image + 25 * torch.rand(image.shape, generator=generator)
    return image[0].permute(1, 2, 0).contiguous().to(torch.uint8)


def compare_graph(
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    dimensions: Mapping[str, int] = MappingProxyType({}),
) -> list[Difference]:
    """Run a graph on ONNX Runtime and compare it with PyTorch's outputs for the same inputs.

    Raises:
        LightTrackError: an output differs by more than a thousandth of its largest value.
    """
    engine = load_engine(path, "onnxruntime", threads=1, dimensions=dimensions)
    got = engine.run({name: tensor.numpy() for name, tensor in inputs.items()})
    graph = path.name + "".join(f", {name} {size}" for name, size in dimensions.items())
    differences = []
    for name, tensor in outputs.items():
        expected = tensor.numpy()
        largest, scale = float(np.abs(got[name] - expected).max()), float(np.abs(expected).max())
        if not largest <= _TOLERANCE * scale:  # the negation is true for nan as well
            raise LightTrackError(f"{graph}: output {name} differs by {largest:.3g} from PyTorch's {scale:.3g}")
        differences.append(Difference(graph, name, largest, scale))
    engine.close()
    return differences


class OnBytes(nn.Module):
    """Base of modules that take bytes: converts uint8 HWC BGR to the input of a network with folded normalisation."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).flip(0).view(1, 3, 1, 1))

    def image(self, crop: Tensor) -> Tensor:
        """(1, 3, side, side) float32 of (side, side, 3) uint8 BGR."""
        # Transpose the bytes first, subtract last: the other order is twenty times slower on ONNX Runtime.
        return crop.permute(2, 0, 1).unsqueeze(0).float() - self.mean


def with_folded_normalisation(network: _Network, first: str) -> _Network:
    """A copy of the network; its first convolution (by name) includes the swap to RGB and the division by 255 STD.

    The mean must be subtracted before the convolution, because the convolution may pad with zeros.
    """
    network = copy.deepcopy(network)
    convolution = network.get_submodule(first)
    scaled = cast(nn.Conv2d, convolution).weight / (255 * torch.tensor(STD).view(1, 3, 1, 1))
    convolution.weight = nn.Parameter(scaled.flip(1))
    return network
