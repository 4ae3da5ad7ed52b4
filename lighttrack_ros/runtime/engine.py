"""What every backend offers: engines and their tensors."""

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


# A tensor that an engine takes or returns. Host backends hand out numpy arrays; device backends hand
# out their own buffers, which another engine of the same backend takes by address and which
# `np.asarray` copies to the host. Callers that only pass a tensor on never look inside.
Tensor = Any


class Engine(Protocol):
    """One compiled graph with named inputs and outputs, its buffers allocated once.

    `input_buffers` are host arrays that belong to the engine: write the crop into them in place
    and leave the name out of `run`'s argument. What `run` returns is overwritten by the next `run`
    of the same engine.
    """

    backend: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    input_buffers: Mapping[str, Array]

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run the graph once.

        Args:
            inputs: tensors by name; a missing name means "what `input_buffers[name]` holds now".

        Raises:
            LightTrackError: unknown name, wrong shape or dtype, or a failure of the backend.
        """
        ...

    def hold(self, inputs: Mapping[str, Tensor]) -> None:
        """Copy tensors to where the engine keeps its inputs; `run` finds them there until they are replaced.

        For what changes rarely and whose own engine runs in between. On a device the copy stays there, and
        nothing is uploaded again for `run`.

        Raises:
            LightTrackError: unknown name, wrong shape or dtype.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; safe to call twice."""
        ...


# After so many alike, reads of the outputs included, an engine does nothing for the first time: its buffers are
# allocated, and on TensorRT it knows what the host reads and has recorded it all as one CUDA graph.
WARM_UP_RUNS = 3
