"""What the other rooms tell Python's logging, e.g. that a network is compiled, goes to the node's log, to /rosout."""

from __future__ import annotations

import logging
from typing import Any


def forward_logs(logger: Any) -> None:
    """From now on, and from INFO on.

    Args:
        logger: a node's, of rclpy.
    """
    package = logging.getLogger("lighttrack_ros")
    package.setLevel(logging.INFO)
    package.addHandler(_ToRos(logger))


class _ToRos(logging.Handler):
    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # A line of code a level: rclpy refuses one that changes its level.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())
