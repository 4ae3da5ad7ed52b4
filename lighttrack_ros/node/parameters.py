"""The node's parameters: declared once, from one dataclass, and read from nowhere else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
    ParameterUninitializedException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import parse_intensity_range
from lighttrack_ros.models import DEFAULT_MODEL
from lighttrack_ros.node.interface import IMAGE
from lighttrack_ros.node.scheduling import ALL_CPUS
from lighttrack_ros.runtime import BACKENDS

# When a parameter may be changed.
ANY_TIME = "may be changed at any time"
UNCONFIGURED = "may be changed only while the node is unconfigured (lifecycle: deactivate, cleanup)"
AT_START = "is read once, when the node starts"


def _parameter(
    default: Any, description: str, when: str, *, low: float | None = None, high: float | None = None, among: Any = ()
) -> Any:
    return dataclasses.field(
        default=default,
        metadata={"description": description, "when": when, "low": low, "high": high, "among": tuple(among)},
    )


@dataclass(frozen=True)
class Parameters:
    """Field names are the parameters' names."""

    model: str = _parameter(DEFAULT_MODEL, "Name of a model folder in engines/, or the path of one.", UNCONFIGURED)
    backend: str = _parameter(
        "auto",
        "What runs the networks; auto takes TensorRT where it and a GPU are, else ONNX Runtime.",
        UNCONFIGURED,
        among=BACKENDS,
    )
    threads: int = _parameter(
        0,
        "CPU threads inside one run of a network; 0: as many as a short measurement at configure finds best, at most "
        "half of the cores; kept in `~/.cache/lighttrack_ros/threads` by machine and model.",
        UNCONFIGURED,
        low=0,
        high=64,
    )
    spin: bool = _parameter(
        False,
        "Let ONNX Runtime's threads wait busily between images too: less latency on an idle machine, more on a busy "
        "one.",
        UNCONFIGURED,
    )
    nice: int = _parameter(
        0, "Nice value of all the node's threads; less than 0 needs permission.", UNCONFIGURED, low=-20, high=19
    )
    fifo_priority: int = _parameter(
        0, "SCHED_FIFO priority of all the node's threads, needs permission; 0: off.", UNCONFIGURED, low=0, high=99
    )
    cpus: str = _parameter(ALL_CPUS, "CPUs that the node's threads may run on, e.g. `2,3`; or all.", UNCONFIGURED)
    image_topic: str = _parameter(
        IMAGE.name,
        "Topic of the camera's images; `image` may be led elsewhere by a remapping or the launch file's argument.",
        UNCONFIGURED,
    )
    image_transport: str = _parameter(
        "raw",
        "raw subscribes to sensor_msgs/Image on `image`, compressed to CompressedImage on `image/compressed`.",
        UNCONFIGURED,
        among=("raw", "compressed"),
    )
    reliability: str = _parameter(
        "auto",
        "Reliability asked of the camera: auto what its publishers offer, subscribed anew when that changes; "
        "best_effort goes with every camera, reliable with reliable ones only.",
        UNCONFIGURED,
        among=("auto", "best_effort", "reliable"),
    )
    rectification: str = _parameter(
        "auto",
        "What the images are, for bearings: raw, as the lens gives them (camera_info's K and D), or rectified (its P); "
        "auto: rectified if the topic's last name has `rect` in it.",
        UNCONFIGURED,
        among=("auto", "raw", "rectified"),
    )
    intensity_range: str = _parameter(
        "auto",
        "Values of more than 8 bits that become black and white: `LOW,HIGH`, or auto, what the image holds.",
        UNCONFIGURED,
    )
    autostart: bool = _parameter(True, "Configure and activate without being told to.", AT_START)
    buffer_seconds: float = _parameter(
        1.0, "How long images are kept for boxes drawn on an old one, seconds.", ANY_TIME, low=0.0, high=10.0
    )
    buffer_megabytes: int = _parameter(
        96, "Most memory for those images, megabytes (10^6 bytes).", ANY_TIME, low=1, high=4096
    )
    diagnostics_period: float = _parameter(
        1.0, "Time between two messages on /diagnostics, seconds.", AT_START, low=0.1, high=60.0
    )


def declare(node: Node) -> Parameters:
    """Declare every parameter on the node.

    Raises:
        LightTrackError: a value given at the start is of the wrong type, out of range or no choice.
    """
    values = {}
    for field in dataclasses.fields(Parameters):
        try:
            values[field.name] = node.declare_parameter(field.name, field.default, _descriptor(field)).value
        except (
            InvalidParameterTypeException,
            InvalidParameterValueException,
            ParameterUninitializedException,
        ) as error:
            raise LightTrackError(f"parameter {field.name}: expected {expected(field)} ({error})") from error
        _check(field, values[field.name])
    return Parameters(**values)


def changed(current: Parameters, parameters: list[Parameter[Any]], configured: bool) -> Parameters:
    """The parameters after a change of some of them at run time; foreign ones are left out.

    Args:
        configured: whether the node holds a model.

    Raises:
        LightTrackError: a value that cannot be, or not now.
    """
    fields = {field.name: field for field in dataclasses.fields(Parameters)}
    values = {parameter.name: parameter.value for parameter in parameters if parameter.name in fields}
    for name, value in values.items():
        _check(fields[name], value)
        if configured and fields[name].metadata["when"] == UNCONFIGURED and value != getattr(current, name):
            raise LightTrackError(f"parameter {name} {UNCONFIGURED}")
    return dataclasses.replace(current, **values)


def result(error: LightTrackError | None = None) -> SetParametersResult:
    """rclpy's answer to a change."""
    return SetParametersResult(successful=error is None, reason=str(error or ""))


def expected(field: dataclasses.Field[Any]) -> str:
    """The values that a parameter may have, in words."""
    among, low, high = (field.metadata[key] for key in ("among", "low", "high"))
    if among:
        return "one of " + ", ".join(among)
    kinds = {str: "a text", int: "a whole number", float: "a number with a decimal point", bool: "true or false"}
    return kinds[type(field.default)] + (f" from {low} to {high}" if low is not None else "")


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    low, high = field.metadata["low"], field.metadata["high"]
    descriptor = ParameterDescriptor(
        description=field.metadata["description"],
        additional_constraints=f"{expected(field)}; {field.metadata['when']}",
        read_only=field.metadata["when"] == AT_START,
    )
    if isinstance(field.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    elif low is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Type and range are rclpy's to check; the choices are ours."""
    among = field.metadata["among"]
    if (among and value not in among) or value == "":
        raise LightTrackError(f"parameter {field.name} is {value!r}, expected {expected(field)}")
    if field.name == "intensity_range":
        parse_intensity_range(value)
    if field.name == "image_topic":
        try:
            validate_topic_name(value)
        except InvalidTopicNameException as error:
            words = str(error).splitlines()[0]
            raise LightTrackError(
                f"parameter image_topic is {value!r}, expected the name of a topic ({words})"
            ) from None
