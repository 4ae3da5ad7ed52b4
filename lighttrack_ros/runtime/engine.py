"""The interface of every backend: engines and their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class TensorSpec(NamedTuple):
    """Shape and dtype of one named input or output; every shape is static."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


# A tensor that an engine takes or returns. Host backends return numpy arrays. Device backends return their
# own buffers: another engine of the same backend takes them by address, and `np.asarray` copies them to the
# host. Code that only passes a tensor on does not need to know which.
Tensor = Any


class Engine(Protocol):
    """One compiled graph with named inputs and outputs; its buffers are allocated once.

    `input_buffers` are host arrays that belong to the engine: write the crop into them in place, and leave
    its name out of `run`'s argument. The next `run` of the same engine overwrites what `run` returned.
    """

    backend: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    input_buffers: Mapping[str, Array]

    def run(self, inputs: Mapping[str, Tensor], slot: int = 0) -> Mapping[str, Tensor]:
        """Run the graph once.

        Args:
            inputs: tensors by name; for a missing name the engine takes what `hold` stored in the slot, or
                `input_buffers[name]`.
            slot: whose held tensors are used: one engine serves several targets, each with a slot of its own.

        Raises:
            LightTrackError: unknown name, wrong shape or dtype.
            EngineError: the backend failed.
        """
        ...

    def hold(self, inputs: Mapping[str, Tensor], slot: int = 0) -> None:
        """Copy tensors into the engine; every later `run` of the slot uses them, until `hold` replaces them.

        For inputs that change rarely, such as template features: the engine that made them may run again in
        between. On a device the copy stays on the device, so `run` uploads nothing again. A slot's memory is allocated
        when it is first held in, and freed with the engine.

        Raises:
            LightTrackError: unknown name, wrong shape or dtype.
        """
        ...

    def close(self) -> None:
        """Free the engine's memory; safe to call twice."""
        ...


# After this many equal runs, with the outputs read, an engine has done all its one-time work: buffers are allocated,
# and on TensorRT the outputs that the host reads are known and the run is recorded as one CUDA graph.
WARM_UP_RUNS = 3


def warm_up(engine: Engine) -> None:
    """Do an engine's one-time work now, on what it holds and has in its buffers."""
    for _ in range(WARM_UP_RUNS):
        for output in engine.run({}).values():
            np.asarray(output)
