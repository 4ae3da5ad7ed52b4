"""The node's process: `ros2 run lighttrack_ros tracker_node`, or `python -m lighttrack_ros.node`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor

    from lighttrack_ros.node.tracker_node import TrackerNode

_HELP = """\
Follows one target through a camera's images; see docs/node.md. All that it takes are ROS arguments:
  --ros-args -r image:=/camera/image_raw         the camera's topic
             -p model:=lighttrack_nano           a parameter; config/tracker.yaml has them all
             --params-file tracker.yaml          many parameters
             -r __ns:=/drone1 --log-level debug"""


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status (0 told to stop, 1 failed, 2 wrong usage)."""
    stop = threading.Event()
    # From the first moment and to the last: rclpy's own handlers raise KeyboardInterrupt, and a second
    # Ctrl-C (`ros2 launch` sends two) in the middle of cleaning up would leave shared memory behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    from lighttrack_ros.errors import NO_ROS, LightTrackError
    from lighttrack_ros.node.transport import TRACKER_PROFILE, transport_environment, tune_malloc

    tune_malloc()
    os.environ.update(transport_environment(profile=TRACKER_PROFILE))
    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import remove_ros_args

        from lighttrack_ros.msg import TrackedTarget  # noqa: F401
    except ImportError as error:
        print(f"tracker: {NO_ROS} ({error})", file=sys.stderr)
        return 1

    parser = argparse.ArgumentParser(
        prog="tracker_node", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    try:
        parser.parse_args(remove_ros_args(sys.argv)[1:])
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's errors of wrong arguments share no public base class
        # A parameters file that is missing or no YAML is among them.
        print(f"tracker: {str(error).partition(', at ')[0]}", file=sys.stderr)
        return 1

    from lighttrack_ros.node.logs import forward_logs
    from lighttrack_ros.node.tracker_node import TrackerNode

    try:
        node = TrackerNode(stop)
    except LightTrackError:  # the node has logged it
        rclpy.try_shutdown()
        return 1
    forward_logs(node.get_logger())
    _run(node, SingleThreadedExecutor(), stop)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Python takes its handlers down before it ends
    return 0


def _run(node: TrackerNode, executor: SingleThreadedExecutor, stop: threading.Event) -> None:
    """Until it is told to stop."""
    import rclpy

    executor.add_node(node)

    def spin() -> None:
        while rclpy.ok() and not stop.is_set():
            try:
                executor.spin()
            except Exception:  # noqa: PERF203 - e.g. on Humble a transition that is not possible now
                node.get_logger().error(f"a callback failed: {traceback.format_exc()}")

    if node.parameters.autostart:
        node.autostart()
    spinner = threading.Thread(target=spin, name="executor")
    spinner.start()
    stop.wait()
    executor.shutdown()
    spinner.join()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
