"""Fold batch norms into their convolutions, and restore them under the official keys.

A student trains without batch norms where it inherits folded weights, because there are no statistics to continue
from, and on a CPU batch norms cost a fifth of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# In each block: convolution -> the batch norm after it.
_BACKBONE = {"conv_stem": "bn1"}
_SEPARABLE = {"conv_dw": "bn1", "conv_pw": "bn2"}
_INVERTED = {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}
_TOWER_UNIT = {"pointwise": "BN"}


def fold(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution, by its running statistics, in place."""
    for _, parent, conv_name, norm_name in _folds(module):
        conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
        if isinstance(norm, nn.BatchNorm2d):
            setattr(parent, conv_name, torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval()))
            setattr(parent, norm_name, nn.Identity())


def official_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a folded network under the official keys: biases become batch norms that only add."""
    state = dict(module.state_dict())
    for prefix, parent, conv_name, norm_name in _folds(module):
        if isinstance(getattr(parent, norm_name), nn.BatchNorm2d):
            continue
        bias = state.pop(f"{prefix}{conv_name}.bias")
        ones = torch.ones_like(bias)
        state |= {
            f"{prefix}{norm_name}.weight": ones,
            f"{prefix}{norm_name}.bias": bias,
            f"{prefix}{norm_name}.running_mean": torch.zeros_like(bias),
            f"{prefix}{norm_name}.running_var": ones - 1e-5,  # with eps 1e-5 the layer multiplies by 1
            f"{prefix}{norm_name}.num_batches_tracked": torch.tensor(0),
        }
    return state


def _folds(module: nn.Module) -> list[tuple[str, nn.Module, str, str]]:
    """(prefix, parent, convolution, batch norm) of every pair."""
    found = []
    for name, parent in module.named_modules():
        prefix = f"{name}." if name else ""
        if hasattr(parent, "conv_stem"):
            pairs = _BACKBONE
        elif hasattr(parent, "conv_pwl"):
            pairs = _INVERTED
        elif hasattr(parent, "conv_dw"):
            pairs = _SEPARABLE
        elif hasattr(parent, "pointwise"):
            pairs = _TOWER_UNIT
        else:
            continue
        found += [(prefix, parent, conv, norm) for conv, norm in pairs.items()]
    return found
