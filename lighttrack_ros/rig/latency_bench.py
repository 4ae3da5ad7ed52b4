"""What the latency benchmark measures, beside every run of the tracker one of an echo that does nothing.

What the echo takes is the transport's own, the rest is the node's. docs/latency.md explains the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import latency
from lighttrack_ros.evaluation.latency import MISSED_LIMIT, Run
from lighttrack_ros.rig.latency_rig import ECHO, NODE, Rig
from lighttrack_ros.rig.load import busy_processes

_EASY_RATE = 15.0  # Hz: at which what a step takes is found out
_PROBE_SECONDS = 3.0
_PROBES = 14
LOADED = "loaded"  # the node's figures beside busy processes
VIEWED = "viewed"  # and while somebody watches it on the viewer's page

Tell = Callable[[str], object]  # what is going on, a line each


@dataclass(frozen=True)
class Steady:
    """Runs of node and echo in turn, and what they come to."""

    node: list[Run]
    echo: list[Run]
    beside: dict[str, list[Run]]  # of the node, while something else was at work: LOADED, VIEWED
    figures: dict[str, Any]


@dataclass(frozen=True)
class Overload:
    """One run of each factor by which the camera is faster than the tracker."""

    factors: Sequence[float]
    runs: list[Run]
    can: float  # frames a second that the tracker can do
    figures: dict[str, Any]


def measure_steady(
    rig: Rig, rate: float, count: int, seconds: float, tell: Tell, load: int = 0, viewer: bool = False
) -> Steady:
    """Runs of tracker and echo in turn at a rate that the tracker may keep up with.

    Args:
        rate: frames a second; inf looks for the highest of which less than 5 % is missed.
        count, seconds: how many runs of each, and of what length.
        load: busy processes beside a further run of the tracker in each turn.
        viewer: whether there is another run in each turn, while somebody watches on the viewer's page.

    Raises:
        LightTrackError: a process ended, too few boxes came, or no rate is low enough.
    """
    peak = None
    if math.isinf(rate):
        peak = rate = _peak_throughput(rig, tell)
    runs: dict[str, list[Run]] = {NODE: [], ECHO: []}
    company: dict[str, Callable[[], AbstractContextManager[None]]] = {}
    if load:
        company[LOADED] = lambda: busy_processes(load)
    if viewer:
        company[VIEWED] = rig.viewer
    beside: dict[str, list[Run]] = {name: [] for name in company}
    for number in range(count):
        for who in (NODE, ECHO) if number % 2 else (ECHO, NODE):
            runs[who].append(rig.measure(who, rate, seconds))
        p50s = {who: 1e3 * float(np.median(of[-1].latencies)) for who, of in runs.items()}
        words = f"node p50 {p50s[NODE]:.2f} ms, echo p50 {p50s[ECHO]:.2f} ms"
        words += f", {runs[NODE][-1].missed} missed"
        for name, join in company.items():
            with join():
                run = rig.measure(NODE, rate, seconds)
            beside[name].append(run)
            words += f"; {name} p50 {1e3 * float(np.median(run.latencies)):.2f} ms, {run.missed} missed"
        tell(f"run {number + 1} of {count}: {words}")
    each = {who: [run.figures() for run in of] for who, of in runs.items()}
    figures: dict[str, Any] = {"rate_hz": rate, "seconds": seconds, "runs": count}
    if peak is not None:
        figures["peak_throughput_hz"] = peak
    figures |= {who: latency.conclude(of) for who, of in each.items()}
    figures["added_ms"] = latency.added(runs[NODE], runs[ECHO])
    if load:
        figures["load"] = load
    for name, of_it in beside.items():
        each[name] = [run.figures() for run in of_it]
        figures[name] = latency.conclude(each[name])
    if viewer:
        figures["page"] = rig.watched
    figures["each_run"] = each
    return Steady(runs[NODE], runs[ECHO], beside, figures)


def measure_step(rig: Rig) -> float:
    """Seconds that the tracker takes for a frame, at a rate that is easy to keep up with.

    Raises:
        LightTrackError: a process ended, or too few boxes came.
    """
    return rig.measure(NODE, _EASY_RATE, _PROBE_SECONDS).step


def measure_overload(
    rig: Rig, step: float, factors: Sequence[float], seconds: float, on_row: Callable[[dict[str, Any]], object]
) -> Overload:
    """Cameras that the tracker cannot keep up with; one run of each, its figures given to `on_row` as they come.

    Args:
        step: from `measure_step`.

    Raises:
        LightTrackError: a process ended, or too few boxes came.
    """
    can = 1 / step
    runs, rows = [], []
    for factor in factors:
        run = rig.measure(NODE, factor * can, seconds)
        runs.append(run)
        rows.append({"factor": factor, "asked_hz": factor * can, **run.figures(), "over_time": latency.over_time(run)})
        on_row(rows[-1])
    figures = {"seconds": seconds, "step_ms": 1e3 * step, "can_hz": can, "overload": rows}
    return Overload(factors, runs, can, figures)


def measure_targets(
    rig: Rig, rate: float, targets: Sequence[int], count: int, seconds: float, tell: Tell
) -> dict[str, Any]:
    """What further targets cost: runs with so many each, in turns.

    The targets are the same thing each, so that each costs what the first does. A frame's box is there when that of
    the last target is.

    Args:
        targets: how many the node follows, in rising order.
        count: runs of each.

    Raises:
        LightTrackError: a process ended, or too few boxes came.
    """
    runs: dict[int, list[Run]] = {number: [] for number in targets}
    # Memory is taken once and kept: with rising numbers each row shows what its own targets have added.
    for turn in range(count):
        for number in targets:
            run = rig.measure(NODE, rate, seconds, number)
            runs[number].append(run)
            answered = 100 * run.answers / (number * len(run.sent))
            tell(f"run {turn + 1} of {count}, {number} targets: p50 {1e3 * float(np.median(run.latencies)):.2f} ms, "
                 f"{answered:.0f} % of the boxes")  # fmt: skip
    rows = []
    for number, of in runs.items():
        row = latency.conclude([run.figures() for run in of])
        row["targets"] = number
        row["boxes_share"] = float(np.mean([run.answers / (number * len(run.sent)) for run in of]))
        row["memory_mb"] = of[0].figures()["memory_mb"]
        rows.append(row)
    return {"rate_hz": rate, "seconds": seconds, "runs": count, "targets": rows}


def _peak_throughput(rig: Rig, tell: Tell) -> float:
    """The highest rate of which less than 5 % is missed, found to 5 %."""
    rate = 0.8 / measure_step(rig)
    good, bad = 0.0, math.inf
    for _ in range(_PROBES):
        run = rig.measure(NODE, rate, _PROBE_SECONDS)
        camera_behind = run.camera_rate < (1 - MISSED_LIMIT) * rate
        words = f"camera at {run.camera_rate:.3g} Hz: {100 * run.missed / len(run.sent):.1f} % missed"
        tell(f"looking for the peak: {words}")
        if run.keeps_up:
            good = max(good, run.camera_rate)
            if camera_behind:
                tell(f"the camera's process sends no more than {run.camera_rate:.0f} Hz: the peak may be higher")
                return good
        else:
            bad = min(bad, rate)
        if bad < 1.05 * good:
            break
        rate = 1.3 * rate if math.isinf(bad) else 0.7 * rate if not good else math.sqrt(good * bad)
    if not good:
        raise LightTrackError(f"more than 5 % missed even at {rate:.1f} Hz: the machine is too busy to tell a peak")
    return good
