"""What a run of the demo leaves behind: figures, an annotated video and a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.drawing import STATE_COLOURS, draw_target, draw_truth
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.evaluation.video import FrameSource, VideoWriter
from lighttrack_ros.geometry import Box
from lighttrack_ros.session import State

_FONT = cv2.FONT_HERSHEY_DUPLEX
_PAPER, _PANEL, _INK, _FAINT = (28, 25, 23), (43, 39, 36), (235, 232, 228), (140, 134, 128)
_LATENCY_COLOUR, _OVERLAP_COLOUR = (255, 190, 110), (250, 250, 250)
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Observation:
    """What the node published about one frame, as an observer in another process saw it.

    Attributes:
        index: of the frame in its source.
        latency: seconds from the image's stamp to the box's arrival.
        processing: seconds, as the node told.
    """

    index: int
    box: Box
    state: State
    confidence: float
    latency: float
    processing: float


@dataclass(frozen=True)
class Run:
    """One run over one source.

    Attributes:
        sent: number of frames that the camera published.
        observations: by index of the frame; frames that the node skipped are missing.
        truth: (frames, 4) float64, nan where the target cannot be seen; None where it is not known.
        visible: (frames,) float64, share of the target that can be seen; with `truth`.
    """

    title: str
    subtitle: str
    fps: float
    sent: int
    observations: Mapping[int, Observation]
    truth: NDArray[np.float64] | None
    visible: NDArray[np.float64] | None

    @property
    def accuracy(self) -> metrics.Accuracy | None:
        """Over the frames that were answered and show the target; None without truth."""
        if self.truth is None:
            return None
        indices = [index for index in sorted(self.observations) if np.isfinite(self.truth[index]).all()]
        if not indices:
            return None
        boxes = np.array([self.observations[index].box for index in indices])
        return metrics.accuracy(boxes, self.truth[indices])

    def figures(self) -> dict[str, Any]:
        """Accuracy, latency, states, drops, as they go into the JSON file; times in milliseconds."""
        observations = [self.observations[index] for index in sorted(self.observations)]
        score = self.accuracy
        return {
            "frames": {
                "sent": self.sent,
                "answered": len(observations),
                "dropped": self.sent - len(observations),
            },
            "latency_ms": _spread([observation.latency * 1000 for observation in observations]),
            "processing_ms": _spread([observation.processing * 1000 for observation in observations]),
            "accuracy": None
            if score is None
            else {name: value for name, value in vars(score).items() if name != "frames"} | {"frames": score.frames},
            "states": dict(Counter(observation.state.name.lower() for observation in observations)),
            "hidden": self._hidden(),
        }

    def _hidden(self) -> dict[str, int] | None:
        """How lost is reported: frames on which the target cannot be seen, and what was said about them."""
        if self.truth is None:
            return None
        gone = {index for index, box in enumerate(self.truth) if not np.isfinite(box).all()}
        lost = {index for index, observation in self.observations.items() if observation.state == State.LOST}
        unsure = {index for index, observation in self.observations.items() if observation.state == State.UNCERTAIN}
        return {
            "frames": len(gone),
            "reported_lost": len(gone & lost),
            "reported_uncertain": len(gone & unsure),
            "visible_reported_lost": len(lost - gone),
        }


def write_video(path: Path, source: FrameSource, run: Run) -> None:
    """The source's frames with the boxes that were published for them; a skipped frame keeps the last one.

    Raises:
        LightTrackError: the file cannot be written.
    """
    last: Observation | None = None
    writer = None
    try:
        with tqdm(source, desc="annotating", total=source.count, unit="frame", leave=False, disable=None) as frames:
            for index, image in enumerate(frames):
                if writer is None:
                    writer = VideoWriter(path, image.shape[1], image.shape[0], run.fps)
                last = run.observations.get(index, last)
                writer.write(_annotated(image, index, last, run))
    finally:
        if writer is not None:
            writer.close()


def draw_contact_sheet(source: FrameSource, run: Run, width: int = 1600) -> Image:
    """One picture of the whole run: frames at its telling moments, then confidence, overlap and latency over time."""
    chosen = _telling(run, 8)
    tiles = []
    for index, image in enumerate(source):
        if index in chosen:
            observation = _latest(run, index)
            tiles.append((index, _annotated(image, index, observation, run), observation))
        if index >= max(chosen, default=0):
            break
    gap = 16
    tile_width = (width - 5 * gap) // 4
    shape = tiles[0][1].shape
    tile_height = round(tile_width * shape[0] / shape[1])
    rows = (len(tiles) + 3) // 4
    plots = [_plot_confidence, *([_plot_overlap] if run.truth is not None else []), _plot_latency]
    plot_height = 190
    top = 132
    height = top + rows * (tile_height + 30 + gap) + len(plots) * (plot_height + gap) + gap
    sheet: Image = np.full((height, width, 3), _PAPER, np.uint8)
    _headline(sheet, run, gap)
    for number, (index, image, observation) in enumerate(tiles):
        x = gap + (number % 4) * (tile_width + gap)
        y = top + (number // 4) * (tile_height + 30 + gap)
        size = (tile_width, tile_height)
        smooth = cv2.INTER_AREA if tile_width < shape[1] else cv2.INTER_CUBIC
        sheet[y : y + tile_height, x : x + tile_width] = cv2.resize(image, size, interpolation=smooth)
        _caption(sheet, index, observation, run, x, y + tile_height, tile_width)
    y = top + rows * (tile_height + 30 + gap)
    for plot in plots:
        area = sheet[y : y + plot_height, gap : width - gap]
        area[:] = plot(run, area.shape[1], plot_height, chosen)
        y += plot_height + gap
    return sheet


def _annotated(image: Image, index: int, observation: Observation | None, run: Run) -> Image:
    annotated = image.copy()
    if run.truth is not None:
        draw_truth(annotated, Box(*(float(value) for value in run.truth[index])))
    if observation is not None:
        draw_target(annotated, observation.box, observation.state, observation.confidence)
    return annotated


def _telling(run: Run, count: int) -> list[int]:
    """Indices worth a picture: the start, changes of state, the worst hidden moment, the end; then evenly spaced."""
    indices = sorted(run.observations)
    if len(indices) <= count:
        return indices
    wanted = [indices[0], indices[-1]]
    changes = [
        after for before, after in pairwise(indices) if run.observations[before].state != run.observations[after].state
    ]
    if run.visible is not None:
        visible = run.visible[indices]
        if visible.min() < 1:
            wanted.append(indices[int(np.argmin(visible))])
    room = count - 2
    wanted += changes[:: max(1, -(-len(changes) // max(1, room - 3)))]
    spacing = len(indices) / (4 * count)
    chosen: list[int] = []
    for index in wanted:
        if len(chosen) < count and all(abs(index - other) > spacing for other in chosen):
            chosen.append(index)
    while len(chosen) < count:  # fill the widest gaps
        chosen.sort()
        before, after = max(pairwise(chosen), key=lambda pair: pair[1] - pair[0])
        middle = min(indices, key=lambda index: abs(index - (before + after) / 2))
        if middle in chosen:
            break
        chosen.append(middle)
    return sorted(chosen)


def _latest(run: Run, index: int) -> Observation | None:
    known = [number for number in run.observations if number <= index]
    return run.observations[max(known)] if known else None


def _headline(sheet: Image, run: Run, gap: int) -> None:
    figures = run.figures()
    _text(sheet, run.title, gap, 40, 1.05, _INK)
    _text(sheet, run.subtitle, gap, 66, 0.5, _FAINT)
    latency, frames, score = figures["latency_ms"], figures["frames"], figures["accuracy"]
    facts = []
    if score is not None:
        facts += [("mean overlap", f"{score['iou']:.3f}"), ("success AUC", f"{score['auc']:.3f}")]
    if latency is not None:
        facts += [(f"latency {name}", f"{latency[name]:.1f} ms") for name in ("p50", "p95", "p99")]
    facts.append(("frames answered", f"{frames['answered']} / {frames['sent']}"))
    x = gap
    for name, value in facts:
        _text(sheet, value, x, 102, 0.72, _INK)
        _text(sheet, name, x, 121, 0.42, _FAINT)
        x += max(_width(value, 0.72), _width(name, 0.42)) + 46
    x = sheet.shape[1] - gap
    legend = [("truth", _OVERLAP_COLOUR)] if run.truth is not None else []
    legend += [(state.name.lower(), STATE_COLOURS[state]) for state in (State.LOST, State.UNCERTAIN, State.TRACKING)]
    for name, colour in legend:
        x -= _width(name, 0.46)
        _text(sheet, name, x, 40, 0.46, _INK)
        x -= 20
        cv2.rectangle(sheet, (x, 30), (x + 12, 40), colour, cv2.FILLED if name != "truth" else 1)
        x -= 18


def _caption(sheet: Image, index: int, observation: Observation | None, run: Run, x: int, y: int, width: int) -> None:
    sheet[y : y + 30, x : x + width] = _PANEL
    _text(sheet, f"{index / run.fps:5.2f} s", x + 8, y + 20, 0.46, _INK)
    if observation is None:
        return
    words = f"{observation.state.name.lower()} {observation.confidence:.2f}"
    if run.truth is not None:
        truth = run.truth[index]
        if np.isfinite(truth).all():
            overlap = metrics.overlaps(np.array([observation.box]), truth[None])[0]
            words += f"   overlap {overlap:.2f}"
        else:
            words += "   target hidden"
    _text(sheet, words, x + width - 8 - _width(words, 0.46), y + 20, 0.46, STATE_COLOURS[observation.state])


class _Plot:
    """A strip with time along it and one quantity up it."""

    left, right, low, high = 62, 14, 26, 30

    def __init__(self, run: Run, width: int, height: int, title: str, limits: tuple[float, float]) -> None:
        self.image: Image = np.full((height, width, 3), _PANEL, np.uint8)
        self._last = max(run.sent - 1, 1)
        self._fps = run.fps
        self._limits = limits
        _text(self.image, title, self.left, 20, 0.48, _INK)

    def x(self, index: float) -> int:
        return round(self.left + index / self._last * (self.image.shape[1] - self.left - self.right))

    def y(self, value: float) -> int:
        low, high = self._limits
        share = (min(max(value, low), high) - low) / (high - low)
        return round(self.image.shape[0] - self.low - share * (self.image.shape[0] - self.low - self.high))

    def axes(self, ticks: list[float], unit: str, marks: list[int]) -> None:
        for mark in marks:  # the moments shown above
            cv2.line(self.image, (self.x(mark), self.high), (self.x(mark), self.y(self._limits[0])), (66, 61, 57), 1)
        for tick in ticks:
            y = self.y(tick)
            cv2.line(self.image, (self.left, y), (self.image.shape[1] - self.right, y), (72, 66, 62), 1)
            text = f"{tick:g}{unit}"
            _text(self.image, text, self.left - 8 - _width(text, 0.38), y + 4, 0.38, _FAINT)
        seconds = self._last / self._fps
        step = next((step for step in (0.5, 1, 2, 5, 10, 30, 60, 120, 300) if seconds / step <= 14), 600)
        for second in np.arange(0, seconds + 1e-6, step):
            text = f"{second:g} s"
            x = self.x(float(second) * self._fps)
            x = min(x - _width(text, 0.38) // 2, self.image.shape[1] - 4 - _width(text, 0.38))
            _text(self.image, text, x, self.image.shape[0] - 9, 0.38, _FAINT)

    def line(self, indices: list[int], values: list[float], colours: list[tuple[int, int, int]]) -> None:
        """Pieces between neighbouring frames, each in the colour of its end; none next to a value of nan."""
        pieces = pairwise(zip(indices, values, colours, strict=True))
        for (index, value, _), (next_index, next_value, colour) in pieces:
            if np.isfinite(value) and np.isfinite(next_value):
                ends = (self.x(index), self.y(value)), (self.x(next_index), self.y(next_value))
                cv2.line(self.image, *ends, colour, 2, cv2.LINE_AA)

    def shade(self, indices: Iterable[int], colour: tuple[int, int, int], share: float) -> None:
        """Tint the columns of some frames."""
        top, bottom = self.high, self.y(self._limits[0])
        for index in indices:
            left, right = max(self.x(index - 0.5), self.left), max(self.x(index + 0.5), self.x(index - 0.5) + 1)
            area = self.image[top:bottom, left:right]
            area[:] = np.round(area * (1 - share) + np.array(colour) * share).astype(np.uint8)


def _plot_confidence(run: Run, width: int, height: int, marks: list[int]) -> Image:
    plot = _Plot(run, width, height, "confidence, by state", (0.0, 1.0))
    indices = sorted(run.observations)
    observations = [run.observations[index] for index in indices]
    for seen, following in zip(observations, [*indices[1:], run.sent], strict=True):
        if seen.state in (State.UNCERTAIN, State.LOST):  # what was said holds until the next word
            plot.shade(range(seen.index, following), STATE_COLOURS[seen.state], 0.22)
    plot.axes([0, 0.5, 1], "", marks)
    plot.line(indices, [seen.confidence for seen in observations], [STATE_COLOURS[seen.state] for seen in observations])
    return plot.image


def _plot_overlap(run: Run, width: int, height: int, marks: list[int]) -> Image:
    assert run.truth is not None
    assert run.visible is not None
    plot = _Plot(run, width, height, "overlap with the truth; shaded: how much of the target is hidden", (0.0, 1.0))
    for share in (0.15, 0.4, 0.65, 0.85):  # darker the more is hidden
        plot.shade([index for index in range(run.sent) if 1 - run.visible[index] > share], (120, 112, 104), 0.18)
    plot.axes([0, 0.5, 1], "", marks)
    indices = sorted(run.observations)
    boxes = np.array([run.observations[index].box for index in indices]).reshape(-1, 4)
    truth = run.truth[indices]
    seen = np.isfinite(truth).all(axis=1)
    values = np.where(seen, metrics.overlaps(boxes, np.nan_to_num(truth)), np.nan)
    plot.line(indices, values.tolist(), [_OVERLAP_COLOUR] * len(indices))
    return plot.image


def _plot_latency(run: Run, width: int, height: int, marks: list[int]) -> Image:
    indices = sorted(run.observations)
    values = [run.observations[index].latency * 1000 for index in indices]
    processing = [run.observations[index].processing * 1000 for index in indices]
    top = float(np.percentile(values, 99)) * 1.35 if values else 1.0
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if top / step <= 6)
    title = "latency from the image's stamp to the box received, ms; dim: the node's own processing"
    plot = _Plot(run, width, height, title, (0.0, max(top, 1.0)))
    plot.axes([float(tick) for tick in np.arange(0, top, step)], "", marks)
    plot.line(indices, processing, [(120, 104, 84)] * len(indices))
    plot.line(indices, values, [_LATENCY_COLOUR] * len(indices))
    if values:
        median = float(np.median(values))
        cv2.line(plot.image, (plot.left, plot.y(median)), (width - plot.right, plot.y(median)), _INK, 1)
        text = f"p50 {median:.1f}"
        left, baseline = width - plot.right - _width(text, 0.42) - 4, plot.y(median) - 6
        plot.image[baseline - 13 : baseline + 4, left - 4 : width - plot.right] = _PANEL
        _text(plot.image, text, left, baseline, 0.42, _INK)
    return plot.image


def _text(image: Image, text: str, x: int, y: int, scale: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, (x, y), _FONT, scale, colour, 1, cv2.LINE_AA)


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "mean": float(np.mean(values)),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(np.max(values)),
    }
