"""`lighttrack bench latency`: end-to-end latency of camera, tracker and observer in three processes, and its parts."""

from __future__ import annotations

import argparse
import functools
import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lighttrack_ros.commands.arguments import parse_box, parse_rate
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.evaluation.latency import MISSED_LIMIT, PARTS
from lighttrack_ros.media.frames import parse_size
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.pictures.plot_file import check_plot
from lighttrack_ros.rig.latency_bench import (
    LOADED,
    VIEWED,
    Overload,
    Steady,
    measure_overload,
    measure_steady,
    measure_step,
    measure_targets,
)
from lighttrack_ros.rig.latency_clips import clip_of_bag, clip_of_scene, clip_of_sequence
from lighttrack_ros.rig.latency_rig import ECHO, NODE, Clip, Rig
from lighttrack_ros.session import MOST_TARGETS

_BUSY = 20.0  # percent of a core that others may take before the figures are of them
_FACTORS = (2.0, 5.0, 20.0)
_tell = functools.partial(print, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bag", type=Path, metavar="BAG", help="a rosbag2 (default: the generated scene)")
    source.add_argument("--sequence", type=Path, metavar="DIR", help="frames or a video with a file of boxes")
    parser.add_argument("--topic", help="topic of the bag's images (default: its only image topic)")
    parser.add_argument("--box", metavar="X,Y,W,H", help="the target in the first frame, pixels")
    parser.add_argument("--size", default="640x480", help="of the generated scene (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="the node's parameter of that name (default: its own)")
    parser.add_argument("--spin", action="store_true", help="let ONNX Runtime's threads wait busily between images")
    parser.add_argument("--nice", type=int, help="nice value of the node's threads, to compare")
    parser.add_argument("--fifo-priority", type=int, help="SCHED_FIFO priority of the node's threads, to compare")
    parser.add_argument(
        "--load", type=int, default=0, metavar="N", help="measure beside N busy processes too (default: %(default)s)"
    )
    parser.add_argument("--viewer", action="store_true", help="measure while somebody watches on the viewer's page too")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate", default="30", help="frames per second; max: the highest rate with under 5 %% missed (default: 30)"
    )
    pace.add_argument(
        "--overload",
        nargs="*",
        type=float,
        metavar="FACTOR",
        help="measure cameras this many times faster than the tracker instead (default: 2 5 20)",
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        type=int,
        metavar="N",
        help="measure what further targets cost instead: 1 2 4 8 (docs/performance.md)",
    )
    parser.add_argument("--runs", type=int, default=5, help="the best and the worst are dropped (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run (default: %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw latency over time, its distribution, its parts: .png, .svg, .pdf",
    )


def run(args: argparse.Namespace) -> int:
    # Whatever can be wrong with the arguments is found before anything is started.
    rate = parse_rate(args.rate, least=1)
    factors = None if args.overload is None else tuple(args.overload) or _FACTORS
    if factors is not None and not all(0 < factor <= 1000 for factor in factors):
        raise LightTrackError(f"--overload is {args.overload}, expected factors over 0")
    if args.runs < 1:
        raise LightTrackError(f"--runs is {args.runs}, expected at least 1")
    if not 0.5 <= args.seconds <= 86400:
        raise LightTrackError(f"--seconds is {args.seconds}, expected 0.5 to 86400")
    if not 0 <= args.load <= 1000:
        raise LightTrackError(f"--load is {args.load}, expected a number of busy processes, 0 to 1000")
    for name in ("load", "viewer"):
        if getattr(args, name) and factors is not None:
            raise LightTrackError(f"--{name} and --overload: one at a time")
    if args.targets is not None:
        if factors is not None or args.load or args.viewer or args.plot is not None or math.isinf(rate):
            words = "--overload, --load, --viewer or --plot"
            raise LightTrackError(f"--targets goes with a --rate in numbers, and not with {words}")
        if not all(1 <= number <= MOST_TARGETS for number in args.targets):
            raise LightTrackError(f"--targets is {args.targets}, expected numbers from 1 to {MOST_TARGETS}")
    parameters = {name: getattr(args, name) for name in ("threads", "spin", "nice", "fifo_priority")}
    parameters = {name: value for name, value in parameters.items() if value not in (None, False)}
    if args.plot is not None:
        check_plot(args.plot)
    model = load_model(args.model)
    inputs = [path for path in (args.bag, args.sequence) if path is not None]
    check_outputs([args.json, args.plot], [*inputs, model.folder])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lighttrack_latency_")))
        clip = _clip(args, folder)
        rig = stack.enter_context(Rig(clip, model, args.backend, folder, parameters))
        title = ", ".join([model.name, clip.title, *(f"{name} {value}" for name, value in parameters.items())])
        print(f"{title}; {describe_machine()}", flush=True)
        if args.targets is not None:
            targets = sorted(set(args.targets))
            figures = measure_targets(rig, rate, targets, args.runs, args.seconds, _tell)
            _print_targets(figures["targets"])
        elif factors is not None:
            step = measure_step(rig)
            _tell(f"the tracker can do {1 / step:.1f} frames a second, {1e3 * step:.2f} ms each")
            _print_overload_head()
            overload = measure_overload(rig, step, factors, args.seconds, _print_overload)
            figures = overload.figures
            if args.plot is not None:
                subtitle = f"cameras faster than the tracker, {args.seconds:g} s each; {describe_machine()}"
                _plot_overload(args.plot, title, subtitle, factors, overload)
        else:
            steady = measure_steady(rig, rate, args.runs, args.seconds, _tell, args.load, args.viewer)
            figures = steady.figures
            _print_steady(figures)
            if args.plot is not None:
                subtitle = f"{args.runs} runs of {args.seconds:g} s at {figures['rate_hz']:g} Hz; {describe_machine()}"
                _plot_steady(args.plot, title, subtitle, steady)
    if args.json is not None:
        head = {"model": model.name, "clip": clip.title, "machine": describe_machine()}
        write_json(args.json, {**head, **figures})
        print(f"figures: {args.json}")
    if args.plot is not None:
        print(f"plot: {args.plot}")
    return 0


def _clip(args: argparse.Namespace, folder: Path) -> Clip:
    """The clip that the arguments describe; a generated scene is drawn into `folder`."""
    if args.topic is not None and args.bag is None:
        raise LightTrackError("--topic goes with --bag")
    box = None if args.box is None else parse_box(args.box)
    if args.bag is not None:
        return clip_of_bag(args.bag, args.topic, box)
    if args.sequence is not None:
        return clip_of_sequence(args.sequence, box)
    if box is not None:
        raise LightTrackError("--box goes with --bag or --sequence: the generated scene knows its target")
    return clip_of_scene(*parse_size(args.size), folder / "scene")


def _plot_steady(path: Path, title: str, subtitle: str, steady: Steady) -> None:
    from lighttrack_ros.pictures.figure import save  # loads matplotlib, an extra
    from lighttrack_ros.pictures.latency import draw_latency

    save(draw_latency(title, subtitle, steady.figures, steady.node, steady.echo), path)


def _plot_overload(path: Path, title: str, subtitle: str, factors: Sequence[float], overload: Overload) -> None:
    from lighttrack_ros.pictures.figure import save  # loads matplotlib, an extra
    from lighttrack_ros.pictures.overload import draw_overload

    save(draw_overload(title, subtitle, factors, overload.can, overload.runs), path)


def _print_steady(figures: dict[str, Any]) -> None:
    node, echo, added = figures[NODE], figures[ECHO], figures["added_ms"]
    columns = ("mean", "min", "p50", "p95", "p99", "max", "std")
    print(f"\n{'ms':34}" + "".join(f"{name:>8}" for name in columns))
    rows = [("end-to-end latency, node", node["latency_ms"]), ("end-to-end latency, echo", echo["latency_ms"])]
    rows += [(f"  {name}", node["parts_ms"][name]) for name in PARTS]
    beside = {LOADED: f"beside {figures.get('load')} busy processes", VIEWED: "with somebody at the viewer"}
    beside = {who: words for who, words in beside.items() if who in figures}
    for who, words in beside.items():
        rows.append((f"node {words}", figures[who]["latency_ms"]))
        rows += [(f"  {name}", figures[who]["parts_ms"][name]) for name in PARTS]
    for name, row in rows:
        print(f"{name:34}" + "".join(f"{row[column]:8.2f}" for column in columns))
    print(
        f"the node adds to the transport    {added['all']:8.2f} (network {added['network']:.2f}, "
        f"all else {added['rest']:.2f})"
    )
    for who, words in beside.items():
        ratios = {name: figures[who]["latency_ms"][name] / node["latency_ms"][name] for name in ("p50", "p95", "p99")}
        listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        print(f"{words} the node's latency is, times the other: {listed}")
    for who, of in ((NODE, node), (ECHO, echo), *((who, figures[who]) for who in beside)):
        jitter, frames, rate = of["jitter_ms"], of["frames"], of["rate_hz"]
        print(
            f"{who}: jitter mean {jitter['mean']:.2f}, max {jitter['max']:.2f} ms; {frames['sent']:.0f} frames sent, "
            f"{frames['missed']:.1f} missed ({frames['skipped']:.1f} of them skipped for a newer one); "
            f"camera {rate['camera']:.1f}, boxes {rate['boxes']:.1f} Hz"
        )
        cpu = ", ".join(f"{name} {share:.1f}" for name, share in of["cpu_percent"].items())
        memory = ", ".join(f"{name} {size:.0f}" for name, size in of["memory_mb"].items())
        print(f"{who}: % of a core: {cpu}; resident MB: {memory}")
    if VIEWED in beside:
        print(f"the page got {figures['page']}")
    others = max(node["cpu_percent"]["others"], echo["cpu_percent"]["others"])
    if others > _BUSY:
        print(f"the machine is busy: others took {others:.0f} % of a core; only ratios of these figures are reliable")
    if "peak_throughput_hz" in figures:
        print(f"peak throughput: {figures['peak_throughput_hz']:.1f} Hz (highest rate with under 5 % missed)")


def _print_targets(rows: Sequence[dict[str, Any]]) -> None:
    """What the columns mean: docs/performance.md, Several targets."""
    print(
        f"\n{'targets':>7} | all boxes there:{'p50':>7}{'p95':>8}{'p99':>8} ms |{'a further one':>14} ms |"
        f"{'boxes':>8} % | node: {'% of a core':>11}{'MB':>7}{'a further one':>15} MB"
    )
    first = rows[0]
    for row in rows:
        times, cpu, memory = row["latency_ms"], row["cpu_percent"][NODE], row["memory_mb"][NODE]
        further = row["targets"] - first["targets"]
        keeps_up = row["boxes_share"] > 1 - MISSED_LIMIT  # else the targets take turns, and none costs more
        cost = f"{(times['p50'] - first['latency_ms']['p50']) / further:.2f}" if further and keeps_up else "-"
        extra = f"{(memory - first['memory_mb'][NODE]) / further:15.2f}" if further else f"{'-':>15}"
        print(
            f"{row['targets']:7d} |{times['p50']:23.2f}{times['p95']:8.2f}{times['p99']:8.2f}    |{cost:>14}    |"
            f"{100 * row['boxes_share']:8.1f}   |{cpu:18.1f}{memory:7.0f}{extra}"
        )


def _print_overload_head() -> None:
    print(
        f"\n{'factor':>7}{'asked':>8}{'sent':>8}{'boxes':>8}{'skipped':>9}{'lost':>8} |"
        f"{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'step':>8} ms | box ready:{'p50':>6}{'p99':>8}{'max':>8} ms |"
        f"{'p50: first fifth':>17}{'last':>7} ms |{'MB: at first':>16}{'last':>7}"
    )


def _print_overload(row: dict[str, Any]) -> None:
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
