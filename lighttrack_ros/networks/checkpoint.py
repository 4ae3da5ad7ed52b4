"""Load a checkpoint's tensors into a network; every tensor must fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError

_Network = TypeVar("_Network", bound=nn.Module)


def load_strictly(network: _Network, tensors: Mapping[str, Tensor], what: str) -> _Network:
    """Copy a checkpoint's tensors into a network, float16 also into float32; returns it in evaluation mode.

    Args:
        what: description of the network, for the error message.

    Raises:
        LightTrackError: the tensors do not fit; the message names every key that is missing or not expected,
            and every shape that differs.
    """
    expected = network.state_dict()
    faults = [f"missing {name} {tuple(value.shape)}" for name, value in expected.items() if name not in tensors]
    faults += [f"not expected {name} {tuple(value.shape)}" for name, value in tensors.items() if name not in expected]
    faults += [
        f"shape of {name} is {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if faults:
        raise LightTrackError(f"does not fit {what}, {len(faults)} differences:\n  " + "\n  ".join(faults))
    network.load_state_dict(dict(tensors))
    return network.eval()
