"""One target's life: what the evidence is worth, the states, and what the outside world is told."""

from lighttrack_ros.session.session import NOWHERE, Looks, Report, Session, State, log_odds

__all__ = ["NOWHERE", "Looks", "Report", "Session", "State", "log_odds"]
