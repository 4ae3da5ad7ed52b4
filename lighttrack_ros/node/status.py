"""The node's diagnostics: how it is, in one line, and the figures."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode

from lighttrack_ros.node.diagnostics import Health, diagnostic_array
from lighttrack_ros.node.interface import DIAGNOSTICS
from lighttrack_ros.node.loading import Loaded
from lighttrack_ros.node.parameters import Parameters
from lighttrack_ros.node.reception import LOSS_SHARE, Reception
from lighttrack_ros.node.sender import Sender
from lighttrack_ros.node.target import Target
from lighttrack_ros.node.tracking_loop import TrackingLoop
from lighttrack_ros.node.transport import CAMERA_PROFILE
from lighttrack_ros.runtime.watch import Watch
from lighttrack_ros.session import State

_SILENCE = 3.0  # seconds without an image before the log says so
_REMEDY = f"the camera's process needs {CAMERA_PROFILE}, see docs/node.md"


@dataclass(frozen=True)
class Situation:
    """What a node is in.

    Attributes:
        loading: while the model is loaded.
        failure: why the last configure failed.
        loop, reception: while it is active.
    """

    parameters: Parameters
    enabled: bool
    loading: Watch | None
    failure: str
    finalized: bool
    loaded: Loaded | None
    loop: TrackingLoop | None
    reception: Reception | None


class Status:
    """Publishes /diagnostics; call `publish` now and then, in whatever state the node is."""

    def __init__(self, node: LifecycleNode, health: Health) -> None:
        self._node = node
        self._health = health
        self._publisher = Sender(node.create_publisher(DIAGNOSTICS.kind, DIAGNOSTICS.name, DIAGNOSTICS.qos), health)
        self._reported = health.counts()

    def publish(self, situation: Situation) -> None:
        targets = [] if situation.loop is None else situation.loop.targets()
        level, message = self._summary(situation, targets)
        loaded, reception, chosen = situation.loaded, situation.reception, situation.parameters
        values: dict[str, object] = {
            "state": _state_of(targets),
            "targets": len(targets),
            "enabled": str(situation.enabled).lower(),
            "model": loaded.model.name if loaded else chosen.model,
            "backend": loaded.tracker.backend if loaded else chosen.backend,
            "image_transport": chosen.image_transport,
            "reliability": reception.reliability if reception else chosen.reliability,
            **self._health.rates(),
            **self._health.percentiles(),
            **self._health.counts(),
            **self._health.exits(),
        }
        if situation.loop is not None and reception is not None:
            values["image_topic"] = reception.topic
            values["publishers"] = self._node.count_publishers(reception.topic)
            values["kept_images"], values["kept_bytes"] = situation.loop.kept()
        for target in targets:
            values |= {f"target {target.target_id!r} {key}": value for key, value in target.status().items()}
        name = f"{self._node.get_fully_qualified_name()[1:]}: tracking"
        array = diagnostic_array(name, level, message, values)
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
        self._reported = self._health.counts()

    def _summary(self, situation: Situation, targets: list[Target]) -> tuple[bytes, str]:
        """Level and one line, from what happened since the last time."""
        if situation.loading is not None:
            return DiagnosticStatus.OK, f"configuring: {situation.loading.status() or 'loading the model'}"
        if situation.failure:
            return DiagnosticStatus.ERROR, f"not configured: {situation.failure}"
        if situation.finalized:
            return DiagnosticStatus.OK, "finalized"
        loop, reception = situation.loop, situation.reception
        if loop is None or reception is None:
            return DiagnosticStatus.OK, "inactive" if situation.loaded else "unconfigured"
        if seconds := loop.stuck():
            words = f"the tracker has been at one image for {seconds:.0f} s: the backend hangs"
            self._health.problem("tracker_errors", words)
            return DiagnosticStatus.ERROR, f"{words}; restart the node, or deactivate, cleanup and configure it"
        counts = self._health.counts()
        new = {name: counts[name] - self._reported[name] for name in counts}
        topic, loss = reception.topic, reception.loss
        if not new["images_received"]:
            words = self._why_no_images(topic)
            if time.monotonic() - reception.last_image > _SILENCE:
                self._health.problem("silent_camera", words)
            return DiagnosticStatus.WARN, words
        if new["images_lost"] and not loss.rate:
            return DiagnosticStatus.WARN, f"most of the images on {topic} are lost on the way: {_REMEDY}"
        if new["internal_errors"] or new["tracker_errors"]:
            return DiagnosticStatus.ERROR, "errors while tracking, see the log"
        if new["bad_images"]:
            return DiagnosticStatus.WARN, f"{new['bad_images']} images on {topic} could not be used, see the log"
        publishers = self._node.count_publishers(topic)
        if strange := reception.complaint(publishers) or self._clock_stands():
            self._health.problem("strange_stream", f"{topic}: {strange}")
            return DiagnosticStatus.WARN, strange
        if new["images_lost"] and loss.lost_share > LOSS_SHARE:
            share = f"{100 * loss.lost_share:.0f} %"
            return DiagnosticStatus.WARN, f"{share} of the images on {topic} are lost on the way: {_REMEDY}"
        return DiagnosticStatus.OK, _state_of(targets) if situation.enabled else "disabled"

    def _clock_stands(self) -> str:
        """Simulated time that nobody tells."""
        if self._node.get_parameter("use_sim_time").value and not self._node.get_clock().now().nanoseconds:
            return "use_sim_time is set, but nobody publishes /clock: latencies are not known"
        return ""

    def _why_no_images(self, topic: str) -> str:
        publishers = self._node.get_publishers_info_by_topic(topic)
        if publishers:
            hint = "check QoS and the camera's transport, see docs/node.md"
            return f"no images on {topic} ({len(publishers)} publishers: {hint})"
        kind = "sensor_msgs/msg/CompressedImage" if topic.endswith("/compressed") else "sensor_msgs/msg/Image"
        # Not what trackers draw, which is no camera's.
        others = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if kind in types and name != topic and not name.endswith(("/annotated", "/annotated/compressed"))
        ]
        published = [name for name in others if self._node.count_publishers(name)]
        # The most similar first.
        published.sort(key=lambda name: difflib.SequenceMatcher(None, name, topic).ratio(), reverse=True)
        there = f"images are published on {', '.join(published[:3])}" if published else "nobody publishes images"
        return f"no images on {topic} (0 publishers; {there})"


def _state_of(targets: list[Target]) -> str:
    """The state that all targets are in; of several, how many are in which."""
    states = [target.report.state for target in targets]
    if len(set(states)) <= 1:
        return (states[0] if states else State.IDLE).name.lower()
    counts = {state: states.count(state) for state in State}
    return ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
