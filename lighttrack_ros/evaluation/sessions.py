"""`lighttrack evaluate --session`: sessions and the plain tracker over the same frames; what is their word worth?"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics, trust
from lighttrack_ros.evaluation.trust import Account, Trust
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.sequences import Sequence
from lighttrack_ros.session import Session, State
from lighttrack_ros.trackers.base import Tracker


@dataclass(frozen=True)
class SessionResult:
    """One sequence, gone through by the plain tracker and by a session.

    Attributes:
        account: boxes, confidences and states of both.
        plain_seconds, session_seconds: time of each step after the first, decoding of the file not included.
    """

    account: Account
    plain_seconds: list[float]
    session_seconds: list[float]

    @property
    def in_sight_seconds(self) -> tuple[list[float], list[float]]:
        """The plain tracker's and the session's steps on frames on which the session did not say lost."""
        kept = [index for index, state in enumerate(self.account.states[1:]) if state != State.LOST]
        return [self.plain_seconds[i] for i in kept], [self.session_seconds[i] for i in kept]


def run_sequence(
    plain: Tracker,
    tracker: Tracker,
    session: Session,
    sequence: Sequence,
    on_frame: Callable[[], object] | None = None,
) -> SessionResult:
    """Go through a sequence once, each frame by the plain tracker and by the session.

    Args:
        plain: a tracker of the same model; an earlier target of either is forgotten.
        tracker: the session's own, for its idle work.
        on_frame: called after every frame, e.g. to move a progress bar.

    Raises:
        LightTrackError: no truth, a frame that cannot be decoded, or fewer frames than truth boxes.
    """
    if sequence.truth is None:
        raise LightTrackError(f"{sequence.name}: no ground truth to evaluate against (only a first box)")
    boxes: list[tuple[float, ...]] = []
    plain_boxes: list[tuple[float, ...]] = []
    confidences: list[float] = []
    states: list[int] = []
    plain_seconds: list[float] = []
    session_seconds: list[float] = []
    for index, image in enumerate(sequence.frames):
        frame = from_bgr(image)
        begun = time.perf_counter()
        if index == 0:
            plain.init(frame, sequence.init_box)
            report = session.start(frame, sequence.init_box)
            plain_boxes.append(sequence.init_box)
            boxes.append(sequence.init_box)
        else:
            plain_boxes.append(plain.update(frame).box)
            between = time.perf_counter()
            report = session.step(frame)
            ended = time.perf_counter()
            plain_seconds.append(between - begun)
            session_seconds.append(ended - between)
            boxes.append(report.box)
            while plain.idle_work() or tracker.idle_work():  # no camera waits
                pass
        confidences.append(report.confidence)
        states.append(int(report.state))
        if on_frame is not None:
            on_frame()
    if len(boxes) != len(sequence.truth):
        raise LightTrackError(f"{sequence.name}: {len(boxes)} frames decoded, {len(sequence.truth)} lines of truth")
    account = Account(
        sequence.name,
        sequence.truth,
        np.array(plain_boxes, np.float64),
        np.array(boxes, np.float64),
        np.array(confidences, np.float64),
        np.array(states, np.int64),
    )
    return SessionResult(account, plain_seconds, session_seconds)


def run_all(plain: Tracker, tracker: Tracker, session: Session, found: Sequences[Sequence]) -> list[SessionResult]:
    """As `run_sequence`, with a table that grows while it works, and a summary."""
    width = max(4, *(len(sequence.name) for sequence in found))
    print(
        f"{'':{width}}  frames  absent   AUC plain session   AUROC    ECE      F   to lost  absent  good frames  good"
        "       back  missed\n"
        f"{'':{width}}                                                  states    (p90)  tracked  uncertain   lost"
        "  right/wrong  tracked"
    )
    results = []
    frames = sum(sequence.frames.count or 0 for sequence in found)
    with tqdm(total=frames, unit="frame", leave=False, disable=None) as bar:
        for sequence in found:
            bar.set_description(sequence.name)
            result = run_sequence(plain, tracker, session, sequence, bar.update)
            results.append(result)
            with tqdm.external_write_mode():
                print(row(sequence.name, width, trust.measure([result.account])), flush=True)
    if len(results) > 1:
        print(row("all", width, trust.measure([result.account for result in results])))
    print(cost(results))
    return results


def row(name: str, width: int, figures: Trust) -> str:
    """One line of the table."""

    def share(value: float | None) -> str:
        return "     -" if value is None else f"{100 * value:5.1f}%"

    def number(value: float | None) -> str:
        return "    -" if value is None else f"{value:5.3f}"

    def count(value: float | None) -> str:
        return "    -" if value is None else "never" if value == float("inf") else f"{value:5.0f}"

    return (
        f"{name:{width}}  {figures.frames:6d}  {figures.absent_frames:6d}       {figures.plain_auc:.3f}   "
        f"{figures.auc:.3f}   {number(figures.auroc)}  {figures.ece:.3f}  {figures.state_f_score:.3f}    "
        f"{count(figures.frames_to_lost_p90)}   {share(figures.absent_tracking)}     {share(figures.good_uncertain)} "
        f"{share(figures.good_lost)}  {share(figures.back_right)}/{share(figures.back_wrong).strip():6} "
        f"{share(figures.missed_tracking)}"
    )


def cost(results: Sequences[SessionResult]) -> str:
    """What the session adds to a step, in a line."""
    plain, session = ([s for result in results for s in result.in_sight_seconds[i]] for i in (0, 1))
    if not plain:
        return "the session never had the target in sight"
    added = np.array(session) - np.array(plain)
    median = float(np.median(added)) * 1000
    return (
        f"in sight, the session adds {median:.2f} ms to a step of {metrics.step_times(plain).p50:.2f} ms "
        f"({100 * median / max(metrics.step_times(plain).p50, 1e-9):.0f} %; medians of {len(plain)} steps)"
    )


def as_json(results: Sequences[SessionResult]) -> dict[str, Any]:
    """`{"all": figures, "sequences": {name: figures}}`; figures as `Trust` has them, and step times."""

    def figures(of: Sequences[SessionResult]) -> dict[str, Any]:
        return {
            **trust.measure([result.account for result in of]).as_json(),
            "plain_step_ms": _times([s for result in of for s in result.plain_seconds]),
            "session_step_ms": _times([s for result in of for s in result.session_seconds]),
        }

    return {"all": figures(results), "sequences": {result.account.name: figures([result]) for result in results}}


def _times(seconds: list[float]) -> dict[str, float | None]:
    times: NDArray[np.float64] = np.array(list(vars(metrics.step_times(seconds)).values()))
    # JSON knows no nan: a clip of one frame has no step times.
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in zip(("p50", "p95", "p99"), times, strict=True)
    }
