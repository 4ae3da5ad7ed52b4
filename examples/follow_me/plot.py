"""The figure of closed_loop.py: where in the picture the target was, and what was commanded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lighttrack_ros.msg import TrackedTarget
from lighttrack_ros.pictures.figure import BLUE, GREEN, RED, YELLOW, legend, look, new_figure, save

if TYPE_CHECKING:
    from closed_loop import Moment


@look()
def draw(moments: list[Moment], off: np.ndarray, path: Path) -> None:
    """Write it.

    Args:
        off: (n, 2), how far the target's middle is from the picture's, in shares of its width and height.
    """
    seconds = np.array([moment.seconds for moment in moments])
    inside = np.abs(off).max(axis=1) < 1 / 6
    tracked = np.array([moment.state == TrackedTarget.STATE_TRACKING for moment in moments])
    facts = [
        ("in the middle third", f"{100 * inside.mean():.1f} %"),
        ("tracked", f"{100 * tracked.mean():.1f} %"),
    ]
    subtitle = (
        "the target's middle in the picture, as it truly is, and the commands that followed; shares are of the images"
    )
    figure, body = new_figure("follow_me: a drone over the generated scene", subtitle, facts, height=640)
    place, speed, turn = body.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1, 1)})
    place.axhspan(-100 / 6, 100 / 6, color=GREEN, alpha=0.15, linewidth=0, label="the middle third")
    place.plot(seconds, 100 * off[:, 0], color=BLUE, label="to the right, % of the width")
    place.plot(seconds, -100 * off[:, 1], color=YELLOW, label="upwards, % of the height")
    for at in seconds[~tracked]:
        place.axvline(at, color=RED, alpha=0.3, linewidth=0.8)
    place.set(ylim=(-50, 50), ylabel="off the middle, %")
    place.set_title("where in the picture (red: not tracked)")
    legend(place)
    speed.plot(seconds, [moment.forward for moment in moments], color=BLUE)
    speed.set(ylabel="forward, m/s")
    turn.plot(seconds, np.degrees([moment.yaw_rate for moment in moments]), color=BLUE)
    turn.set(ylabel="to the left, °/s", xlabel="seconds", xlim=(0, seconds[-1]))
    save(figure, path)
