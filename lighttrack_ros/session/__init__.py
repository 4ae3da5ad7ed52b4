"""One target's life: what the evidence is worth, which candidate is the target, states, the search for a lost one."""

from lighttrack_ros.session.pool import MOST_TARGETS, SessionPool
from lighttrack_ros.session.session import Session
from lighttrack_ros.session.states import NOWHERE, Report, State

__all__ = ["MOST_TARGETS", "NOWHERE", "Report", "Session", "SessionPool", "State"]
