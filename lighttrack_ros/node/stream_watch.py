"""What is strange about a stream of images, told by their headers: two cameras on one topic, stamps that do not run."""

from __future__ import annotations

import itertools
from collections import Counter, deque

_WINDOW = 60  # images
_OFTEN = 4  # times within the window, before something is said


class StreamWatch:
    """Looks at the headers of the last images; not thread-safe, but `complaint` may be asked from any thread."""

    def __init__(self) -> None:
        self._headers: deque[tuple[int, str]] = deque(maxlen=_WINDOW)

    def add(self, stamp: int, frame_id: str) -> None:
        """An image has arrived, with the camera's stamp in nanoseconds."""
        self._headers.append((stamp, frame_id))

    def complaint(self, publishers: int) -> str:
        """What is wrong, in words; empty if nothing is.

        Args:
            publishers: of the topic.
        """
        headers = list(self._headers)
        stamps = [stamp for stamp, _ in headers]
        names = [name for _, name in headers]
        changes = sum(before != after for before, after in itertools.pairwise(names))
        if changes >= _OFTEN:
            common = ", ".join(repr(name) for name, _ in Counter(names).most_common(3))
            return f"images of {len(set(names))} frame_ids take turns ({common}): several cameras on one topic?"
        back = sum(after < before for before, after in itertools.pairwise(stamps))
        if back >= _OFTEN:
            if publishers > 1:
                return f"{publishers} publishers, and stamps that jump back: several cameras on one topic?"
            return f"stamps run backwards, {back} times in the last {len(stamps)} images"
        newest = stamps[-_OFTEN - 1 :]
        if len(newest) > _OFTEN and len(set(newest)) == 1:
            return f"stamps stand still at {newest[0] / 1e9:.3f} s: a clock that does not run, or none set"
        return ""
