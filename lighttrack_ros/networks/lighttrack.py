"""LightTrack (CVPR 2021): the network of any path of its search space, under the official key names."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, hardsigmoid, hardswish, relu, silu
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.checkpoint import load_strictly

# The network's input is RGB, (value / 255 - MEAN) / STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

MOBILE = "back_04502514044521042540+cls_211000022+reg_100000111_ops_32"
NANO = "back_04802604062260000000+cls_011002222+reg_000112222_ops_32+lite"  # our default model's

_PATH = re.compile(r"back_0([0-9]+)0\+cls_(\d{9})\+reg_(\d{9})_ops_(\d)(\d)(?:\+width_(\d{1,3})_(\d{1,3}))?(\+lite)?")
# Digit -> kernel, expansion. The release has 0 to 5; our own 6 leaves the block out.
BLOCK_CHOICES = ((3, 4), (3, 6), (5, 4), (5, 6), (7, 4), (7, 6), None, (3, 2), (5, 2), (7, 2))
_STAGE_CHANNELS = (24, 40, 80, 96, 192)
_STAGE_STRIDES = (2, 2, 2, 1, 2)
_TOWER_CHANNELS = (128, 192, 256)
TOWER_KERNELS = (3, 5)  # digit 2 leaves the unit out
_REG_SCALE = 16.0  # pixels; the release multiplies by 16 even where the stride is 8


@dataclass(frozen=True)
class Architecture:
    """One path of the search space: everything that determines the network's shape."""

    path: str
    stem_channels: int
    channels: tuple[int, ...]  # of each searched stage that is built
    blocks: tuple[tuple[tuple[int, int] | None, ...], ...]  # [stage][block] -> (kernel, expansion), None: left out
    fusion_channels: int
    cls_channels: int
    cls_kernels: tuple[int, ...]
    reg_channels: int
    reg_kernels: tuple[int, ...]
    lite: bool = False  # hard swish for swish in the backbone, and no squeeze-excite

    @property
    def stride(self) -> int:
        """Crop pixels per cell of the output, 8 or 16."""
        return 2 * math.prod(_STAGE_STRIDES[: len(self.blocks)])

    @classmethod
    def parse(cls, path: str) -> Architecture:
        """Read a path string such as `MOBILE`.

        `back_0<digits>0+cls_<9 digits>+reg_<9 digits>_ops_<stage><block>` is the release's own form
        (18 or 20 backbone digits: 2 or 4 blocks in the first searched stage). This project adds:

        - `+width_<B>_<H>`: the backbone's channel counts are B percent, those of the fusion and the two heads
          H percent, rounded to multiples of 8;
        - block digit 6: the block is left out (not allowed for a stage's first block);
        - block digits 7, 8, 9: kernel 3, 5, 7, expansion 2;
        - `+lite`: hard swish instead of swish in the backbone, and no squeeze-excite.

        Raises:
            LightTrackError: the string is not a path of the search space.
        """

        def fail(reason: str) -> LightTrackError:
            return LightTrackError(f"architecture {path!r}: {reason} (LightTrack-Mobile is {MOBILE!r})")

        match = _PATH.fullmatch(path)
        if match is None:
            raise fail("expected back_0<digits>0+cls_<9 digits>+reg_<9 digits>_ops_<2 digits>")
        back, cls_digits, reg_digits, stage, block, back_width, head_width, lite = match.groups()
        if len(back) not in (18, 20):
            raise fail(f"{len(back)} searched backbone layers, expected 18 or 20")
        if stage not in "123" or block not in "0123":
            raise fail(f"output {stage}{block}, expected stage 1-3 and block 0-3")
        if not all(width is None or 10 <= int(width) <= 200 for width in (back_width, head_width)):
            raise fail(f"widths {back_width} and {head_width} %, expected 10 to 200")

        def scaled(channels: int, percent: str | None) -> int:
            return channels if percent is None else _round_to_8(channels * int(percent) / 100)

        def tower(name: str, digits: str) -> tuple[int, tuple[int, ...]]:
            if not set(digits) <= set("012") or digits[1] == "2":
                raise fail(f"{name} {digits}, expected digits 0-2, the second not 2")
            kernels = tuple(TOWER_KERNELS[int(digit)] for digit in digits[1:] if digit != "2")
            return scaled(_TOWER_CHANNELS[int(digits[0])], head_width), kernels

        depths = (len(back) - 16, 4, 4, 4, 4)
        starts = [sum(depths[:i]) for i in range(5)]
        built = [back[starts[i] : starts[i] + depths[i]] for i in range(int(stage) + 1)]
        built[-1] = built[-1][: int(block) + 1]
        if any(digits[0] == "6" for digits in built):
            raise fail("a stage's first block cannot be left out")
        cls_channels, cls_kernels = tower("cls", cls_digits)
        reg_channels, reg_kernels = tower("reg", reg_digits)
        return cls(
            path=path,
            stem_channels=scaled(16, back_width),
            channels=tuple(scaled(channels, back_width) for channels in _STAGE_CHANNELS[: len(built)]),
            blocks=tuple(tuple(BLOCK_CHOICES[int(digit)] for digit in digits) for digits in built),
            fusion_channels=scaled(128, head_width),
            cls_channels=cls_channels,
            cls_kernels=cls_kernels,
            reg_channels=reg_channels,
            reg_kernels=reg_kernels,
            lite=lite is not None,
        )


