"""Cameras and streams: what opens as one, and passwords that nobody gets to see."""

import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.camera import without_password
from lighttrack_ros.media.frames import open_source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("973", "camera 973: cannot be opened .cameras here"),
        ("/dev/video97", "camera /dev/video97: cannot be opened .cameras here"),
        ("/dev/v4l/by-id/usb-none-video-index0", "camera /dev/v4l/by-id/.*: cannot be opened"),
        ("rtsp://admin:hunter2@127.0.0.1:9/a", r"rtsp://\*\*\*@127.0.0.1:9/a: cannot be opened .check the address"),
        ("rtspsrc location=rtsp://a:hunter2@127.0.0.1:9 ! appsink", "cannot be opened .*(GStreamer|appsink)"),
    ],
)
def test_a_camera_that_is_not_there(source, message, capfd):
    with pytest.raises(LightTrackError, match=message) as error:
        open_source(source)
    assert "hunter2" not in str(error.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://admin:hunter2@host:554/stream1", "rtsp://***@host:554/stream1"),
        ("rtsp://admin:hun/ter2@host/a", "rtsp://***@host/a"),
        ("rtsp://admin:p@ss@host/a", "rtsp://***@host/a"),
        ("http://host/cam?user=admin&password=hunter2&n=1", "http://host/cam?user=***&password=***&n=1"),
        ("rtspsrc location=rtsp://a:b@host user-pw=hunter2 ! x ! appsink",
         "rtspsrc location=rtsp://***@host user-pw=*** ! x ! appsink"),
        ("folder/a@b password=1.mp4", "folder/a@b password=1.mp4"),
        ("rtsp://host/a", "rtsp://host/a"),
    ],
)  # fmt: skip
def test_what_is_shown_of_an_address(source, shown):
    assert without_password(source) == shown
