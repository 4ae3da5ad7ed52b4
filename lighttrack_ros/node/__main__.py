"""The node's process: `ros2 run lighttrack_ros tracker_node`, or `python -m lighttrack_ros.node`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status (0 told to stop, 1 failed)."""
    stop = threading.Event()
    # From the first moment and to the last: rclpy's own handlers raise KeyboardInterrupt, and a second
    # Ctrl-C (`ros2 launch` sends two) in the middle of cleaning up would leave shared memory behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    from lighttrack_ros.node.transport import TRACKER_PROFILE, transport_environment, tune_malloc

    tune_malloc()
    os.environ.update(transport_environment(profile=TRACKER_PROFILE))

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lighttrack_ros.errors import LightTrackError
    from lighttrack_ros.node.logs import forward_logs
    from lighttrack_ros.node.tracker_node import TrackerNode

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = TrackerNode(stop)
    except LightTrackError as error:
        print(f"tracker: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    forward_logs(node.get_logger())
    executor = SingleThreadedExecutor()
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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Python takes its handlers down before it ends
    return 0


if __name__ == "__main__":
    sys.exit(main())