class LightTrack(nn.Module):
    """The network of one architecture. Images are RGB, (B, 3, side, side) float32, normalised by MEAN and STD.

    Args:
        architecture: the path; see `Architecture.parse`.
        template_size: side of the template image in pixels. It determines the number of template cells (127 and 128
            both give 8 x 8 at stride 16), and so the shape of the fusion.
    """

    def __init__(self, architecture: Architecture, template_size: int = 128) -> None:
        super().__init__()
        self.architecture = architecture
        cells = round(template_size / architecture.stride) ** 2
        self.features = _Backbone(architecture)
        self.neck = _Neck(architecture.channels[-1])
        self.feature_fusor = _Fusion(cells, architecture.fusion_channels)
        self.head = _Head(architecture)
        self.apply(_initialise)
        # Distances start at two cells, about half a target: at zero the ReLU would block every gradient.
        nn.init.normal_(self.head.reg_pred.bbox_pred.weight, std=0.001)
        self.head.reg_pred.bbox_pred.bias = nn.Parameter(torch.full((4,), 2.0))

    def template_features(self, image: Tensor) -> Tensor:
        """The template's features for the correlation: (B, template cells, channels), after the neck."""
        features: Tensor = self.neck.BN_z(self.features(image))
        return features.flatten(2).transpose(1, 2)

    def search_features(self, image: Tensor) -> Tensor:
        """The search image's features: (B, channels, n, n), after the neck; n = side / stride."""
        features: Tensor = self.neck.BN_x(self.features(image))
        return features

    def forward(self, template_features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Match a search image against `template_features`; see `match`."""
        return self.match(template_features, self.search_features(image))

    def match(self, template_features: Tensor, search_features: Tensor) -> tuple[Tensor, Tensor]:
        """Match a search image's features against the template's.

        Returns:
            logits (B, 1, n, n), before the sigmoid; distances (B, 4, n, n): left, top, right, bottom
            from the cell's centre to the sides of the box, in pixels of the search image, not negative.
        """
        fused = self.feature_fusor(template_features, search_features)
        return self.head.cls_logits(fused), self.head.reg_distances(fused)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or a pickled checkpoint, without wrappers; no code of the file is run.

    Raises:
        LightTrackError: the file does not exist or is not a checkpoint.
    """
    if not path.is_file():
        raise LightTrackError(f"{path}: no such file")
    checkpoint: Any
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            checkpoint = load_file(path)
        except SafetensorError as error:
            raise LightTrackError(f"{path}: not a safetensors file ({error})") from error
    else:
        try:
            checkpoint = _unpickle(path)
        except Exception as error:  # various types: broken zip, broken pickle, a forbidden class
            found = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))  # drop PyTorch's advice around it
            reason = found[1].strip() if found else str(error).partition("\n")[0]
            raise LightTrackError(f"{path}: cannot be read as a checkpoint of plain tensors ({reason})") from error
    for wrapper in ("state_dict", "model", "net"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(wrapper), dict):
            checkpoint = checkpoint[wrapper]
    if not isinstance(checkpoint, dict) or not any(isinstance(value, Tensor) for value in checkpoint.values()):
        raise LightTrackError(f"{path}: holds no tensors by name; expected a state dict")
    tensors = {name: value for name, value in checkpoint.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "feature_extractor.", "model."):  # added by data parallel and other wrappers
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors


