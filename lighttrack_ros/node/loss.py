"""Images that a camera sent and that never arrived, told by the gaps between the stamps of those that did."""

from __future__ import annotations

import itertools
from collections import deque

_WINDOW = 150  # images
_LEAST = 20  # images before anything is said
_PAUSE = 3 * 10**9  # nanoseconds: a longer gap is no loss of single images
_LONG = 1.5  # periods: a longer gap has missing images in it
_SHARE = 0.1  # of the gaps that must be as short as the period, for it to be the camera's


class LossMeter:
    """What share of a camera's images is lost on the way; not thread-safe.

    Loss is irregular: whole periods and gaps of several of them take turns. A camera that goes slower, for a longer
    exposure say, changes its period once, and nothing is lost.
    """

    def __init__(self) -> None:
        self._stamps: deque[int] = deque(maxlen=_WINDOW)

    def restart(self) -> None:
        """What comes now does not follow what came before: images were left alone on purpose."""
        self._stamps.clear()

    def add(self, stamp: int) -> int:
        """An image has arrived, with the camera's stamp in nanoseconds; returns how many are missing just before it."""
        if self._stamps and not 0 < stamp - self._stamps[-1] < _PAUSE:
            self.restart()  # a bag that began again, stamps that do not move, a camera that was silent
        self._stamps.append(stamp)
        period = self._period()
        if not period:
            return 0
        return _missing(self._stamps[-1] - self._stamps[-2], period)

    @property
    def rate(self) -> float:
        """Images a second that the camera sends; 0 while that is not known."""
        period = self._period()
        return 1e9 / period if period else 0.0

    @property
    def lost_share(self) -> float:
        """Of the images sent during the last few seconds; 0 while that is not known."""
        period = self._period()
        if not period:
            return 0.0
        missing = sum(_missing(gap, period) for gap in self._gaps())
        return missing / (missing + len(self._stamps))

    def _gaps(self) -> list[int]:
        return [after - before for before, after in itertools.pairwise(self._stamps)]

    def _period(self) -> float:
        """Nanoseconds between two images as the camera takes them; 0 where the stamps are too few or too irregular."""
        if len(self._stamps) < _LEAST:
            return 0.0
        gaps = self._gaps()
        ordered = sorted(gaps)
        need = max(3, round(_SHARE * len(gaps)))
        for index, shortest in enumerate(ordered):
            alike = [gap for gap in ordered[index:] if gap <= _LONG * shortest]
            if len(alike) >= need:
                break
        else:
            return 0.0
        period = alike[len(alike) // 2]
        long = [gap > _LONG * period for gap in gaps]
        turns = sum(before != after for before, after in itertools.pairwise(long))
        # One change of pace is the camera's own.
        return float(period if turns > 2 or not any(long) else sorted(gaps[-5:])[2])


def _missing(gap: float, period: float) -> int:
    return max(0, round(gap / period) - 1)
