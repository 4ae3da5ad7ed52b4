"""Images off the middleware in a thread of their own, beside rclpy's executor."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from lighttrack_ros.errors import LightTrackError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

AUTO, RELIABLE, BEST_EFFORT = "auto", "reliable", "best_effort"

DEPTH = 1  # of the queue: the newest image only
_WAIT = 10**9  # nanoseconds after which the thread looks whether ROS is still there, and what the publishers offer
_NAP = 2 * 10**8  # nanoseconds between two looks at the newest image, while not all are wanted
_LOOK = 1.0  # seconds between two looks at what the publishers offer, where no event tells of them
_CERTAIN = 1.0  # seconds for which images are taken once they are wanted, before that is asked again


class ImageStream:
    """One subscription; every image that arrives is handed on, serialised, from the stream's thread.

    In best effort most raw images of an ordinary publisher are lost; a best effort publisher, asked to be reliable,
    sends none. So "auto" asks for what the publishers offer, and subscribes anew when that changes.

    rclpy's executor builds its wait set anew for every callback, out of the twenty services that a lifecycle node
    has: with a wait set of its own an image costs 0.4 ms less of the processor's time and 0.25 ms less of latency, and
    no service call ever delays it. `rclpy.wait_for_message` does it with the same calls, from Humble to Kilted.

    Args:
        node: whose subscription it is.
        message_type: sensor_msgs Image or CompressedImage.
        topic: name before remapping.
        reliability: "reliable" (ask for every image), "best_effort" (take what arrives) or "auto"; a parameter
            qos_overrides.<topic>.subscription.reliability comes before it, others of that name work as rclpy has them.
        on_image: called with the serialised message, in the stream's thread.
        on_incompatible: called with rclpy's event in the stream's thread, when a publisher cannot serve it.
        is_wanted: whether every image is. While it says no, the newest is handed on five times a second and the
            others stay with the middleware: taking an image costs more than all else that an idle node does.
        on_lost: called with the number of images that the middleware knows to have lost, in the stream's thread.

    Attributes:
        topic: the full name, remapped.
        reliability: what is asked of the publishers now, "reliable" or "best_effort".
        takes_all: whether every image is taken, and not five a second.

    Raises:
        LightTrackError: a QoS override that cannot be.
    """

    def __init__(
        self,
        node: Node,
        message_type: Any,
        topic: str,
        reliability: str,
        on_image: Callable[[bytes], None],
        on_incompatible: Callable[[Any], None],
        is_wanted: Callable[[], bool] = lambda: True,
        on_lost: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._node = node
        self._message_type = message_type
        self._on_image = on_image
        self._on_incompatible = on_incompatible
        self._is_wanted = is_wanted
        self._on_lost = on_lost
        self._name, self.topic = topic, node.resolve_topic_name(topic)
        self._asked = _overridden(node, self.topic, reliability)
        self.reliability = BEST_EFFORT  # it goes with every publisher that may come
        self.reliability = self._fitting() if self._asked == AUTO else self._asked
        self.takes_all = False
        self._matched = False  # whether a publisher came or went since the last look
        self._subscription = self._subscribe()
        self._stopping = False
        self._signal = GuardCondition(callback=None, callback_group=None, context=node.context)
        self._thread = threading.Thread(target=self._run, name="image_stream", daemon=True)

    def start(self) -> None:
        """Begin to hand images on."""
        self._thread.start()

    def wake(self) -> None:
        """Ask again whether every image is wanted."""
        self._signal.trigger()

    def stop(self) -> None:
        """Unsubscribe; no image is handed on afterwards. Not to be called from `on_image`."""
        self._stopping = True
        self._signal.trigger()
        if self._thread.is_alive():
            self._thread.join()
        self._signal.destroy()
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self) -> Any:
        reliability = ReliabilityPolicy.RELIABLE if self.reliability == RELIABLE else ReliabilityPolicy.BEST_EFFORT
        callbacks: dict[str, Any] = {"incompatible_qos": self._on_incompatible}
        known = inspect.signature(SubscriptionEventCallbacks).parameters
        if "matched" in known:  # from Iron on
            callbacks["matched"] = self._on_matched
        if "message_lost" in known:
            callbacks["message_lost"] = lambda event: self._on_lost(int(event.total_count_change))
        try:
            return self._node.create_subscription(
                self._message_type,
                self._name,
                lambda _: None,
                QoSProfile(depth=DEPTH, history=HistoryPolicy.KEEP_LAST, reliability=reliability),
                callback_group=NotOfTheExecutor(),
                event_callbacks=SubscriptionEventCallbacks(**callbacks),
                qos_overriding_options=QoSOverridingOptions([QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]),
                raw=True,
            )
        except RuntimeError as error:  # what rclpy makes of an override
            raise LightTrackError(f"{self.topic}: {error}") from error

    def _fitting(self) -> str:
        """What the publishers offer that there are now; reliable only if all of them do."""
        offered = {info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.topic)}
        if not offered:
            return self.reliability
        return RELIABLE if offered == {ReliabilityPolicy.RELIABLE} else BEST_EFFORT

    def _on_matched(self, _: Any) -> None:
        self._matched = True

    def _run(self) -> None:
        while not self._stopping and self._node.context.ok():
            self._receive()
            if not self._stopping and self._asked == AUTO and (fitting := self._fitting()) != self.reliability:
                self.reliability = fitting
                self._node.destroy_subscription(self._subscription)
                self._subscription = self._subscribe()

    def _receive(self) -> None:
        """Hand images on until it is time to look again at what the publishers offer."""
        context, subscription, signal = self._node.context, self._subscription, self._signal
        events: list[Any] = subscription.event_handlers
        assert context.handle is not None  # ROS was initialised
        look_again = time.monotonic() + _LOOK
        with ExitStack() as in_use:
            entities: list[Any] = [context.handle, subscription.handle, signal.handle, *events]
            for entity in entities:
                in_use.enter_context(entity)
            wait_set = rclpy_implementation.WaitSet(1, 1, 0, 0, 0, len(events), context.handle)
            wanted_until = 0.0  # time.monotonic()
            while not self._stopping and context.ok():
                now = time.monotonic()
                if now >= look_again:
                    return
                if now >= wanted_until and self._is_wanted():
                    wanted_until = now + _CERTAIN
                self.takes_all = now < wanted_until
                if not self.takes_all:
                    wait_set.clear_entities()
                    wait_set.add_guard_condition(signal.handle)
                    wait_set.wait(_NAP)
                wait_set.clear_entities()
                wait_set.add_subscription(subscription.handle)
                wait_set.add_guard_condition(signal.handle)
                for event in events:
                    event.add_to_wait_set(wait_set)
                wait_set.wait(_WAIT if self.takes_all else 0)
                for event in events:
                    if event.is_ready(wait_set) and (data := event.take_data()):
                        event.callback(data)
                # Also where no image is said to be there: Fast DDS may signal one that was taken already, and does so
                # until somebody tries to take it. Waiting would be a busy loop.
                taken = subscription.handle.take_message(subscription.msg_type, True)
                if taken is not None and not self._stopping:
                    self._on_image(taken[0])
                if self._matched:
                    self._matched = False
                    return


def _overridden(node: Node, topic: str, reliability: str) -> str:
    """The reliability that is asked for: the override where one was given, else the argument."""
    name = f"qos_overrides.{topic}.subscription.reliability"
    if not node.has_parameter(name):
        descriptor = ParameterDescriptor(description="Comes before the parameter reliability.", read_only=True)
        node.declare_parameter(name, "", descriptor)
    chosen = str(node.get_parameter(name).value) or reliability
    if chosen not in (AUTO, BEST_EFFORT, RELIABLE):
        raise LightTrackError(f"parameter {name} is {chosen!r}, expected {AUTO}, {BEST_EFFORT} or {RELIABLE}")
    return chosen


class NotOfTheExecutor(CallbackGroup):
    """Keeps a subscription and its events out of the executor's hands: Fast DDS wakes up for both together."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass
