"""One target's life: what the evidence is worth, which candidate is the target, states, the search for a lost one."""

from lighttrack_ros.session.session import Session
from lighttrack_ros.session.states import NOWHERE, Report, State

__all__ = ["NOWHERE", "Report", "Session", "State"]
