"""The supernet: every choice of every layer with weights of its own, of which a path uses one each.

Its layers start from a trained network's, by the same pruning as a single student (`training.prune`), so that paths are
worth comparing after minutes instead of days; batch norms are folded, so no statistics have to be gathered for a path.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lighttrack_ros.networks.lighttrack import Architecture, LightTrack
from lighttrack_ros.training.folding import fold
from lighttrack_ros.training.prune import inherit_block, statistics
from lighttrack_ros.training.supernet.space import Space, layers


class Matching(nn.Module):
    """What lies between backbone and heads: the neck of one width, and the fusion that all share."""

    def __init__(self, neck: nn.Module, fusion: nn.Module) -> None:
        super().__init__()
        self.neck, self.fusion = neck, fusion


class Supernet(nn.Module):
    """Layers for all paths of a space; `network(path)` is one path's network, made of these very layers.

    Args:
        space: of the teacher's architecture.
        teacher: the base's trained network, in evaluation mode, batch norms not folded.
        images: (B, 3, n, n) normalised, over which magnitudes and gates of the teacher are averaged.
    """

    def __init__(self, space: Space, teacher: LightTrack, images: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            found = statistics(teacher, images)
        folded = copy.deepcopy(teacher)
        fold(folded)
        whole = LightTrack(Architecture.parse(space.largest))
        theirs = dict(teacher.features.named_modules())
        self.layers = nn.ModuleDict()
        self._keep("stem", folded.features.conv_stem)
        first: Any = whole.features.blocks[0]
        first = first[0]
        with torch.no_grad():
            inherit_block("blocks.0.0", first, theirs["blocks.0.0"], found)
            fold(first)
            self._keep("first", first)
            for name, digits in space.decisions.items():
                if name[0] not in "0123":
                    continue
                stage, block = (int(part) for part in name.split("-"))
                for digit in digits:
                    if digit == "6":
                        continue
                    layer = _block(space, name, digit)
                    inherit_block(f"blocks.{stage + 1}.{block}", layer, theirs[f"blocks.{stage + 1}.{block}"], found)
                    fold(layer)
                    self._keep(f"{name} {digit}", layer)
            self._necks(space, folded, images)
        for name in ("cls", "reg"):
            self._tower(space, name, folded)

    def network(self, path: str) -> LightTrack:
        """A path's network; training it trains the supernet's layers.

        Raises:
            LightTrackError: not a path of the search space.
        """
        architecture = Architecture.parse(path)
        with torch.device("meta"):
            made: Any = LightTrack(architecture)
        made.features.bn1 = nn.Identity()
        towers = {"cls": iter(range(8)), "reg": iter(range(8))}
        for name in layers(path):
            layer, parts = self.layers[name], name.split()
            if name == "stem":
                made.features.conv_stem = layer
            elif name == "first":
                made.features.blocks[0][0] = layer
            elif parts[0] == "fusion":
                made.neck, made.feature_fusor = layer.neck, layer.fusion
            elif parts[0] in towers:
                tower = made.head.cls_tower if parts[0] == "cls" else made.head.reg_tower
                if len(parts) == 4:
                    tower[next(towers[parts[0]])] = layer
                elif parts[0] == "cls":
                    made.head.cls_perd = layer
                else:
                    made.head.reg_pred = layer
            else:
                stage, block = map(int, parts[0].split("-"))
                made.features.blocks[stage + 1][block] = layer
        network: LightTrack = made.train(self.training)
        network.neck.eval()
        return network

    def train(self, mode: bool = True) -> Supernet:
        super().train(mode)
        layer: Any
        for name, layer in self.layers.items():
            if name.startswith("fusion"):
                layer.neck.eval()  # different paths would spoil each other's statistics
        return self

    def _keep(self, name: str, layer: nn.Module) -> None:
        self.layers[name] = layer

    def _necks(self, space: Space, teacher: LightTrack, images: Tensor) -> None:
        """The teacher's, and one for each other stage in which a path may end, with statistics of the teacher there.

        Paths of stride 16 share the teacher's fusion. At stride 8 the template has four times the cells, so its fusion
        starts fresh.
        """
        last = len(teacher.architecture.channels) - 1
        self._keep(f"fusion {teacher.architecture.channels[last]}", Matching(teacher.neck, teacher.feature_fusor))
        for channels, stride in space.output_channels.items():
            stage = teacher.architecture.channels.index(channels)
            if stage == last:
                continue
            x = teacher.features.activation(teacher.features.bn1(teacher.features.conv_stem(images)))
            features = teacher.features.blocks[: stage + 2](x)
            neck: Any = type(teacher.neck)(features.shape[1])
            for norm in (neck.BN_z, neck.BN_x):
                norm.running_mean.copy_(features.mean((0, 2, 3)))
                norm.running_var.copy_(features.var((0, 2, 3)))
            fusion = teacher.feature_fusor
            if stride == 8:
                back, heads = teacher.architecture.path.split("+", 1)
                path = f"{back}+{heads.split('_ops_')[0]}_ops_{stage}0"
                fusion = LightTrack(Architecture.parse(path)).feature_fusor
            self._keep(f"fusion {channels}", Matching(neck.eval(), fusion))

    def _tower(self, space: Space, name: str, teacher: LightTrack) -> None:
        """Units of each width: the teacher's where the width is its own, else fresh; kernels cut to their middle."""
        widths = space.decisions[f"{name}.width"]
        own: Any = teacher.head.cls_tower if name == "cls" else teacher.head.reg_tower
        kept = [unit for unit in range(8) if len(space.decisions[f"{name}.{unit}"]) > (unit > 0)]
        for width in widths:
            for place, unit in enumerate(kept):
                for digit in space.decisions[f"{name}.{unit}"]:
                    if digit == "2":
                        continue
                    layer = _unit(name, width, unit, digit)
                    source = own[place] if place < len(own) else None
                    if width == widths[-1] and source is not None:
                        rim = (source.conv1.kernel_size[0] - layer.conv1.kernel_size[0]) // 2
                        side = source.conv1.kernel_size[0]
                        with torch.no_grad():
                            layer.conv1.weight.copy_(source.conv1.weight[..., rim : side - rim, rim : side - rim])
                            layer.pointwise.weight.copy_(source.pointwise.weight)
                            layer.pointwise.bias.copy_(source.pointwise.bias)
                    self._keep(f"{name} {width} {unit} {digit}", layer)
            fresh = LightTrack(Architecture.parse(_with_head(space.largest, name, width, 0, "0")))
            last: Any = fresh.head.cls_perd if name == "cls" else fresh.head.reg_pred
            if width == widths[-1]:
                last.load_state_dict((teacher.head.cls_perd if name == "cls" else teacher.head.reg_pred).state_dict())
            self._keep(f"{name} {width}", last)


