"""The loop that turns images into boxes: one thread, always on to the newest image, one target after the other."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import FEW_LEVELS, Frame, Intensities, grey_levels
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer
from lighttrack_ros.node.image_at_work import ImageAtWork, UnreadableError
from lighttrack_ros.node.init_boxes import PATIENCE, InitBox, InitBoxes, Start, words_of
from lighttrack_ros.node.messages import Stamped
from lighttrack_ros.node.story import Story
from lighttrack_ros.node.target import NO_TARGET, Outcome, Target
from lighttrack_ros.node.turns import Turn, next_turn
from lighttrack_ros.session import MOST_TARGETS, Report, SessionPool, State

CATCH_UP = 0.5  # seconds in which the images between an old one and the present are gone through
FAILURES = 3  # turns in a row on which the tracker fails, after which its engines are loaded anew
STUCK = 5.0  # seconds at one image after which a backend counts as hanging
STRANGERS = 3  # images of another size in a row after which the camera is taken to have changed


@dataclass(frozen=True)
class _Ending:
    """An order to forget a target, or all of them."""

    target_id: str | None
    reason: str


class TrackingLoop:
    """Takes images and orders from any thread; works and calls `publish` in its own.

    Args:
        sessions: for the targets.
        read: decodes an image message; may raise LightTrackError.
        publish: called with every outcome, as soon as it is there.
        publish_image: called with all outcomes of an image when it is done with; empty where there is no target.
        health: told of everything that is counted or goes wrong.
        tell: logs one line, of what happened to a target.
        intensities: what `read` uses for values of more than 8 bits; taken anew where a target begins.
        reload: called in the loop's thread when the tracker fails again and again; loads it anew, with sessions.
    """

    def __init__(
        self,
        sessions: SessionPool,
        buffer: FrameBuffer,
        read: Callable[[Stamped], Frame],
        publish: Callable[[Outcome], None],
        publish_image: Callable[[Arrival, Sequence[Outcome]], None],
        health: Health,
        enabled: bool = True,
        tell: Callable[[str], object] = lambda _: None,
        intensities: Intensities | None = None,
        reload: Callable[[], SessionPool] | None = None,
    ) -> None:
        self._intensities = intensities
        self._reload = reload
        self._sessions = sessions
        self.read = read
        self._publish = publish
        self._publish_image = publish_image
        self._health = health
        self._tell = tell

        # Shared, under the lock of `_news`; `_targets` is changed by the loop alone.
        self._news = threading.Condition()
        self._buffer = buffer
        self._arrived = 0
        self._interval = 0.0  # seconds between two images, smoothed
        self._init_boxes = InitBoxes()
        self._starting: InitBox | None = None  # the one at work
        self._endings: list[_Ending] = []
        self._enabled = enabled
        self._stopping = False
        self._targets: dict[str, Target] = {}

        # The loop's own.
        self._image: ImageAtWork | None = None
        self._last: Arrival | None = None  # the image published last
        self._taken = 0  # number of the newest image taken up
        self._turns = 0
        self._starts = 0  # since the last turn
        self._partner: Target | None = None  # whose network has run already on the image at work: it is next
        self._step_time = 0.01  # seconds, smoothed
        self._failures = 0  # turns in a row on which the tracker failed
        self._broken = False  # whether it has still to be loaded anew
        self._busy_since = 0.0  # time.monotonic(); 0: it waits
        self._thread = threading.Thread(target=self._run, name="tracking_loop", daemon=True)
        self._thread.start()

    def put(self, message: Stamped) -> None:
        """An image has arrived."""
        now = time.monotonic()
        with self._news:
            newest = self._buffer.newest
            if newest is not None:
                passed = now - newest.time
                self._interval += 0.2 * (passed - self._interval) if self._interval else passed
            self._arrived += 1
            self._buffer.append(Arrival(self._arrived, now, message))
            self._news.notify()
        self._health.count("images_received")

    def track(self, box: Box, stamp: int, target_id: str, answer: Callable[[Start], object] = lambda _: None) -> None:
        """Start on a box: one more target, or where there is one of that id, that one anew.

        Args:
            box: pixels of the image it was drawn on.
            stamp: of that image, nanoseconds; 0 is the next one to arrive.
            answer: called once with what became of it, from any thread.
        """
        with self._news:
            init_box = InitBox(box, stamp, target_id, self._arrived, time.monotonic() + PATIENCE, answer)
            known = self._known()
            is_one_too_many = target_id not in known and len(known) >= MOST_TARGETS
            before = self._init_boxes.take(target_id)
            if not is_one_too_many:
                self._init_boxes.add(init_box)
            self._news.notify()
        self._refuse(before, "another box came before its image did")
        if is_one_too_many:
            self._refuse(
                init_box,
                f"there are {MOST_TARGETS} targets, the most there may be ({_list_of(known)}): "
                f"forget one first (~/remove, or ~/reset for all)",
            )

    def suggest(self, boxes: Sequence[Box]) -> None:
        """Places where a detector sees something, pixels of a recent image; see `Session.suggest`."""
        with self._news:
            for target in self._targets.values():
                target.suggested = boxes

    def reset(self, reason: str) -> None:
        """Forget all targets, and the boxes that wait for their image.

        Args:
            reason: why, for the log and for the message that tells of the end.
        """
        with self._news:
            self._endings.append(_Ending(None, reason))
            before = self._init_boxes.take_all()
            self._news.notify()
        for init_box in before:
            self._refuse(init_box, reason)

    def remove(self, target_id: str, reason: str) -> tuple[bool, str]:
        """Forget one target, and a box of that id that waits for its image.

        Returns:
            Whether there was such a target, and in words what was done.
        """
        with self._news:
            known = self._known()
            before = self._init_boxes.take(target_id)
            if target_id in known:
                self._endings.append(_Ending(target_id, reason))
                self._news.notify()
        self._refuse(before, reason)
        if target_id in known:
            return True, f"target {target_id!r} forgotten"
        return False, f"there is no target {target_id!r}; there are {_list_of(known) or 'none'}"

    def enable(self, enabled: bool) -> None:
        """Go on with the next image, or leave all images alone; the targets stay."""
        with self._news:
            if enabled and not self._enabled:
                self._taken = self._arrived
                for target in self._targets.values():
                    target.done = target.reported = self._arrived
            self._enabled = enabled
            self._news.notify()

    def limit_buffer(self, seconds: float, size: int) -> None:
        with self._news:
            self._buffer.seconds, self._buffer.size = seconds, size

    @property
    def has_target(self) -> bool:
        """Whether there is a target, or a box that waits for its image."""
        return bool(self._targets or self._init_boxes)

    def targets(self) -> list[Target]:
        """Those that are followed now, to be read."""
        with self._news:
            return list(self._targets.values())

    def kept(self) -> tuple[int, int]:
        """Images in the buffer, and their bytes."""
        with self._news:
            return len(self._buffer), self._buffer.bytes

    def stuck(self) -> float:
        """Seconds at one image where that is too long, else 0; boxes that wait for their turn are refused then."""
        since = self._busy_since
        seconds = time.monotonic() - since if since else 0.0
        if seconds < STUCK:
            return 0.0
        with self._news:
            waiting = self._init_boxes.take_all()
        for init_box in waiting:
            self._refuse(init_box, f"the tracker has been at one image for {seconds:.0f} s")
        return seconds

    def stop(self, reason: str) -> bool:
        """Finish the turn in work and end the thread; no target is left.

        Args:
            reason: see `reset`.

        Returns:
            False if a backend hangs: the thread goes on, and the tracker must not be touched.
        """
        with self._news:
            self._stopping = True
            before = self._init_boxes.take_all()
            self._news.notify()
        self._thread.join(STUCK)
        for init_box in before:
            self._refuse(init_box, reason)
        if self._thread.is_alive():
            return False
        self._finish_image()
        self._forget([_Ending(None, reason)])
        return True

    def _known(self) -> set[str]:
        """The ids of the targets there are, or will be when the boxes have found their images; under the lock."""
        known = set(self._targets)
        if self._starting is not None:
            known.add(self._starting.target_id)
        for ending in self._endings:
            known -= known if ending.target_id is None else {ending.target_id}
        return known | self._init_boxes.target_ids

    def _run(self) -> None:
        idle_work = False  # whether the trackers may have some
        while True:
            with self._news:
                if self._stopping:
                    return
                self._starting = None
                endings, self._endings = self._endings, []
                late = [] if endings else self._init_boxes.take_late(time.monotonic())
                arrival, order = (None, None) if endings or late else self._choose()
                if not (endings or late or arrival or self._image or idle_work):
                    self._busy_since = 0.0
                    self._news.wait(self._init_boxes.patience(time.monotonic()))
                    continue
            self._busy_since = time.monotonic()
            try:
                if self._image is not None and self._image.arrival is not arrival:
                    self._finish_image()
                if endings:
                    self._forget(endings)
                elif late:
                    for init_box in late:
                        why = f"no image came in {PATIENCE:g} s" if self._enabled else "the node is disabled"
                        self._refuse(init_box, why)
                elif arrival is not None:
                    idle_work = self._process(arrival, order)
                elif idle_work:
                    idle_work = self._do_idle_work()
            except Exception as error:  # nothing that one image brings may end the loop
                idle_work = False
                self._failed(error, order)

    def _failed(self, error: Exception, order: InitBox | Turn[Target] | None) -> None:
        """The tracker did in one turn. A start, or some turns in a row, and it is loaded anew, without targets."""
        words = str(error) if isinstance(error, LightTrackError) else "internal error, see the log"
        if isinstance(error, LightTrackError):
            self._health.problem("tracker_errors", words)
        else:
            self._health.problem("internal_errors", "please report this: " + traceback.format_exc())
        if isinstance(order, InitBox):
            self._refuse(order, words)
        self._failures += 1
        reason = f"the tracker failed ({words}); send a new box"
        if isinstance(order, Turn):
            order.target.failures += 1
            if order.target.failures >= FAILURES > self._failures:  # the others are followed well
                self._forget([_Ending(order.target.target_id, reason)])
        if self._broken or self._reload is None or not (isinstance(order, InitBox) or self._failures >= FAILURES):
            return
        self._forget([_Ending(None, reason)])
        try:
            self._load_anew(self._reload)
        except Exception as again:
            words = f"cannot be loaded anew ({again}), the next box tries it again"
            self._health.problem("tracker_errors", words, throttled=False)

    def _load_anew(self, reload: Callable[[], SessionPool]) -> None:
        """Raises LightTrackError: it cannot be loaded."""
        self._broken = True
        self._sessions = reload()
        self._broken, self._failures = False, 0

    def _choose(self) -> tuple[Arrival | None, InitBox | Turn[Target] | None]:
        """The next image to work on, and what to do on it; under the lock."""
        if not self._enabled:
            return None, None
        at_work = 0 if self._image is None else self._image.arrival.number
        turn = self._turn_of_partner()
        if turn is None:
            turn = next_turn(self._targets.values(), self._buffer, at_work, time.monotonic(), self._step_time)
        if turn is None or self._starts < MOST_TARGETS:  # a flood of boxes stops nobody
            ready = self._init_boxes.take_ready(self._buffer, time.monotonic())
            if ready is not None:
                self._starting = ready[1]
                return ready
        if turn is not None:
            return turn.arrival, turn
        newest = self._buffer.newest
        if newest is not None and newest.number > self._taken and not self._targets:
            return newest, None
        return None, None

    def _turn_of_partner(self) -> Turn[Target] | None:
        """Even where a newer image has come: what the network has said is not thrown away."""
        image, partner = self._image, self._partner
        if image is None or partner is None or partner.done >= image.arrival.number:
            return None
        is_there = self._targets.get(partner.target_id) is partner
        return Turn(image.arrival, partner, True) if is_there else None

    def _refuse(self, init_box: InitBox | None, reason: str) -> None:
        """Orders by people are never refused in silence."""
        if init_box is not None:
            self._health.problem("bad_boxes", f"{words_of(init_box.box)}: {reason}", throttled=False)
            init_box.answer(Start(False, 0, reason))

    def _process(self, arrival: Arrival, order: InitBox | Turn[Target] | None) -> bool:
        """Start or track a target on one image; returns whether the trackers may have idle work now."""
        image = self._image
        if image is None:
            image = self._image = ImageAtWork(arrival, time.perf_counter())
        if isinstance(order, InitBox):
            self._starts += 1
            return self._start(image, order)
        dropped = self._take(arrival)
        if order is None:
            began = image.began
            self._say(image, Outcome(arrival, NO_TARGET, "", None, began, began, dropped))
            return False
        self._starts = 0
        return self._step(image, order)

    def _take(self, arrival: Arrival) -> int:
        """Note that an image was taken up; returns how many before it were not."""
        dropped = max(0, arrival.number - self._taken - 1)
        self._taken = max(self._taken, arrival.number)
        self._health.count("images_dropped", dropped)
        return dropped

    def _start(self, image: ImageAtWork, init_box: InitBox) -> bool:
        """Begin with a box; if it is no good, an earlier target of that id stays.

        Raises:
            EngineError: the tracker fails.
        """
        turn, arrival = image.begin_turn(), image.arrival
        if self._broken and self._reload is not None:
            self._load_anew(self._reload)
        target = self._targets.get(init_box.target_id)
        if self._intensities is not None:
            others = (other.report.box for other in self._targets.values() if other is not target)
            if self._intensities.adapts:
                image.frame = None  # to be decoded with the values that this target has
            self._intensities.start(init_box.box, *others)
        try:
            frame = image.decode(self.read, self._health)
        except UnreadableError:
            self._wait_for_better(init_box, arrival)
            return False
        session = self._sessions.take() if target is None else target.session
        try:
            report = session.start(frame, init_box.box)
        except Exception as error:
            if target is None:
                self._sessions.give_back(session)
            if isinstance(error, EngineError) or not isinstance(error, LightTrackError):
                raise
            self._refuse(init_box, str(error))
            return False
        self._take(arrival)
        self._failures = 0
        if target is None:
            story = Story(init_box.target_id, self._tell, self._health.count)
            target = Target(init_box.target_id, session, story, self._free_colour())
        else:
            target.end_reason = "replaced by a new box"
            target.story.ended(target.end_reason)
        now = time.monotonic()
        self._turns += 1
        with self._news:
            target.size, target.strangers, target.failures = (frame.width, frame.height), 0, 0
            target.done = target.reported = arrival.number
            target.served, target.catch_up_until = self._turns, now + CATCH_UP
            self._targets[target.target_id] = target
        if init_box.note:
            self._health.problem("stamps_gone", init_box.note, throttled=False)
        levels = grey_levels(frame.bgr())
        if levels < FEW_LEVELS:
            self._health.problem(
                "flat_images",
                f"it has {levels} grey levels, hardly any to track by (parameter intensity_range, the lens, the light)",
                throttled=False,
            )
        size = f"{frame.width} x {frame.height}"
        target.story.began(init_box.box, size, arrival.message.stamp, now - arrival.time)
        init_box.answer(Start(True, arrival.message.stamp, init_box.note))
        self._say_of(target, image, report, turn)
        return True

    def _free_colour(self) -> int:
        """The first that no target has."""
        taken = {target.colour for target in self._targets.values()}
        return next(colour for colour in range(MOST_TARGETS) if colour not in taken)

    def _step(self, image: ImageAtWork, turn: Turn[Target]) -> bool:
        """Find a target on the image that is its turn's."""
        began, target, number = image.begin_turn(), turn.target, image.arrival.number
        self._turns += 1
        target.done, target.served = number, self._turns
        if turn.is_live:
            target.catch_up_until = 0.0
        try:
            frame = image.decode(self.read, self._health)
        except UnreadableError:
            for other in self._targets.values():
                if not other.catch_up_until:
                    other.done = max(other.done, number)  # the others need not try
            return False
        if (frame.width, frame.height) != target.size:
            self._meet_stranger(target, image, frame, began)
            return True
        target.strangers = 0
        suggested, target.suggested = target.suggested, ()
        if suggested:
            target.session.suggest(suggested)
        if turn.is_live and target is not self._partner:
            self._partner = self._find_partner(target, frame, number)
        report = target.session.step(frame, self._believed_beside(target))
        self._failures = target.failures = 0
        self._say_of(target, image, report, began)
        target.story.saw(report)
        self._step_time += 0.2 * (time.perf_counter() - began - self._step_time)
        return True

    def _find_partner(self, target: Target, frame: Frame, number: int) -> Target | None:
        """Another that is due on this image, for which the network now ran as well; see `Session.look_ahead`."""
        due = (
            other
            for other in self._targets.values()
            if other is not target and other.done < number and not other.catch_up_until and other.size == target.size
        )
        for other in sorted(due, key=lambda other: other.served):
            if target.session.look_ahead(frame, other.session):
                return other
        return None

    def _believed_beside(self, target: Target) -> dict[Hashable, Box]:
        """Where the other targets are that are in sight, as they were seen last."""
        return {
            other.target_id: other.report.whole or other.report.box
            for other in self._targets.values()
            if other is not target and other.report.state == State.TRACKING
        }

    def _meet_stranger(self, target: Target, image: ImageAtWork, frame: Frame, turn: float) -> None:
        """An image of another size than the target's: its boxes mean nothing there."""
        target.strangers += 1
        width, height = target.size
        change = f"the image is {frame.width} x {frame.height}, the target was given on {width} x {height}"
        if target.strangers >= STRANGERS:
            reason = f"{change}, {STRANGERS} times; send a new box"
            self._end(target, reason)
            dropped = max(0, image.arrival.number - target.reported - 1)
            outcome = Outcome(
                image.arrival, NO_TARGET, target.target_id, frame, image.began, turn, dropped, end_reason=reason
            )
            self._say(image, outcome)
        elif not image.complained:
            image.complained = True
            self._health.problem("bad_images", f"{change}: skipped")

    def _wait_for_better(self, init_box: InitBox, arrival: Arrival) -> None:
        """The box's image cannot be read: start on the one after it, unless another order has come."""
        with self._news:
            ended = any(ending.target_id in (None, init_box.target_id) for ending in self._endings)
            waits = init_box.target_id not in self._init_boxes.target_ids and not ended
            if waits:
                self._init_boxes.add(dataclasses.replace(init_box, stamp=0, after=arrival.number))
        if not waits:
            self._refuse(init_box, "its image cannot be read, and another order came")

    def _say_of(self, target: Target, image: ImageAtWork, report: Report, turn: float) -> None:
        arrival = image.arrival
        dropped = max(0, arrival.number - target.reported - 1)
        reason, target.end_reason = target.end_reason, ""
        target.reported, target.report = arrival.number, report
        target.images += 1
        target.dropped += dropped
        self._health.stopped_at(report.exit_index)
        live = not target.catch_up_until
        self._say(
            image,
            Outcome(
                arrival, report, target.target_id, image.frame, image.began, turn, dropped, live, reason, target.colour
            ),
        )

    def _say(self, image: ImageAtWork, outcome: Outcome) -> None:
        if not image.outcomes:
            self._health.count("images_processed")
        image.outcomes.append(outcome)
        self._last = image.arrival
        self._publish(outcome)

    def _finish_image(self) -> None:
        """No more turns on it: a newer one is there, or all are done."""
        image, self._image, self._partner = self._image, None, None
        if image is None or not image.outcomes:
            return
        try:
            self._publish_image(image.arrival, image.outcomes)
        except Exception:  # what is to be done next must not be lost by it
            self._health.problem("internal_errors", "please report this: " + traceback.format_exc())

    def _forget(self, endings: Sequence[_Ending]) -> None:
        """Told at once, under the header of the image published last: the next may never come."""
        outcomes = []
        now = time.perf_counter()
        for ending in endings:
            for target in list(self._targets.values()):
                if ending.target_id not in (None, target.target_id):
                    continue
                self._end(target, ending.reason)
                if self._last is not None:
                    outcomes.append(
                        Outcome(
                            self._last,
                            NO_TARGET,
                            target.target_id,
                            None,
                            now,
                            now,
                            live=False,
                            end_reason=ending.reason,
                        )
                    )
        for outcome in outcomes:
            self._publish(outcome)
        if outcomes:
            self._publish_image(outcomes[0].arrival, outcomes)

    def _end(self, target: Target, reason: str) -> None:
        with self._news:
            del self._targets[target.target_id]
        self._sessions.give_back(target.session)
        target.story.ended(reason)

    def _do_idle_work(self) -> bool:
        """One step of one target's; returns whether there was any."""
        seconds = self._until_next_image()
        return any(target.session.idle_work(seconds) for target in self._targets.values())

    def _until_next_image(self) -> float:
        with self._news:
            newest = self._buffer.newest
            return max(0.0, newest.time + self._interval - time.monotonic()) if newest else math.inf


def _list_of(target_ids: Collection[str]) -> str:
    return ", ".join(sorted(map(repr, target_ids)))
