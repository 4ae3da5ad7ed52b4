"""One target's life: idle, tracking, uncertain, lost, found again; which box may be believed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, clip_box
from lighttrack_ros.image import Frame
from lighttrack_ros.models import Model, SessionSettings
from lighttrack_ros.session.judge import NEVER, Judge, ScoreJudge, Verdict, VerifierJudge, probability
from lighttrack_ros.session.neighbours import Neighbours
from lighttrack_ros.session.search import search_places
from lighttrack_ros.session.start_filter import StartFilter
from lighttrack_ros.session.states import NOWHERE, Report, State
from lighttrack_ros.session.verifier import Verifier
from lighttrack_ros.trackers.base import Estimate, Sight, Tracker

_WATCHED = 30  # frames
_LONG = 15  # frames: who has been doubted for longer counts as lost
_SEEN = 0.5  # score from which a candidate beside another target is one
_NOBODY: Mapping[Hashable, Box] = MappingProxyType({})


class Session:
    """Follows one target with a tracker and says what may be believed; not thread-safe.

    The box is the tracker's own, cut at the frame's edges, whatever the state, until another one is found. Once the
    target is lost the network runs twice a frame: the tracker goes on from where it was led, and one more place is
    looked at, going outwards from where the target was last believed to be. What looks like the target there is
    followed for some frames beside the other; it becomes the target when it is convincing on each of them. For some
    frames more the place that was left is watched as well, and taken back if it becomes the more convincing one.

    Args:
        tracker: whose target is the session's from now on.
        settings: the model's.
        verifier: the model's; without one, or with a tracker that has no sight, the network's score decides.
    """

    def __init__(self, tracker: Tracker, settings: SessionSettings, verifier: Verifier | None = None) -> None:
        self._tracker = tracker
        self._settings = settings
        self._verifier = verifier
        self._begin_anew()

    @classmethod
    def of(cls, tracker: Tracker, model: Model) -> Session:
        """With the settings and the verifier of a model.

        Raises:
            LightTrackError: its verifier cannot be read.
        """
        return cls(tracker, model.session, None if model.verifier is None else Verifier.load(model.verifier))

    def another(self) -> Session:
        """A session for one more target, on the same engines."""
        return Session(self._tracker.another(), self._settings, self._verifier)

    def reset(self) -> None:
        """Forget the target."""
        self._tracker.reset()
        self._begin_anew()

    def idle_work(self, seconds: float = math.inf) -> bool:
        """See `Tracker.idle_work`."""
        return self._state != State.IDLE and self._tracker.idle_work(seconds)

    def _begin_anew(self) -> None:
        self._state = State.IDLE
        self._judge: Judge = ScoreJudge(self._settings)
        self._seen = NOWHERE  # the tracker's target when it was last believed
        self._doubtful = 0  # frames in a row on which it was not believed
        self._uncertain = 0  # frames since doubt began
        self._convincing = 0  # frames in a row on which an uncertain or lost one was, at one place
        self._rival: _Rival | None = None  # what may be the lost target, elsewhere than where the tracker was led
        self._left: _Rival | None = None  # where the tracker was led before it was found elsewhere
        self._watched = 0  # frames for which that place is watched yet
        self._places: Iterator[Box] = iter(())
        self._neighbours = Neighbours()
        self._suggested: list[Box] = []

    def suggest(self, boxes: Iterable[Box]) -> None:
        """Places where somebody else, a detector, sees something that may be the target.

        While it is lost these are looked at before the search's own places, one a frame, the one that is nearest in
        size first. What is there has to be as convincing as anything that the search comes upon. Nothing changes in
        other states; a newer suggestion replaces what is left of the one before.
        """
        if self._state == State.LOST:
            size = max(self._seen.area, 1e-6)
            self._suggested = sorted(boxes, key=lambda box: abs(math.log(max(box.area, 1e-6) / size)), reverse=True)

    def start(self, frame: Frame, box: Box) -> Report:
        """Take the target from `box` on `frame`, forgetting any earlier one.

        Raises:
            LightTrackError: the box is not finite, is empty or lies outside the frame, and an earlier target stays; or
                the verifier is another model's.
        """
        self._tracker.init(frame, box)
        judge = self._new_judge(frame, box)
        self._begin_anew()
        self._judge = judge
        self._state, self._seen = State.TRACKING, self._tracker.target
        return Report(self._state, clip_box(box, frame.width, frame.height), 1.0, whole=box)

    def look_ahead(self, frame: Frame, other: Session) -> bool:
        """Before the steps of two sessions on a frame, this one's and then the other's: see `Tracker.look_ahead`.

        Raises:
            LightTrackError: as `step`.
        """
        both_follow = State.IDLE not in (self._state, other._state)
        return both_follow and self._tracker.look_ahead(frame, other._tracker)

    def step(self, frame: Frame, others: Mapping[Hashable, Box] = _NOBODY) -> Report:
        """Find the target on the next frame; without a target, an idle report.

        Args:
            others: where the other targets are that are believed in, by anything that tells them apart; what is in
                their boxes is not taken for this one.

        Raises:
            LightTrackError: the tracker cannot work on this frame; nothing is lost, the next may follow.
        """
        if self._state == State.IDLE:
            return Report(self._state, NOWHERE, 0.0)
        expected = self._tracker.target
        estimate = self._tracker.update(frame)
        sight = self._tracker.sight()
        self._neighbours.look(others)
        hidden = False
        if self._state != State.LOST and self._neighbours.hold(self._tracker.target):
            estimate, sight, hidden = self._step_aside(expected, estimate, sight)
        verdict = Verdict(0.0, 0.0) if hidden else self._judge.verdict(frame, estimate, sight)
        if hidden:
            self._doubt(verdict, expected, frame)
            if self._neighbours.may_hide:
                self._doubtful = self._uncertain = 0  # it is known why it is not seen
        elif self._state == State.LOST:
            found = self._look_for_it(frame, expected, estimate, sight, verdict)
            if found is not None:
                estimate, sight = found
                verdict = self._judge.verdict(frame, estimate, sight)
                self._state, self._doubtful = State.TRACKING, 0
        else:
            if self._left is not None:
                back = self._watch(frame, self._left, estimate, sight)
                if back is not None:
                    estimate, sight = back
                    verdict = self._judge.verdict(frame, estimate, sight)
            self._doubt(verdict, expected, frame)
        if self._state == State.TRACKING:
            self._seen = self._tracker.target
            self._neighbours.settle(self._seen)
            if self._left is None:  # nothing is learned of what may be the wrong thing
                self._judge.learn(estimate, sight)
        whole = self._tracker.target
        visible = clip_box(whole, frame.width, frame.height)
        may_be_back = self._state == State.LOST and self._convincing
        state = State.UNCERTAIN if may_be_back else self._state
        return Report(state, visible, verdict.confidence, estimate.exit_index, estimate.network, whole)

    def _new_judge(self, frame: Frame, box: Box) -> Judge:
        if self._verifier is None or not self._tracker.has_sight:
            return ScoreJudge(self._settings)
        surroundings = self._tracker.surroundings(frame)
        # One look at the very frame of the start tells how the target and the things round it look in a search region.
        estimate = self._tracker.update(frame)
        sight = self._tracker.sight()
        channels = None if surroundings is None else surroundings.shape[1]
        if sight is None or surroundings is None or channels != len(self._verifier.cell_mean):
            raise LightTrackError(
                f"the model's verifier is for features of {len(self._verifier.cell_mean)} channels, its network gives "
                f"{channels or 'none'}: write it anew with lighttrack fit-session, or import the model again"
            )
        judge = VerifierJudge(self._verifier, estimate, sight, StartFilter(surroundings))
        self._tracker.init(frame, box)
        return judge

    def _step_aside(
        self, expected: Box, estimate: Estimate, sight: Sight | None
    ) -> tuple[Estimate, Sight | None, bool]:
        """The tracker was led to another target's box: what lies where this one should be, if there is something.

        Returns:
            Estimate and sight, and whether the target is hidden: it is then taken to be where it was moving to.
        """
        here, place = self._tracker.target, self._neighbours.place(expected)
        if place is None:
            return estimate, sight, False
        away = math.dist(here.centre, place.centre)
        if sight is not None:
            centres = [Box(*row).centre for row in sight.boxes.tolist()]
            rows = [row for row in range(1, len(centres)) if self._is_free(sight, row)]
            best = min(rows, key=lambda row: math.dist(centres[row], place.centre), default=0)
            if best and math.dist(centres[best], place.centre) < away:
                x, y = centres[best]
                box = expected._replace(x=x - expected.width / 2, y=y - expected.height / 2)
                self._tracker.target = box
                score = probability(float(sight.logits[best]))
                return replace(estimate, box=box, confidence=score), _with_first(sight, best), False
        if away <= math.sqrt(expected.area) / 2:
            return estimate, sight, False  # it may be the other that is hidden
        self._tracker.target = place
        return estimate, sight, True

    def _is_free(self, sight: Sight, row: int) -> bool:
        """Whether a candidate is a thing to see, and no other target."""
        box = Box(*sight.boxes[row].tolist())
        return probability(float(sight.logits[row])) >= _SEEN and not self._neighbours.hold(box)

    def _same(self, estimate: Estimate, sight: Sight | None) -> NDArray[np.float64]:
        """What the judge says of each candidate; those that are another target are never this one."""
        odds = self._judge.same(estimate, sight).copy()
        rows = [self._tracker.target] if sight is None else [Box(*row) for row in sight.boxes.tolist()]
        for row, box in zip(range(len(odds)), rows, strict=False):
            if self._neighbours.hold(box):
                odds[row] = NEVER
        return odds

    def _doubt(self, verdict: Verdict, expected: Box, frame: Frame) -> None:
        """Between tracking and uncertain, and from there to lost."""
        settings = self._settings
        self._doubtful = self._doubtful + 1 if verdict.presence < settings.lost else 0
        doubted = verdict.confidence < settings.uncertain or verdict.presence < settings.lost
        if self._state == State.TRACKING and doubted:
            self._state, self._convincing, self._uncertain = State.UNCERTAIN, 0, 0
        if self._state == State.TRACKING:
            return
        self._uncertain += 1
        self._count(not doubted and verdict.confidence >= settings.sure, _near(self._tracker.target, expected))
        if self._convincing >= settings.found_frames:
            self._state = State.TRACKING
        elif self._doubtful >= settings.lost_frames or self._uncertain > _LONG:
            self._state, self._convincing, self._rival, self._left = State.LOST, 0, None, None
            self._suggested = []
            self._places = search_places(self._seen, frame)

    def _look_for_it(
        self, frame: Frame, expected: Box, estimate: Estimate, sight: Sight | None, verdict: Verdict
    ) -> tuple[Estimate, Sight | None] | None:
        """What the target is, if it was found: where the tracker was led, or elsewhere."""
        odds = self._same(estimate, sight)
        chance = probability(odds[0])
        convincing = chance >= self._settings.found or (verdict.presence >= self._settings.again and odds[0] > NEVER)
        self._count(convincing, _near(self._tracker.target, expected))
        if self._convincing >= self._settings.found_frames:
            self._judge.restart()
            return estimate, sight
        trail = _Rival(self._tracker.target, self._tracker.place, 0)
        rival = self._rival
        if rival is None:
            self._tracker.target = self._next_place(frame)
        else:
            self._tracker.place = rival.place
        estimate = self._tracker.update(frame)
        sight = self._tracker.sight()
        odds = self._same(estimate, sight)
        if rival is None:
            self._rival = self._candidate(estimate, sight, odds)
        elif probability(odds[0]) >= self._settings.found and _near(self._tracker.target, rival.box):
            self._rival = _Rival(self._tracker.target, self._tracker.place, rival.frames + 1)
        else:
            self._rival = None
        if self._rival is not None and self._rival.frames >= self._settings.found_frames:
            self._left, self._watched = trail, _WATCHED
            self._judge.restart()
            return estimate, sight
        self._tracker.place = trail.place
        return None

    def _next_place(self, frame: Frame) -> Box:
        while self._suggested:
            visible = clip_box(self._suggested.pop(), frame.width, frame.height)
            if min(visible.width, visible.height) >= 1:
                return visible
        return next(self._places)

    def _watch(
        self, frame: Frame, left: _Rival, estimate: Estimate, sight: Sight | None
    ) -> tuple[Estimate, Sight | None] | None:
        """What the target is, if it is where the tracker was led before after all."""
        here, odds = self._tracker.place, self._same(estimate, sight)[0]
        self._tracker.place = left.place
        estimate = self._tracker.update(frame)
        sight = self._tracker.sight()
        there = self._same(estimate, sight)[0]
        better = there > odds and probability(there) >= self._settings.found
        self._left = _Rival(self._tracker.target, self._tracker.place, left.frames + 1 if better else 0)
        self._watched -= 1
        if self._left.frames >= self._settings.found_frames:
            self._left = None
            self._judge.restart()
            return estimate, sight
        self._tracker.place = here
        if not self._watched:
            self._left = None
        return None

    def _candidate(self, estimate: Estimate, sight: Sight | None, odds: NDArray[np.float64]) -> _Rival | None:
        """The most convincing of what one look showed."""
        best = int(np.argmax(odds))
        if probability(odds[best]) < self._settings.found:
            return None
        if best and sight is not None:
            self._tracker.target = Box(*sight.boxes[best].tolist())
        return _Rival(self._tracker.target, self._tracker.place, 1)

    def _count(self, convincing: bool, near: bool) -> None:
        """Convincing frames in a row, at one place."""
        if not convincing:
            self._convincing = 0
        else:
            self._convincing = self._convincing + 1 if near or not self._convincing else 1


@dataclass(frozen=True)
class _Rival:
    """What may be the target beside what is taken for it."""

    box: Box
    place: object  # the tracker's
    frames: int  # in a row on which it was convincing


def _with_first(sight: Sight, row: int) -> Sight:
    """As if the tracker had taken another candidate."""
    order = [row, *(other for other in range(len(sight.boxes)) if other != row)]
    patches = None if sight.patches is None else sight.patches[order]
    return replace(sight, boxes=sight.boxes[order], logits=sight.logits[order], patches=patches)


def _near(found: Box, expected: Box) -> bool:
    """Whether a target may have got from one place to the other within a frame: by its own size."""
    distance = math.dist(found.centre, expected.centre)
    return distance <= math.sqrt(expected.area)
