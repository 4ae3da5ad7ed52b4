"""What a camera's process needs for raw images over Fast DDS; include it before the camera's node, in one group.

    GroupAction([
        IncludeLaunchDescription(PythonLaunchDescriptionSource([FindPackageShare("lighttrack_ros"),
                                                                "/launch/camera_environment.launch.py"])),
        Node(package="v4l2_camera", executable="v4l2_camera_node"),
    ])

    <group>
      <include file="$(find-pkg-share lighttrack_ros)/launch/camera_environment.launch.py"/>
      <node pkg="v4l2_camera" exec="v4l2_camera_node"/>
    </group>

The group ends what is set here; without one it holds for every process that is started after it.
"""

from launch.actions import SetEnvironmentVariable

from launch import LaunchDescription
from lighttrack_ros.node.transport import transport_environment


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([SetEnvironmentVariable(name, value) for name, value in transport_environment().items()])
