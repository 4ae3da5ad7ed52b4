"""Directions to the targets of an image, for whoever steers by them: ~/bearing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Vector3

from lighttrack_ros.bearing import Bearing, RateMeter, bearings
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.msg import TargetBearing, TargetBearings, TrackedTarget, TrackedTargets
from lighttrack_ros.node.camera_info import CameraInfoSource
from lighttrack_ros.node.messages import to_nanoseconds


class BearingPublisher:
    """One message an image; nothing is computed while nobody subscribes.

    Args:
        publisher: of TargetBearings.
        source: of the camera's calibration.
        complain: told why there is no direction; of many times a moment it should log one.
        tell: logs one line.
    """

    def __init__(
        self,
        publisher: Any,
        source: CameraInfoSource,
        complain: Callable[[str], object],
        tell: Callable[[str], object],
    ) -> None:
        self._publisher = publisher
        self._source = source
        self._complain = complain
        self._tell = tell
        self._told: tuple[int, int] | None = None  # of images of this size that they are resized ones
        self._meters: dict[str, RateMeter] = {}  # by target_id

    def close(self) -> None:
        """Not while another thread publishes."""
        self._source.close()

    def publish(self, targets: TrackedTargets, size: tuple[int, int] | None) -> None:
        """Of the targets of one image.

        Args:
            size: the image's width and height; None where it was not decoded, as there is no target.
        """
        if not self._publisher.get_subscription_count():
            self._meters.clear()
            return
        for target in targets.targets:
            if target.end_reason or target.state == TrackedTarget.STATE_LOST:
                self._meters.pop(target.target_id, None)
        present = [target for target in targets.targets if target.state != TrackedTarget.STATE_IDLE]
        message = TargetBearings(header=targets.header)
        try:
            if present and size is not None:
                message.targets = self._look(present, to_nanoseconds(targets.header.stamp), size)
        except LightTrackError as error:
            self._complain(str(error))
            return
        self._publisher.publish(message)

    def _look(self, targets: list[TrackedTarget], stamp: int, size: tuple[int, int]) -> list[TargetBearing]:
        model = self._source.model(stamp)
        if size != self._told and tuple(map(round, model.image_size)) != size:
            width, height = model.image_size
            self._tell(
                f"{self._source.topic} is for images of {width:g} x {height:g}, these are {size[0]} x {size[1]}: they "
                "are taken for resized ones"
            )
        self._told = size
        boxes = [Box(target.x, target.y, target.width, target.height) for target in targets]
        try:
            found = bearings(model, boxes, size)
        except LightTrackError as error:
            raise LightTrackError(f"{self._source.topic}: {error}") from None
        messages = []
        for target, bearing in zip(targets, found, strict=True):
            if bearing is None:
                x, y = target.x + target.width / 2, target.y + target.height / 2
                self._complain(
                    f"{self._source.topic}: its distortion model does not reach pixel {x:.0f}, {y:.0f}, where "
                    f"target {target.target_id!r} is"
                )
                continue
            rates = (math.nan, math.nan)
            if target.state != TrackedTarget.STATE_LOST:
                meter = self._meters.setdefault(target.target_id, RateMeter())
                rates = meter.add(stamp, bearing.azimuth, bearing.elevation)
            messages.append(_message(target, bearing, rates))
        return messages


def _message(target: TrackedTarget, bearing: Bearing, rates: tuple[float, float]) -> TargetBearing:
    x, y, z = bearing.ray
    return TargetBearing(
        target_id=target.target_id,
        state=target.state,
        confidence=target.confidence,
        ray=Vector3(x=x, y=y, z=z),
        azimuth=bearing.azimuth,
        elevation=bearing.elevation,
        azimuth_rate=rates[0],
        elevation_rate=rates[1],
        angular_width=bearing.width,
        angular_height=bearing.height,
    )
