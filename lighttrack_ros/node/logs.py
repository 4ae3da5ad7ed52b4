"""What the other rooms tell Python's logging, e.g. that a network is compiled, goes to the node's log, to /rosout."""

from __future__ import annotations

import logging
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import LoggingSeverity  # type: ignore[attr-defined]


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
        severity = next(severity for level, severity in _SEVERITIES if record.levelno >= level)
        # Below rclpy's own `info()`, which would name this line as the source, not the record's.
        if self._logger.is_enabled_for(severity):
            place = (record.funcName, record.pathname, record.lineno)
            rclpy_implementation.rclpy_logging_rcutils_log(severity, self._logger.name, record.getMessage(), *place)


_SEVERITIES = (
    (logging.ERROR, LoggingSeverity.ERROR),
    (logging.WARNING, LoggingSeverity.WARN),
    (logging.INFO, LoggingSeverity.INFO),
    (logging.NOTSET, LoggingSeverity.DEBUG),
)
