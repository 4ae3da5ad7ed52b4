"""The annotated video of what a film's page showed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from lighttrack_ros.media.video import ANNOTATED, VideoWriter
from lighttrack_ros.pictures.target import draw_target
from lighttrack_ros.session import State
from lighttrack_ros.viewer.film import Shot


class Recording:
    """Writes the shots of a film; one that is played again replaces the video of the time before.

    Args:
        path: see `VideoWriter`.
        fps: the film's rate.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: VideoWriter | None = None

    def write(self, shot: Shot) -> None:
        """Append a frame, with the box if there is one.

        Raises:
            LightTrackError: it cannot be written.
        """
        if shot.index == 0:
            self.close()
        if self._writer is None:
            height, width = shot.image.shape[:2]
            self._writer = VideoWriter(self._path, width, height, self._fps, ANNOTATED)
            self._begin = shot.time
        image = shot.image
        if shot.report.state != State.IDLE:
            image = image.copy()
            draw_target(image, shot.report.box, shot.report.state, shot.report.confidence)
        self._writer.write(image, shot.time - self._begin)

    def close(self) -> None:
        """Move the video into place; nothing happens where no frame was written.

        Raises:
            LightTrackError: it cannot be written.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()
        elif self._writer is not None:
            self._writer.__exit__(kind, error, at)
