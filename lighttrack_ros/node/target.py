"""One of the targets that the node follows, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.node.frame_buffer import Arrival
from lighttrack_ros.node.story import Story
from lighttrack_ros.session import NOWHERE, Report, Session, State

NO_TARGET = Report(State.IDLE, NOWHERE, 0.0)


@dataclass(eq=False)
class Target:
    """A session, and how far it has come through the camera's images.

    Attributes:
        target_id: empty for the one that was given without.
        colour: index of the colour that it is drawn in.
        size: width and height of the images on which its boxes mean something.
        done, served, catch_up_until: see `turns.Waiting`.
        reported: number of the image that was published last.
        report: what was said of it then.
        strangers: images of another size in a row.
        failures: turns in a row on which the tracker failed.
        end_reason: why the target that it replaced ended, until that has been published.
        suggested: places where a detector saw something since the last turn.
        images, dropped: how many it was looked for in, and how many were skipped.
    """

    target_id: str
    session: Session
    story: Story
    colour: int
    size: tuple[int, int] = (0, 0)
    done: int = 0
    served: int = 0
    catch_up_until: float = 0.0
    reported: int = 0
    report: Report = NO_TARGET
    strangers: int = 0
    failures: int = 0
    end_reason: str = ""
    suggested: Sequence[Box] = ()
    images: int = 0
    dropped: int = 0

    def status(self) -> dict[str, object]:
        """For the diagnostics."""
        return {
            "state": self.report.state.name.lower(),
            "confidence": f"{self.report.confidence:.2f}",
            "images_processed": self.images,
            "images_dropped": self.dropped,
            "lost": self.story.lost,
            "found": self.story.found,
        }


@dataclass(frozen=True)
class Outcome:
    """What there is to say of one target on one image; or, idle and without an id, of an image without a target.

    Attributes:
        colour: see `Target`.
        frame: the pixels; None while there is no target, when no image is decoded.
        began: when the image was taken up, time.perf_counter().
        turn: when the target's turn on it began.
        dropped: images skipped since its last outcome, because a newer one was there.
        live: False for an old image, gone through only to catch up.
        end_reason: why the target, or the one that it replaced, ended, if it did; empty otherwise.
    """

    arrival: Arrival
    report: Report
    target_id: str
    frame: Frame | None
    began: float
    turn: float
    dropped: int = 0
    live: bool = True
    end_reason: str = ""
    colour: int = 0
