"""`lighttrack bench latency`: camera, tracker and observer in three processes, and what passes between them timed.

Beside every run of the tracker one of an echo that does nothing: what it takes is the transport's, the rest the
node's. docs/latency.md explains the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lighttrack_ros.commands.track import parse_box
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import latency
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.evaluation.latency import MISSED_LIMIT, PARTS, Run
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.bag import ImageBag
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene
from lighttrack_ros.media.sequences import INIT_FILE, TRUTH_FILES, load_sequence, read_boxes, save_scene
from lighttrack_ros.media.video import VideoFile, check_writable, parse_size
from lighttrack_ros.models import load_model
from lighttrack_ros.node.messages import read_compressed_image, read_header, read_image
from lighttrack_ros.pictures import latency_plot
from lighttrack_ros.rig.latency_rig import ECHO, NODE, Clip, Rig
from lighttrack_ros.trackers.base import check_box

_SCENE_FPS = 30.0
_CLIP_BYTES = 512 << 20  # of pixels: the camera holds them all
_CLIP_FRAMES = 300
_EASY_RATE = 15.0  # Hz: at which what a step takes is found out
_PROBE_SECONDS = 3.0
_PROBES = 14
_BUSY = 20.0  # percent of a core that others may take before the figures are of them
_FACTORS = (2.0, 5.0, 20.0)


def run(args: argparse.Namespace) -> int:
    # Whatever can be wrong with the arguments is found before anything is started.
    rate = _rate(args.rate)
    factors = None if args.overload is None else tuple(args.overload) or _FACTORS
    if factors is not None and not all(0 < factor <= 1000 for factor in factors):
        raise LightTrackError(f"--overload is {args.overload}, expected factors over 0")
    if args.runs < 1:
        raise LightTrackError(f"--runs is {args.runs}, expected at least 1")
    if not 0.5 <= args.seconds <= 86400:
        raise LightTrackError(f"--seconds is {args.seconds}, expected 0.5 to 86400")
    if args.json is not None:
        check_writable(args.json)
    if args.plot is not None:
        check_writable(args.plot, (".png",))
    model = load_model(args.model)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lighttrack_latency_")))
        clip = stack.enter_context(_clip(args, folder))
        rig = stack.enter_context(Rig(clip, model, args.backend, folder))
        title = f"{model.name}, {clip.title}"
        print(f"{title}; {describe_machine()}", flush=True)
        if factors is not None:
            figures = _overload(rig, factors, args.seconds, title, args.plot)
        else:
            figures = _steady(rig, rate, args.runs, args.seconds, title, args.plot)
    if args.json is not None:
        head = {"model": model.name, "clip": clip.title, "machine": describe_machine()}
        args.json.write_text(json.dumps({**head, **figures}, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"figures: {args.json}")
    if args.plot is not None:
        print(f"plot: {args.plot}")
    return 0


def _steady(rig: Rig, rate: float, count: int, seconds: float, title: str, plot: Path | None) -> dict[str, Any]:
    """Runs of tracker and echo in turn at a rate that the tracker may keep up with."""
    peak = None
    if math.isinf(rate):
        peak = rate = _peak_throughput(rig)
    runs: dict[str, list[Run]] = {NODE: [], ECHO: []}
    for number in range(count):
        for who in (NODE, ECHO) if number % 2 else (ECHO, NODE):
            runs[who].append(rig.measure(who, rate, seconds))
        p50s = {who: 1e3 * float(np.median(of[-1].latencies)) for who, of in runs.items()}
        words = f"node p50 {p50s[NODE]:.2f} ms, echo p50 {p50s[ECHO]:.2f} ms"
        print(f"run {number + 1} of {count}: {words}, {runs[NODE][-1].missed} missed", flush=True)
    each = {who: [run.figures() for run in of] for who, of in runs.items()}
    figures: dict[str, Any] = {"rate_hz": rate, "seconds": seconds, "runs": count}
    if peak is not None:
        figures["peak_throughput_hz"] = peak
    figures |= {who: latency.conclude(of) for who, of in each.items()}
    figures["added_ms"] = latency.added(runs[NODE], runs[ECHO])
    figures["each_run"] = each
    _print_steady(figures)
    if plot is not None:
        subtitle = f"{count} runs of {seconds:g} s at {rate:g} Hz; {describe_machine()}"
        latency_plot.draw_steady(plot, title, subtitle, figures, runs[NODE], runs[ECHO])
    return figures


def _peak_throughput(rig: Rig) -> float:
    """The highest rate of which less than 5 % is missed, found to 5 %."""
    rate = 0.8 / rig.measure(NODE, _EASY_RATE, _PROBE_SECONDS).step
    good, bad = 0.0, math.inf
    for _ in range(_PROBES):
        run = rig.measure(NODE, rate, _PROBE_SECONDS)
        camera_behind = run.camera_rate < (1 - MISSED_LIMIT) * rate
        words = f"camera at {run.camera_rate:.3g} Hz: {100 * run.missed / len(run.sent):.1f} % missed"
        print(f"looking for the peak: {words}", flush=True)
        if run.keeps_up:
            good = max(good, run.camera_rate)
            if camera_behind:
                print(f"the camera's process sends no more than {run.camera_rate:.0f} Hz: the peak may be higher")
                return good
        else:
            bad = min(bad, rate)
        if bad < 1.05 * good:
            break
        rate = 1.3 * rate if math.isinf(bad) else 0.7 * rate if not good else math.sqrt(good * bad)
    if not good:
        raise LightTrackError(f"more than 5 % missed even at {rate:.1f} Hz: the machine is too busy to tell a peak")
    return good


def _overload(rig: Rig, factors: Sequence[float], seconds: float, title: str, plot: Path | None) -> dict[str, Any]:
    """Cameras that the tracker cannot keep up with; one run of each."""
    easy = rig.measure(NODE, _EASY_RATE, _PROBE_SECONDS)
    can = 1 / easy.step
    print(f"the tracker can do {can:.1f} frames a second, {1e3 * easy.step:.2f} ms each", flush=True)
    runs, rows = [], []
    for factor in factors:
        run = rig.measure(NODE, factor * can, seconds)
        runs.append(run)
        rows.append({"factor": factor, "asked_hz": factor * can, **run.figures(), "over_time": latency.over_time(run)})
        _print_overload(rows[-1], first=len(rows) == 1)
    if plot is not None:
        subtitle = f"cameras faster than the tracker, {seconds:g} s each; {describe_machine()}"
        latency_plot.draw_overload(plot, title, subtitle, factors, can, runs)
    return {"seconds": seconds, "step_ms": 1e3 * easy.step, "can_hz": can, "overload": rows}


@contextmanager
def _clip(args: argparse.Namespace, folder: Path) -> Iterator[Clip]:
    """What the arguments say is to be shown; `folder` holds a painted scene until the end."""
    if args.topic is not None and args.bag is None:
        raise LightTrackError("--topic goes with --bag")
    box = None if args.box is None else parse_box(args.box)
    if args.bag is not None:
        yield _clip_of_bag(args.bag, args.topic, box)
    elif args.sequence is not None:
        yield _clip_of_sequence(args.sequence, box)
    else:
        if box is not None:
            raise LightTrackError("--box goes with --bag or --sequence: the generated scene knows its target")
        width, height = parse_size(args.size)
        count = _affordable(3 * width * height)
        scene = Scene(DEFAULT_SEED, width, height, _SCENE_FPS)
        with tqdm(desc="painting the scene", total=count, unit="frame", leave=False, disable=None) as bar:
            painted = save_scene(itertools.islice(scene, count), folder / "scene", bar.update)
        title = f"generated scene {width}x{height}"
        yield Clip(title, str(folder / "scene"), None, False, count, painted.init_box)


def _clip_of_bag(path: Path, topic: str | None, box: Box | None) -> Clip:
    bag = ImageBag(path, topic)
    try:
        _, message = next(iter(bag))
    finally:
        bag.close()
    if box is None:
        place = path if path.is_dir() else path.parent
        known = next((place / name for name in (*TRUTH_FILES, INIT_FILE) if (place / name).is_file()), None)
        if known is None:
            raise LightTrackError(f"{path}: --box is missing: which target? (left,top,width,height)")
        box = Box(*(float(value) for value in read_boxes(known)[0]))
    compressed = bag.message_type.endswith("CompressedImage")
    header = read_header(message)
    check_box(read_compressed_image(header) if compressed else read_image(header), box)
    frames = min(bag.count, _affordable(len(message)))
    return Clip(f"{path.name} {bag.topic}", str(path), bag.topic, compressed, frames, box)


def _clip_of_sequence(path: Path, box: Box | None) -> Clip:
    sequence = load_sequence(path)
    frames = sequence.frames
    first = next(iter(frames))
    height, width = first.shape[:2]
    box = box or sequence.init_box
    check_box(from_bgr(first), box)
    source = frames.path if isinstance(frames, VideoFile) else path
    count = min(frames.count or _CLIP_FRAMES, _affordable(3 * width * height))
    return Clip(f"{sequence.name} {width}x{height}", str(source), None, False, count, box)


def _affordable(frame_bytes: int) -> int:
    return max(2, min(_CLIP_FRAMES, _CLIP_BYTES // frame_bytes))


def _rate(text: str) -> float:
    if text == "max":
        return math.inf
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 1 <= rate <= 10_000:
        raise LightTrackError(f"--rate is {text!r}, expected frames a second (1 to 10000) or max")
    return rate


def _print_steady(figures: dict[str, Any]) -> None:
    node, echo, added = figures[NODE], figures[ECHO], figures["added_ms"]
    columns = ("mean", "min", "p50", "p95", "p99", "max", "std")
    print(f"\n{'ms':34}" + "".join(f"{name:>8}" for name in columns))
    rows = [("end-to-end latency, node", node["latency_ms"]), ("end-to-end latency, echo", echo["latency_ms"])]
    rows += [(f"  {name}", node["parts_ms"][name]) for name in PARTS]
    for name, row in rows:
        print(f"{name:34}" + "".join(f"{row[column]:8.2f}" for column in columns))
    print(
        f"the node adds to the transport    {added['all']:8.2f} (network {added['network']:.2f}, "
        f"all else {added['rest']:.2f})"
    )
    for who, of in ((NODE, node), (ECHO, echo)):
        jitter, frames, rate = of["jitter_ms"], of["frames"], of["rate_hz"]
        print(
            f"{who}: jitter mean {jitter['mean']:.2f}, max {jitter['max']:.2f} ms; {frames['sent']:.0f} frames sent, "
            f"{frames['missed']:.1f} missed ({frames['skipped']:.1f} of them skipped for a newer one); "
            f"camera {rate['camera']:.1f}, boxes {rate['boxes']:.1f} Hz"
        )
        cpu = ", ".join(f"{name} {share:.1f}" for name, share in of["cpu_percent"].items())
        memory = ", ".join(f"{name} {size:.0f}" for name, size in of["memory_mb"].items())
        print(f"{who}: % of a core: {cpu}; resident MB: {memory}")
    others = max(node["cpu_percent"]["others"], echo["cpu_percent"]["others"])
    if others > _BUSY:
        print(f"the machine is busy: others took {others:.0f} % of a core; of these figures only ratios mean something")
    if "peak_throughput_hz" in figures:
        print(f"peak throughput: {figures['peak_throughput_hz']:.1f} Hz (highest rate with under 5 % missed)")


def _print_overload(row: dict[str, Any], first: bool) -> None:
    if first:
        print(
            f"\n{'factor':>7}{'asked':>8}{'sent':>8}{'boxes':>8}{'skipped':>9}{'lost':>8} |"
            f"{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'step':>8} ms | box ready:{'p50':>6}{'p99':>8}{'max':>8} ms |"
            f"{'p50: first fifth':>17}{'last':>7} ms |{'MB: at first':>16}{'last':>7}"
        )
    frames, rate, times, parts = row["frames"], row["rate_hz"], row["latency_ms"], row["parts_ms"]
    step = sum(parts[name]["p50"] for name in ("crop", "network", "decode"))
    ready, fifths = row["ready_ms"], row["over_time"]
    lost = frames["missed"] - frames["skipped"]
    print(
        f"{row['factor']:7g}{row['asked_hz']:8.0f}{rate['camera']:8.0f}{rate['boxes']:8.1f}{frames['skipped']:9d}"
        f"{lost:8d} |{times['p50']:8.2f}{times['p95']:8.2f}{times['p99']:8.2f}{times['max']:8.2f}{step:8.2f}    |"
        f"{ready['p50']:17.2f}{ready['p99']:8.2f}{ready['max']:8.2f}    |"
        f"{fifths['latency_p50_ms'][0]:17.2f}{fifths['latency_p50_ms'][-1]:7.2f}    |"
        f"{fifths['node_memory_mb'][0]:16.1f}{fifths['node_memory_mb'][-1]:7.1f}",
        flush=True,
    )
