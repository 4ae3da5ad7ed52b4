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

from lighttrack_ros.evaluation import metrics
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.video import FrameSource, VideoWriter
from lighttrack_ros.pictures.chart import (
    FAINT,
    INK,
    PANEL,
    PAPER,
    Chart,
    Colour,
    Image,
    draw_text,
    text_width,
    ticks,
)
from lighttrack_ros.pictures.target import STATE_COLOURS, draw_target, draw_truth
from lighttrack_ros.session import State

_LATENCY_COLOUR, _OVERLAP_COLOUR = (255, 190, 110), (250, 250, 250)


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
    sheet: Image = np.full((height, width, 3), PAPER, np.uint8)
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
    """Indices worth a picture: start, end, lost, the worst hidden moment, changes of state; then evenly spaced."""
    indices = sorted(run.observations)
    if len(indices) <= count:
        return indices
    lost = [index for index in indices if run.observations[index].state == State.LOST]
    wanted = [indices[0], indices[-1], *lost[len(lost) // 2 :][:1]]
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
    draw_text(sheet, run.title, gap, 40, 1.05, INK)
    draw_text(sheet, run.subtitle, gap, 66, 0.5, FAINT)
    latency, frames, score = figures["latency_ms"], figures["frames"], figures["accuracy"]
    facts = []
    if score is not None:
        facts += [("mean overlap", f"{score['iou']:.3f}"), ("success AUC", f"{score['auc']:.3f}")]
    if latency is not None:
        facts += [(f"latency {name}", f"{latency[name]:.1f} ms") for name in ("p50", "p95", "p99")]
    facts.append(("frames answered", f"{frames['answered']} / {frames['sent']}"))
    x = gap
    for name, value in facts:
        draw_text(sheet, value, x, 102, 0.72, INK)
        draw_text(sheet, name, x, 121, 0.42, FAINT)
        x += max(text_width(value, 0.72), text_width(name, 0.42)) + 46
    x = sheet.shape[1] - gap
    legend = [("truth", _OVERLAP_COLOUR)] if run.truth is not None else []
    legend += [(state.name.lower(), STATE_COLOURS[state]) for state in (State.LOST, State.UNCERTAIN, State.TRACKING)]
    for name, colour in legend:
        x -= text_width(name, 0.46)
        draw_text(sheet, name, x, 40, 0.46, INK)
        x -= 20
        cv2.rectangle(sheet, (x, 30), (x + 12, 40), colour, cv2.FILLED if name != "truth" else 1)
        x -= 18


def _caption(sheet: Image, index: int, observation: Observation | None, run: Run, x: int, y: int, width: int) -> None:
    sheet[y : y + 30, x : x + width] = PANEL
    draw_text(sheet, f"{index / run.fps:5.2f} s", x + 8, y + 20, 0.46, INK)
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
    draw_text(sheet, words, x + width - 8 - text_width(words, 0.46), y + 20, 0.46, STATE_COLOURS[observation.state])


class _Plot(Chart):
    """A strip with the run's frames along it and one quantity up it."""

    def __init__(self, run: Run, width: int, height: int, title: str, limits: tuple[float, float]) -> None:
        self._last = max(run.sent - 1, 1)
        self._fps = run.fps
        self._bottom = limits[0]
        super().__init__(width, height, title, (0.0, float(self._last)), limits)

    def axes(self, y_ticks: list[float], marks: list[int]) -> None:
        for mark in marks:  # the moments shown above
            self.vertical(mark)
        self.y_ticks(y_ticks)
        self.x_ticks(ticks(0.0, self._last / self._fps, 14), " s", self._fps)

    def pieces(self, indices: list[int], values: list[float], colours: list[Colour]) -> None:
        """Lines between neighbouring frames, each in the colour of its end; none next to a value of nan."""
        pairs = pairwise(zip(indices, values, colours, strict=True))
        for (index, value, _), (next_index, next_value, colour) in pairs:
            self.line([index, next_index], [value, next_value], colour)

    def shade(self, indices: Iterable[int], colour: Colour, share: float) -> None:
        """Tint the columns of some frames."""
        top, bottom = self.high, self.y(self._bottom)
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
    plot.axes([0, 0.5, 1], marks)
    plot.pieces(
        indices, [seen.confidence for seen in observations], [STATE_COLOURS[seen.state] for seen in observations]
    )
    return plot.image


def _plot_overlap(run: Run, width: int, height: int, marks: list[int]) -> Image:
    assert run.truth is not None
    assert run.visible is not None
    plot = _Plot(run, width, height, "overlap with the truth; shaded: how much of the target is hidden", (0.0, 1.0))
    for share in (0.15, 0.4, 0.65, 0.85):  # darker the more is hidden
        plot.shade([index for index in range(run.sent) if 1 - run.visible[index] > share], (120, 112, 104), 0.18)
    plot.axes([0, 0.5, 1], marks)
    indices = sorted(run.observations)
    boxes = np.array([run.observations[index].box for index in indices]).reshape(-1, 4)
    truth = run.truth[indices]
    seen = np.isfinite(truth).all(axis=1)
    values = np.where(seen, metrics.overlaps(boxes, np.nan_to_num(truth)), np.nan)
    plot.pieces(indices, values.tolist(), [_OVERLAP_COLOUR] * len(indices))
    return plot.image


def _plot_latency(run: Run, width: int, height: int, marks: list[int]) -> Image:
    indices = sorted(run.observations)
    values = [run.observations[index].latency * 1000 for index in indices]
    processing = [run.observations[index].processing * 1000 for index in indices]
    top = float(np.percentile(values, 99)) * 1.35 if values else 1.0
    title = "latency from the image's stamp to the box received, ms; dim: the node's own processing"
    plot = _Plot(run, width, height, title, (0.0, max(top, 1.0)))
    plot.axes(ticks(0.0, max(top, 1.0), 6), marks)
    plot.pieces(indices, processing, [(120, 104, 84)] * len(indices))
    plot.pieces(indices, values, [_LATENCY_COLOUR] * len(indices))
    if values:
        median = float(np.median(values))
        cv2.line(plot.image, (plot.left, plot.y(median)), (width - plot.right, plot.y(median)), INK, 1)
        plot.label(f"p50 {median:.1f}", width, plot.y(median) - 6)
    return plot.image


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
