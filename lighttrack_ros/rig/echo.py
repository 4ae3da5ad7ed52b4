"""A node that does nothing: a box at once for every image. What it costs is the transport's own latency.

It hears and answers as the tracker does, on the same topics: `python -m lighttrack_ros.rig.echo`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any

from lighttrack_ros.node.transport import TRACKER_PROFILE, transport_environment, tune_malloc


def main() -> int:
    """Run until SIGINT or SIGTERM; `--compressed` takes compressed images. ROS arguments may follow."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compressed", action="store_true")
    args, _ = parser.parse_known_args()
    tune_malloc()
    os.environ.update(transport_environment(profile=TRACKER_PROFILE))

    import rclpy
    from rclpy.qos import QoSProfile
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import CompressedImage, Image

    from lighttrack_ros.msg import InitBox, TrackedTarget
    from lighttrack_ros.node.image_stream import ImageStream
    from lighttrack_ros.node.messages import read_header, target_message
    from lighttrack_ros.node.target import NO_TARGET

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("tracker", start_parameter_services=False)
    publisher = node.create_publisher(TrackedTarget, "~/target", QoSProfile(depth=10))
    node.create_subscription(InitBox, "init_box", lambda _: None, 1)  # whoever waits for the tracker finds it

    def on_image(data: bytes) -> None:
        publisher.publish(target_message(read_header(data), NO_TARGET, "", "echo"))

    def on_incompatible(event: Any) -> None:
        node.get_logger().error("the camera's QoS does not go with this node's")

    kind, topic = (CompressedImage, "image/compressed") if args.compressed else (Image, "image")
    stream = ImageStream(node, kind, topic, "auto", on_image, on_incompatible)
    stream.start()
    stop.wait()
    stream.stop()
    node.destroy_node()
    rclpy.shutdown()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Python takes its handlers down before it ends
    return 0


if __name__ == "__main__":
    sys.exit(main())
