"""Inherit a teacher's weights: the student starts as the teacher with blocks, channels and kernel rims removed.

- Depth: a residual block is added to the identity, so without it its neighbours still fit.
- Width: of a block's expanded channels, those with the largest output are kept.
- Kernels: their middle is kept.
- Squeeze-excites that the student does not have are replaced by their mean gate.
- Towers of another shape are not inherited: their units are not residuals, so they are trained from scratch.

Inherited layers have their batch norms folded, and so no statistics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import LightTrack
from lighttrack_ros.training.folding import fold


@torch.no_grad()
def inherit(student: LightTrack, teacher: LightTrack, images: Tensor) -> None:
    """Copy the weights of `teacher` that fit into `student`, in place (evaluation mode, batch norms folded).

    Args:
        images: (B, 3, n, n) normalised; gates and channel magnitudes are averaged over them.

    Raises:
        LightTrackError: the two differ in more than depth, expansion, kernel size, squeeze-excite and towers.
    """
    if student.architecture.channels != teacher.architecture.channels[: len(student.architecture.channels)]:
        raise LightTrackError(
            f"cannot inherit {student.architecture.path} from {teacher.architecture.path}: stage widths differ"
        )
    found = statistics(teacher, images)
    theirs = dict(teacher.features.named_modules())
    for name, block in student.features.named_modules():
        if not hasattr(block, "conv_dw"):
            continue
        source = theirs.get(name)
        if source is None or isinstance(source, nn.Identity):
            raise LightTrackError(f"cannot inherit: the teacher has no block {name}")
        inherit_block(name, block, source, found)
    _copy(student.features.conv_stem, teacher.features.conv_stem)
    _copy(student.features.bn1, teacher.features.bn1)
    _copy(student.neck, teacher.neck)
    if student.feature_fusor.adj_layer.weight.shape == teacher.feature_fusor.adj_layer.weight.shape:
        _copy(student.feature_fusor, teacher.feature_fusor)
    for name in ("cls_tower", "reg_tower", "cls_perd", "reg_pred"):
        ours, other = getattr(student.head, name).state_dict(), getattr(teacher.head, name).state_dict()
        if {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in other.items()}:
            getattr(student.head, name).load_state_dict(other)
            fold(getattr(student.head, name))
    fold(student.features)


def statistics(teacher: LightTrack, images: Tensor) -> dict[str, Tensor]:
    """Mean magnitude of each input channel of every module of the backbone, and of squeeze-excites the mean gate."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name, module in teacher.features.named_modules():

        def record(m: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            magnitude = inputs[0].abs().mean((0, 2, 3))
            found[name] = magnitude
            if hasattr(m, "conv_reduce"):
                found[f"{name}.gate"] = output.abs().mean((0, 2, 3)) / magnitude.clamp_min(1e-6)

        hooks.append(module.register_forward_hook(record))
    teacher.features(images)
    for hook in hooks:
        hook.remove()
    return found


def inherit_block(name: str, block: Any, source: Any, found: dict[str, Tensor]) -> None:
    middle = block.conv_dw.weight.shape[0]
    wide = source.conv_dw.weight.shape[0]
    last = "conv_pwl" if hasattr(source, "conv_pwl") else "conv_pw"
    if middle > wide:
        raise LightTrackError(f"cannot inherit {name}: the student has {middle} channels there, the teacher {wide}")
    project = getattr(source, last).weight[:, :, 0, 0]
    # What a channel adds to the block's output, on average.
    importance = project.norm(dim=0) * found[f"{name}.{last}"]
    keep = importance.argsort(descending=True)[:middle].sort().values
    has_gate, had_gate = (not isinstance(b.se, nn.Identity) for b in (block, source))
    if has_gate and not had_gate:
        raise LightTrackError(f"cannot inherit {name}: the teacher has no squeeze-excite there")
    if had_gate and not has_gate:
        project = project * found[f"{name}.se.gate"]
    if last == "conv_pwl":
        block.conv_pw.weight.copy_(source.conv_pw.weight[keep])
        _copy_channels(block.bn1, source.bn1, keep)
        _copy_channels(block.bn2, source.bn2, keep)
        _copy(block.bn3, source.bn3)
    else:
        _copy_channels(block.bn1, source.bn1, keep)
        _copy(block.bn2, source.bn2)
    rim = (source.conv_dw.kernel_size[0] - block.conv_dw.kernel_size[0]) // 2
    if rim < 0:
        raise LightTrackError(f"cannot inherit {name}: the student's kernel is larger than the teacher's")
    cropped = source.conv_dw.weight[keep]
    block.conv_dw.weight.copy_(cropped[..., rim : cropped.shape[-1] - rim, rim : cropped.shape[-1] - rim])
    getattr(block, last).weight.copy_(project[:, keep, None, None])
    if has_gate and middle == wide:
        _copy(block.se, source.se)


def _copy(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def _copy_channels(target: nn.BatchNorm2d, source: nn.BatchNorm2d, keep: Tensor) -> None:
    for name, value in source.state_dict().items():
        getattr(target, name).copy_(value[keep] if value.ndim else value)