def _block(space: Space, name: str, digit: str) -> Any:
    """A fresh block of a choice."""
    stage, block = (int(part) for part in name.split("-"))
    chosen = {name: digit, "output": space.base.split("_ops_")[1]}
    path = space.path(lambda other, digits: chosen.get(other, digits[0]))
    blocks: Any = LightTrack(Architecture.parse(path)).features.blocks
    return blocks[stage + 1][block]


def _unit(name: str, width: str, unit: int, digit: str) -> Any:
    """A fresh tower unit whose folded convolution has a bias; the first takes the fusion's channels."""
    network: Any = LightTrack(Architecture.parse(_with_head(_PLAIN, name, width, unit, digit))).eval()
    layer = (network.head.cls_tower if name == "cls" else network.head.reg_tower)[1 if unit else 0]
    fold(layer)
    return layer.train()


_PLAIN = "back_00000000000000000000+cls_000222222+reg_000222222_ops_20"


def _with_head(path: str, name: str, width: str, unit: int, digit: str) -> str:
    """A path whose tower has this width and, at its first or second unit, this kernel."""
    units = f"{digit}0222222" if unit == 0 else f"0{digit}222222"
    back, cls, rest = path.split("+", 2)
    reg, tail = rest.split("_ops_")
    if name == "cls":
        cls = f"cls_{width}{units}"
    else:
        reg = f"reg_{width}{units}"
    return f"{back}+{cls}+{reg}_ops_{tail}"
