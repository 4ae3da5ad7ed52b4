"""From where a target is seen to how fast to fly: pure functions of numbers, without ROS."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Gains and limits; those of a drone some 35 m up, whose camera looks down at about 50 degrees.

    Attributes:
        yaw_gain: radians a second of turn, for each radian of azimuth.
        forward_gain: metres a second, for each radian of elevation. By a radian a target on the ground moves
            altitude / sin(camera's angle below the horizon)**2 metres: the gain is about 1.5 times that.
        reset_time: seconds in which the integral part takes over what the proportional part does.
        max_speed, max_acceleration: metres a second, metres a second squared.
        max_yaw_rate, max_yaw_acceleration: radians a second, radians a second squared.
        patience: seconds for which the last command is kept while the target is uncertain.
    """

    yaw_gain: float = 1.6
    forward_gain: float = 85.0
    reset_time: float = 2.0
    max_speed: float = 12.0
    max_acceleration: float = 4.0
    max_yaw_rate: float = 0.8
    max_yaw_acceleration: float = 2.0
    patience: float = 0.7


@dataclass(frozen=True)
class Seen:
    """What a TargetBearing says, radians; `sure` while the target is tracked, and not while it is uncertain."""

    azimuth: float
    elevation: float
    sure: bool


@dataclass(frozen=True)
class Command:
    """Of geometry_msgs/Twist in base_link: metres a second forward, radians a second to the left."""

    forward: float = 0.0
    yaw_rate: float = 0.0


class Controller:
    """Keeps a target in the middle of the picture by turning towards it and by flying forward and back.

    A proportional and integral controller for each of the two, within limits of speed and of acceleration. It follows
    a target that is tracked; it keeps its command for a moment while the target is uncertain; otherwise it stops.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._command = Command()
        self._turn = _Integrating(settings.yaw_gain, settings.reset_time, settings.max_yaw_rate)
        self._fly = _Integrating(settings.forward_gain, settings.reset_time, settings.max_speed)
        self._wanted = Command()
        self._unsure = math.inf  # seconds since the target was seen for sure

    def step(self, seconds: float, seen: Seen | None) -> Command:
        """The next command.

        Args:
            seconds: since the last one.
            seen: where the target is; None: it is lost, there is none, or nothing was heard.
        """
        settings = self._settings
        self._unsure += seconds
        if seen is not None and seen.sure:
            self._unsure = 0.0
            self._wanted = Command(self._fly.step(seconds, seen.elevation), self._turn.step(seconds, -seen.azimuth))
        elif seen is None or self._unsure > settings.patience:
            self._wanted = Command()
            self._fly.restart()
            self._turn.restart()
        before, wanted = self._command, self._wanted
        self._command = Command(
            _towards(before.forward, wanted.forward, settings.max_acceleration * seconds),
            _towards(before.yaw_rate, wanted.yaw_rate, settings.max_yaw_acceleration * seconds),
        )
        return self._command


class _Integrating:
    """A proportional and integral controller with a limit, at which it integrates no further."""

    def __init__(self, gain: float, reset_time: float, limit: float) -> None:
        self._gain = gain
        self._reset_time = reset_time
        self._limit = limit
        self._integral = 0.0

    def step(self, seconds: float, error: float) -> float:
        more = self._integral + self._gain * error * seconds / self._reset_time
        asked = self._gain * error + more
        if abs(asked) < self._limit or asked * error < 0:
            self._integral = more
        return min(max(asked, -self._limit), self._limit)

    def restart(self) -> None:
        self._integral = 0.0


def _towards(value: float, goal: float, most: float) -> float:
    return value + min(max(goal - value, -most), most)
