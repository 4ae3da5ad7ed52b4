"""How a tracked target looks on an image: one drawing for `track`, the demo and the node's `~/annotated`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.geometry import Box
from lighttrack_ros.session import State

# BGR; told apart without colour too: lost is dashed, and the state is written out.
STATE_COLOURS = {
    State.IDLE: (170, 170, 170),
    State.TRACKING: (96, 222, 72),
    State.UNCERTAIN: (40, 190, 255),
    State.LOST: (72, 72, 245),
}
TRUTH_COLOUR = (255, 255, 255)
# BGR; of several targets, which is which: neighbours differ most.
TARGET_COLOURS = tuple(
    (int(blue), int(green), int(red))
    for blue, green, red in cv2.cvtColor(
        np.array([[(hue * 67 % 180, 255 - 90 * (hue % 2), 255 - 70 * (hue % 3)) for hue in range(16)]], np.uint8),
        cv2.COLOR_HSV2BGR,
    )[0]
)

_FONT = cv2.FONT_HERSHEY_DUPLEX
_INK = (24, 24, 24)
_SUBPIXEL_BITS = 4


def draw_target(
    image: NDArray[np.uint8], box: Box, state: State, confidence: float, label: str = "", number: int | None = None
) -> None:
    """Draw the box, its state, a confidence bar and a label onto `image`, in place.

    Args:
        image: (height, width, 3) uint8, BGR, contiguous and writable.
        box: pixels of the image; not drawn when it is empty, not finite or the state is IDLE.
        state: what may be believed of the box.
        confidence: 0..1.
        label: written before the state, e.g. the target's id; ASCII.
        number: of the target among several: its colour is shown beside that of its state.
    """
    own = None if number is None else TARGET_COLOURS[number % len(TARGET_COLOURS)]
    colour = STATE_COLOURS[state]
    scale = _scale(image)
    text = f"{label} {state.name.lower()}".strip()
    drawable = state != State.IDLE and bool(np.all(np.isfinite(box))) and box.width > 0 and box.height > 0
    if not drawable:
        _tag(image, text, 0.0, colour, (4 * scale, 4 * scale), scale)
        return
    if state == State.LOST:
        _dashed(image, box, colour, scale)
    else:
        _bracketed(image, box, colour, scale)
    corner = (box.x, box.y - _tag_height(scale) - 3 * scale)
    _tag(image, f"{text} {confidence:.2f}", confidence, colour, corner, scale, own)


def draw_truth(image: NDArray[np.uint8], box: Box) -> None:
    """Draw a ground-truth box, in place: thin and white, so that it shows beside the tracker's."""
    if np.all(np.isfinite(box)):
        _rectangle(image, box, _INK, 3)
        _rectangle(image, box, TRUTH_COLOUR, 1)


def _scale(image: NDArray[np.uint8]) -> float:
    """Size of lines and letters relative to a 480-pixel-high image."""
    return float(np.clip(min(image.shape[:2]) / 480, 0.8, 3.0))


def _rectangle(image: NDArray[np.uint8], box: Box, colour: tuple[int, int, int], thickness: int) -> None:
    cv2.polylines(image, [_fixed(_corners(box))], True, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _bracketed(image: NDArray[np.uint8], box: Box, colour: tuple[int, int, int], scale: float) -> None:
    """A thin rectangle with heavy corners: precise, yet found at a glance."""
    thin = max(1, round(1.2 * scale))
    _rectangle(image, box, colour, thin)
    corners = _corners(box)
    arm = min(0.25 * min(box.width, box.height), 14 * scale)
    for index, corner in enumerate(corners):
        ends = []
        for neighbour in (corners[index - 1], corners[(index + 1) % 4]):
            direction = neighbour - corner
            ends.append(corner + direction * (arm / np.abs(direction).max()))
        path = _fixed(np.array([ends[0], corner, ends[1]]))
        cv2.polylines(image, [path], False, colour, thin + max(1, round(2 * scale)), cv2.LINE_AA, _SUBPIXEL_BITS)


def _dashed(image: NDArray[np.uint8], box: Box, colour: tuple[int, int, int], scale: float) -> None:
    corners = _corners(box)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dashes = max(2, min(60, round(float(np.abs(end - start).max()) / (12 * scale))))
        for index in range(dashes):
            piece = np.array([start + (end - start) * ((index + part) / dashes) for part in (0.15, 0.75)])
            cv2.polylines(image, [_fixed(piece)], False, colour, max(2, round(2 * scale)), cv2.LINE_AA, _SUBPIXEL_BITS)


def _tag(
    image: NDArray[np.uint8],
    text: str,
    confidence: float,
    colour: tuple[int, int, int],
    corner: tuple[float, float],
    scale: float,
    own: tuple[int, int, int] | None = None,
) -> None:
    """The coloured plate with the text, a bar under it as long as the confidence; kept inside the image.

    Args:
        own: the target's colour, a patch at the plate's left.
    """
    font_scale = 0.42 * scale
    padding = round(4 * scale)
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, font_scale, 1)
    height = _tag_height(scale)
    patch = height if own is not None else 0
    width = text_width + 2 * padding + patch
    left = int(np.clip(round(corner[0]), 0, max(0, image.shape[1] - width)))
    top = int(np.clip(round(corner[1]), 0, max(0, image.shape[0] - height)))
    cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), colour, cv2.FILLED)
    if own is not None:
        cv2.rectangle(image, (left, top), (left + patch - 1, top + height - 1), own, cv2.FILLED)
    baseline = top + padding + text_height
    cv2.putText(image, text, (left + patch + padding, baseline), _FONT, font_scale, _INK, 1, cv2.LINE_AA)
    bar = round((width - 1) * float(np.clip(confidence, 0.0, 1.0))) if np.isfinite(confidence) else 0
    if bar > 0:
        cv2.rectangle(image, (left, top + height - padding // 2 - 1), (left + bar, top + height - 1), _INK, cv2.FILLED)


def _tag_height(scale: float) -> int:
    text_height = cv2.getTextSize("Ag", _FONT, 0.42 * scale, 1)[0][1]
    return int(text_height + round(4 * scale) * 2 + 2)


def _corners(box: Box) -> NDArray[np.float64]:
    return np.array(
        [
            (box.x, box.y),
            (box.x + box.width, box.y),
            (box.x + box.width, box.y + box.height),
            (box.x, box.y + box.height),
        ]
    )


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points in OpenCV's fixed-point form; boxes count pixel edges, OpenCV pixel centres."""
    limited = np.clip(points - 0.5, -30000, 30000)
    return np.round(limited * (1 << _SUBPIXEL_BITS)).astype(np.int32)
