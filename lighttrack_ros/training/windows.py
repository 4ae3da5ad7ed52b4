"""Cut windows from search crops: a student then sees what a tracker sees that searches near by first.

Windows are aligned with the output's cells, so a teacher's maps of the whole crop can be cut to the window too. They
then use context outside the window, which the student does not see.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lighttrack_ros.training.pairs import Batch

_OFF_CENTRE = 0.3  # of the window's side: largest offset of the target from its middle, unless at the crop's edge


def cut_windows(batch: Batch, targets: Any, side: int, stride: int, generator: torch.Generator) -> tuple[Batch, Any]:
    """One window of each search crop, near its target if it has one.

    Args:
        batch: pairs whose search crops are larger than the windows.
        targets: a teacher's targets, whose maps over the crop's cells are cut likewise; or None.
        side: of the windows in pixels, a multiple of twice the stride.
        stride: pixels per cell.
        generator: on the CPU; draws the places.
    """
    size = batch.search.shape[-1]
    last = (size - side) // stride
    draws = torch.rand(len(batch.search), 2, generator=generator)
    anywhere = (draws * (last + 1)).long()
    centres = (batch.box[:, :2] + batch.box[:, 2:]).cpu() / 2
    corners = centres + (2 * draws - 1) * _OFF_CENTRE * side - side / 2
    near = (corners / stride).round().long().clamp(0, last)
    cells = torch.where(batch.present.cpu()[:, None] > 0, near, anywhere)
    places = [(int(x), int(y)) for x, y in cells.tolist()]
    shift = (stride * cells).to(batch.box).repeat(1, 2)
    cut = batch._replace(search=_cut(batch.search, places, stride, side), box=batch.box - shift)
    if targets is None:
        return cut, None
    n = size // stride
    maps = (_cut(value, places, 1, side // stride) if _is_map(value, n) else value for value in targets)
    return cut, type(targets)(*maps)


def _is_map(value: Tensor, n: int) -> bool:
    return value.ndim == 4 and value.shape[-2:] == (n, n)


def _cut(images: Tensor, places: list[tuple[int, int]], step: int, side: int) -> Tensor:
    """(B, C, n, n) to (B, C, side, side); corners at `step` times the places."""
    return torch.stack(
        [
            image[:, step * y : step * y + side, step * x : step * x + side]
            for image, (x, y) in zip(images, places, strict=True)
        ]
    )
