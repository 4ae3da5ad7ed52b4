"""Which paths a search may take: every part of a base architecture, or less of it.

A path is an architecture string (`networks.lighttrack.Architecture`). As in the paper, the heads may read any block of
the searched stages 1 to 3: those of stage 1 have stride 8. Beyond the paper's choices a block may be missing or expand
by 2, as our smaller networks do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import BLOCK_CHOICES, TOWER_KERNELS, Architecture

# Name of a decision -> the digits it may take. One of each makes a path.
Decisions = Mapping[str, tuple[str, ...]]
_LEFT_OUT = {"block": "6", "unit": "2"}
_UNITS = 8


@dataclass(frozen=True)
class Space:
    """The paths under one base.

    Args:
        base: the largest path, of the release's form and of stride 16.

    Raises:
        LightTrackError: another base.
    """

    base: str

    def __post_init__(self) -> None:
        architecture = Architecture.parse(self.base)
        if architecture.stride != 16 or architecture.lite or "width" in self.base:
            raise LightTrackError(f"search: {self.base} is no base: stride 16, and neither +width nor +lite")

    @property
    def decisions(self) -> Decisions:
        """`output` (stage and block), `stage-block` for each block of the backbone, `cls.width`, `cls.0` .. `reg.7`."""
        found: dict[str, tuple[str, ...]] = {}
        blocks = Architecture.parse(self.base).blocks
        found["output"] = tuple(
            f"{stage}{block}" for stage in (1, 2, 3) if stage < len(blocks) for block in range(len(blocks[stage]))
        )
        for stage, choices in enumerate(blocks):
            for block, largest in enumerate(choices):
                digits = [d for d, choice in enumerate(BLOCK_CHOICES) if _within(choice, largest)]
                rest = () if block == 0 else (_LEFT_OUT["block"],)
                found[f"{stage}-{block}"] = (*map(str, digits), *rest)
        for name, digits9 in zip(("cls", "reg"), self._heads(), strict=True):
            found[f"{name}.width"] = tuple(map(str, range(int(digits9[0]) + 1)))
            for unit, digit in enumerate(digits9[1:]):
                kernels = tuple(map(str, range(min(int(digit), len(TOWER_KERNELS) - 1) + 1))) if digit != "2" else ()
                found[f"{name}.{unit}"] = kernels if unit == 0 else (*kernels, _LEFT_OUT["unit"])
        return found

    def path(self, decide: Callable[[str, tuple[str, ...]], str]) -> str:
        """The path that follows from a decision on each name; `decide` gets a name and its digits."""
        made = {name: decide(name, digits) for name, digits in self.decisions.items()}
        depths = [len(blocks) for blocks in Architecture.parse(self.base).blocks]
        full = [depths[0], 4, 4, 4, 4]  # blocks that the form has in each stage, built or not
        back = "".join(made.get(f"{stage}-{block}", "0") for stage, count in enumerate(full) for block in range(count))
        cls, reg = (
            made[f"{name}.width"] + "".join(made[f"{name}.{unit}"] for unit in range(_UNITS)) for name in ("cls", "reg")
        )
        return f"back_0{back}0+cls_{cls}+reg_{reg}_ops_{made['output']}+lite"

    @property
    def output_channels(self) -> dict[int, int]:
        """Channels of the stages that the heads may read -> stride there."""
        base = Architecture.parse(self.base)
        stages = sorted({int(digits[0]) for digits in self.decisions["output"]})
        return {base.channels[stage]: 8 if stage == 1 else 16 for stage in stages}

    def random_path(self, rng: np.random.Generator) -> str:
        """Each decision uniformly, as the paper samples its single paths."""
        return self.path(lambda _, digits: str(rng.choice(list(digits))))

    @property
    def largest(self) -> str:
        """The base itself, without squeeze-excites."""
        return f"{self.base}+lite"

    def _heads(self) -> tuple[str, str]:
        _, cls, reg = self.base.split("+")
        return cls.removeprefix("cls_"), reg.removeprefix("reg_")[:9]


def _within(choice: tuple[int, int] | None, largest: tuple[int, int] | None) -> bool:
    return choice is not None and largest is not None and choice[0] <= largest[0] and choice[1] <= largest[1]


def timed_layers(path: str) -> list[str]:
    """`layers`, where those of the heads are marked `@8` if they run at stride 8: there they take longer."""
    if Architecture.parse(path).stride != 8:
        return layers(path)
    return [f"{name} @8" if name.startswith(("cls", "reg")) else name for name in layers(path)]


def layers(path: str) -> list[str]:
    """Names of the supernet's layers that a path is made of, in the order in which they run.

    `stem`, `first`, `0-1 7` (stage, block, digit), `fusion 96` (behind so many channels), `cls 2 0 1` (width, unit,
    kernel), `cls 2` (the prediction of that width).
    """
    architecture = Architecture.parse(path)
    back, cls, reg = (part.split("_")[1] for part in path.split("+")[:3])
    digits = iter(back[1:-1])
    names = ["stem", "first"]
    for stage, blocks in enumerate(architecture.blocks):
        for block, choice in enumerate(blocks):
            digit = next(digits)
            names += [] if choice is None else [f"{stage}-{block} {digit}"]
    names.append(f"fusion {architecture.channels[-1]}")
    for tower, coded in (("cls", cls), ("reg", reg)):
        width, units = coded[0], coded[1:]
        names += [f"{tower} {width} {unit} {digit}" for unit, digit in enumerate(units) if digit != _LEFT_OUT["unit"]]
        names.append(f"{tower} {width}")
    return names
