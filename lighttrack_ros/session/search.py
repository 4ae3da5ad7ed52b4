"""Where a lost target is looked for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lighttrack_ros.geometry import Box, context_side
from lighttrack_ros.image import Frame

_HOME = 4  # looks of which one is where the target was last believed to be


def search_places(seen: Box, frame: Frame) -> Iterator[Box]:
    """Boxes of the size of `seen` to look round, for ever: its own place, and in between rings outwards over the frame.

    Every round of rings reaches twice as far as the one before, as a target tends to come back where it went.
    """
    step = context_side(seen.width, seen.height)  # half of what a tracker sees of one place
    centre_x, centre_y = seen.centre
    furthest = math.ceil(max(frame.width, frame.height) / step)
    reach, looks = 1, 0
    while True:
        for ring in range(1, reach + 1):
            for column, row in _ring(ring):
                x, y = centre_x + column * step, centre_y + row * step
                if 0 <= x <= frame.width and 0 <= y <= frame.height:
                    if looks % (_HOME - 1) == 0:
                        yield seen
                    looks += 1
                    yield Box(x - seen.width / 2, y - seen.height / 2, seen.width, seen.height)
        if not looks:  # so large a target that nothing of the frame lies beside it
            yield seen
        reach = 1 if reach >= furthest else 2 * reach


def _ring(radius: int) -> Iterator[tuple[int, int]]:
    """The cells of a square ring round (0, 0)."""
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1, 1 if abs(row) == radius else 2 * radius):
            yield column, row