class _Shell:
    """Empty placeholder for an object of an unknown class."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _unpickle(path: Path) -> Any:
    """Read a pickled checkpoint, weights only; a trainer's settings and statistics in it become placeholders."""
    unknown = get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    names = [name.rpartition(".") for name in unknown]
    with safe_globals([type(name, (_Shell,), {"__module__": module}) for module, _, name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


def load_checkpoint(path: Path, architecture: Architecture, template_size: int = 128) -> LightTrack:
    """The network with the weights of a checkpoint, float32, in evaluation mode.

    Raises:
        LightTrackError: the file cannot be read, or it does not fit the architecture; the message names every key
            that is missing or not expected, and every shape that differs.
    """
    network = LightTrack(architecture, template_size)
    # Ignore tensors outside the network (of a loss, an optimiser).
    parts = tuple(f"{name}." for name, _ in network.named_children())
    given = {name: value for name, value in read_checkpoint(path).items() if name.startswith(parts)}
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    given = counters | given  # older checkpoints lack them
    try:
        return load_strictly(network, given, f"the architecture {architecture.path}")
    except LightTrackError as error:
        raise LightTrackError(f"{path}: {error}") from error


def _round_to_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8; the next higher one if the nearest is more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            module.weight.mul_(module.groups**0.5)  # torch's fan_out ignores the groups
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _round_to_8(channels / 4)
        self.conv_reduce = _conv(channels, squeezed, 1, bias=True)
        self.conv_expand = _conv(squeezed, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = relu(self.conv_reduce(adaptive_avg_pool2d(x, 1)))
        weight: Tensor = hardsigmoid(self.conv_expand(squeezed))
        return x * weight


class _DepthwiseSeparable(nn.Module):
    def __init__(self, channels: int, lite: bool) -> None:
        super().__init__()
        self.activation = hardswish if lite else silu
        self.conv_dw = _conv(channels, channels, 3, groups=channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.se = nn.Identity() if lite else _SqueezeExcite(channels)
        self.conv_pw = _conv(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(self.se(y)))
        return x + y


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, expansion: int, stride: int, lite: bool) -> None:
        super().__init__()
        middle = inputs * expansion
        self.activation = hardswish if lite else silu
        self.residual = stride == 1 and inputs == outputs
        self.conv_pw = _conv(inputs, middle, 1)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv_dw = _conv(middle, middle, kernel, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.se = nn.Identity() if lite else _SqueezeExcite(middle)
        self.conv_pwl = _conv(middle, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.bn1(self.conv_pw(x)))
        y = self.activation(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(self.se(y)))
        return x + y if self.residual else y


class _Backbone(nn.Module):
    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        stem = architecture.stem_channels
        self.conv_stem = _conv(3, stem, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        lite = architecture.lite
        self.activation = hardswish if lite else silu
        stages = [nn.Sequential(_DepthwiseSeparable(stem, lite))]
        inputs = stem
        for outputs, first_stride, blocks in zip(
            architecture.channels, _STAGE_STRIDES, architecture.blocks, strict=False
        ):
            stage = nn.Sequential()
            for i, block in enumerate(blocks):
                if block is None:  # a placeholder, so that the other blocks keep their key names
                    stage.append(nn.Identity())
                    continue
                kernel, expansion = block
                stride = first_stride if i == 0 else 1
                stage.append(_InvertedResidual(inputs, outputs, kernel, expansion, stride, lite))
                inputs = outputs
            stages.append(stage)
        self.blocks = nn.Sequential(*stages)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.activation(self.bn1(self.conv_stem(image))))
        return features


class _Neck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.BN_z = nn.BatchNorm2d(channels)
        self.BN_x = nn.BatchNorm2d(channels)


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = _conv(channels, channels, 1, bias=True)
        self.fc2 = _conv(channels, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = relu(self.fc1(adaptive_avg_pool2d(x, 1)))
        weight: Tensor = torch.sigmoid(self.fc2(squeezed))
        return x * weight


class _Correlation(nn.Module):
    """Pointwise: every template cell is a 1x1 kernel over the search map (AlphaRefine's, section 3.1 of LightTrack)."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.CA_layer = _ChannelAttention(cells)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        correlation = torch.matmul(template, search.flatten(2))
        weighted: Tensor = self.CA_layer(correlation.unflatten(2, search.shape[2:]))
        return weighted


class _Fusion(nn.Module):
    def __init__(self, cells: int, channels: int) -> None:
        super().__init__()
        self.pw_corr = _Correlation(cells)
        self.adj_layer = _conv(cells, channels, 1, bias=True)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        fused: Tensor = self.adj_layer(self.pw_corr(template, search))
        return fused


class _TowerUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, inputs, kernel, groups=inputs)
        self.pointwise = _conv(inputs, outputs, 1)
        self.BN = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.BN(self.pointwise(self.conv1(x)))
        return relu(y)


def _tower(inputs: int, channels: int, kernels: tuple[int, ...]) -> nn.Sequential:
    widths = chain([inputs], [channels] * (len(kernels) - 1))
    return nn.Sequential(*(_TowerUnit(width, channels, kernel) for width, kernel in zip(widths, kernels, strict=True)))


class _ClsPrediction(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cls_pred = _conv(channels, 1, 3, bias=True)


class _RegPrediction(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bbox_pred = _conv(channels, 4, 3, bias=True)


class _Head(nn.Module):
    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        fused = architecture.fusion_channels
        self.cls_tower = _tower(fused, architecture.cls_channels, architecture.cls_kernels)
        self.reg_tower = _tower(fused, architecture.reg_channels, architecture.reg_kernels)
        self.cls_perd = _ClsPrediction(architecture.cls_channels)  # the release's own spelling
        self.reg_pred = _RegPrediction(architecture.reg_channels)

    def cls_logits(self, fused: Tensor) -> Tensor:
        logits: Tensor = 0.1 * self.cls_perd.cls_pred(self.cls_tower(fused))
        return logits

    def reg_distances(self, fused: Tensor) -> Tensor:
        return _REG_SCALE * relu(self.reg_pred.bbox_pred(self.reg_tower(fused)))
