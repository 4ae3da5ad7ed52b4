"""Start the tracker on a camera: ros2 launch lighttrack_ros tracker.launch.py image_topic:=/camera/image_raw

An argument that is not given is not passed on, so that what a parent launch file, a `params_file` or the node itself
has for it counts. Nothing is set for other processes: a camera's process needs camera_environment.launch.py.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

NOT_GIVEN = ""
# Arguments that are parameters of the node, under the same names: what they are, of which type, their choices.
PARAMETERS = {
    "model": ("Name of a model folder in engines/, or the path of one.", str, None),
    "backend": ("What runs the networks: auto takes TensorRT where it and a GPU are, else ONNX Runtime.", str, None),
    "threads": ("CPU threads inside one run of a network; 0: as many as a measurement finds best.", int, None),
    "image_transport": (
        "raw (sensor_msgs/Image) or compressed (CompressedImage on <image_topic>/compressed).",
        str,
        ["raw", "compressed"],
    ),
    "reliability": (
        "Asked of the camera: auto what it offers; best_effort goes with every camera, reliable with reliable ones.",
        str,
        ["auto", "best_effort", "reliable"],
    ),
    "autostart": (
        "true: configure and activate at once; false: leave it to the lifecycle services.",
        bool,
        ["true", "false"],
    ),
    "use_sim_time": ("true: time comes from /clock, as with a simulation or a bag.", bool, ["true", "false"]),
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("image_topic", default_value="image", description="Topic of the camera's images."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, e.g. /drone1."),
        DeclareLaunchArgument(
            "params_file", default_value=NOT_GIVEN, description="YAML file of parameters; arguments given come before."
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="From which level on the node logs.",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=["true", "false"],
            description="true: start the node again, after 2 s, when its process has ended by itself or was killed.",
        ),
        DeclareLaunchArgument(
            "viewer",
            default_value="false",
            choices=["true", "false"],
            description="true: serve a page on which a person points at the target and watches it (docs/viewer.md).",
        ),
        DeclareLaunchArgument(
            "viewer_address",
            default_value="127.0.0.1",
            description="What the page is served on; any other than 127.0.0.1, e.g. 0.0.0.0, asks for a token.",
        ),
        DeclareLaunchArgument("viewer_port", default_value="8520", description="TCP port of the page."),
    ]
    for name, (description, _, choices) in PARAMETERS.items():
        among = choices and [NOT_GIVEN, *choices]
        arguments.append(DeclareLaunchArgument(name, default_value=NOT_GIVEN, choices=among, description=description))
    return LaunchDescription([*arguments, OpaqueFunction(function=_tracker)])


def _tracker(context):
    """The node, with just those parameters that were given."""
    given = {}
    for name, (_, kind, _) in PARAMETERS.items():
        if LaunchConfiguration(name).perform(context) != NOT_GIVEN:
            given[name] = ParameterValue(LaunchConfiguration(name), value_type=kind)
    file = LaunchConfiguration("params_file").perform(context)
    viewer = [_viewer(given)] if LaunchConfiguration("viewer").perform(context) == "true" else []
    return [
        *viewer,
        Node(
            package="lighttrack_ros",
            executable="tracker_node",
            name="tracker",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            remappings=[("image", LaunchConfiguration("image_topic"))],
            parameters=([file] if file != NOT_GIVEN else []) + ([given] if given else []),
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            respawn=LaunchConfiguration("respawn").perform(context) == "true",
            respawn_delay=2.0,
        ),
    ]


def _viewer(given):
    """The page's process, beside the tracker in the same namespace."""
    where = ["--address", LaunchConfiguration("viewer_address"), "--port", LaunchConfiguration("viewer_port")]
    return Node(
        package="lighttrack_ros",
        executable="lighttrack",
        arguments=["view", *where],
        name="viewer",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[{"use_sim_time": given["use_sim_time"]}] if "use_sim_time" in given else [],
    )
