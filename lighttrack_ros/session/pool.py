"""Sessions for several targets on one set of engines."""

from __future__ import annotations

from lighttrack_ros.session.session import Session

MOST_TARGETS = 16  # at one time


class SessionPool:
    """Gives out sessions that share a tracker's engines; those given back are used again.

    An engine's slots stay allocated, so there are never more sessions than targets at one time. Not thread-safe.

    Args:
        first: without a target.
    """

    def __init__(self, first: Session) -> None:
        self._first = first
        self._spare = [first]

    def take(self) -> Session:
        """A session without a target."""
        return self._spare.pop() if self._spare else self._first.another()

    def give_back(self, session: Session) -> None:
        """The target in it is forgotten."""
        session.reset()
        self._spare.append(session)
