"""Start the tracker on a camera: ros2 launch lighttrack_ros tracker.launch.py image_topic:=/camera/image_raw"""

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription
from lighttrack_ros.node.parameters import Parameters
from lighttrack_ros.node.transport import transport_environment

# Arguments that are parameters of the node, under the same names; the others are in config/tracker.yaml.
PARAMETERS = {
    "model": "Name of a model folder in engines/, or the path of one.",
    "backend": "What runs the networks: auto takes TensorRT where it and a GPU are, else ONNX Runtime.",
    "image_transport": "raw (sensor_msgs/Image) or compressed (CompressedImage on <image_topic>/compressed).",
    "reliability": "Asked of the camera: best_effort goes with every camera, reliable only with reliable ones.",
    "autostart": "true: configure and activate at once; false: leave it to the lifecycle services.",
}


def generate_launch_description() -> LaunchDescription:
    defaults = {name: getattr(Parameters(), name) for name in PARAMETERS}
    arguments = [
        DeclareLaunchArgument("image_topic", default_value="image", description="Topic of the camera's images."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, e.g. /drone1."),
    ]
    for name, description in PARAMETERS.items():
        default = str(defaults[name]).lower() if isinstance(defaults[name], bool) else defaults[name]
        arguments.append(DeclareLaunchArgument(name, default_value=default, description=description))
    # For whatever else is launched together with the tracker: it is the camera's process that needs it most.
    environment = [SetEnvironmentVariable(name, value) for name, value in transport_environment().items()]
    tracker = Node(
        package="lighttrack_ros",
        executable="tracker_node",
        name="tracker",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        remappings=[("image", LaunchConfiguration("image_topic"))],
        parameters=[
            {name: ParameterValue(LaunchConfiguration(name), value_type=type(defaults[name])) for name in PARAMETERS}
        ],
    )
    return LaunchDescription([*arguments, *environment, tracker])
