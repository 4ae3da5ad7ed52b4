"""The training loop on Lightning Fabric, for one core, one GPU or several machines; resumes bit by bit."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.distill import Supply, moved
from lighttrack_ros.training.recipe import Recipe


class Objective(nn.Module):
    """A student and its losses in one module, so that a distributed wrapper sees a single forward pass.

    Attributes:
        network: the student. The objective's own parameters are trained as well, and dropped in the end.
        tracks: whether what is published is a tracker's network, which can be validated on videos.
    """

    network: nn.Module
    tracks = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any, targets: Any) -> dict[str, Tensor]:
        """Figures by name for the curves; training minimises "loss".

        Args:
            batch: pairs, or whatever else the objective's source supplies.
            targets: the labeller's targets for them, or None.
        """
        raise NotImplementedError

    def seen(self, batch: Any, targets: Any, step: int) -> tuple[Any, Any]:
        """The part of a batch that the student sees in this step; by default all of it."""
        return batch, targets

    def fresh(self, name: str) -> bool:
        """Whether the student's parameter of this name starts untrained, and so learns at `head_lr`."""
        raise NotImplementedError

    def published(self, network: nn.Module) -> dict[str, Tensor]:
        """The state of `network` (of the student's class) under the keys that `lighttrack import` reads."""
        return dict(network.state_dict())


class Trainer:
    """One run in one folder: `last.ckpt` to resume from, `student.pt` (averaged weights, published keys), `curves.csv`.

    Args:
        fabric: launched.
        objective: with an initialised student.
        supply: `recipe.pairs_count` pairs.
        folder: created if missing; if it contains a checkpoint, the run resumes from it.
    """

    def __init__(self, fabric: Fabric, objective: Objective, supply: Supply, recipe: Recipe, folder: Path) -> None:
        self._fabric, self._recipe, self._folder, self._supply = fabric, recipe, folder, supply
        self.objective, self.network = objective, objective.network
        objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # three times as fast on a CPU
        for name, parameter in self.network.named_parameters():
            if name.startswith(recipe.frozen):
                parameter.requires_grad_(False)
        groups: list[dict[str, Any]] = [{"params": [], "peak": recipe.lr}, {"params": [], "peak": recipe.head_lr}]
        for name, parameter in objective.named_parameters():
            own = name.removeprefix("network.")
            groups[own == name or objective.fresh(own)]["params"].append(parameter)
        optimiser = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self._model, self._optimiser = fabric.setup(objective, optimiser)
        self._average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self._average.to(fabric.device)
        self.step = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LightTrackError(f"{folder}: cannot be written ({error.strerror})") from None
        if self._checkpoint.is_file():
            self._resume()

    @property
    def average(self) -> nn.Module:
        """The student with averaged weights."""
        return self._average.module

    def run(self, until: int | None = None) -> dict[str, float]:
        """Train to the last step, or to step `until`; returns the last mean losses."""
        recipe, last = self._recipe, min(until or self._recipe.steps, self._recipe.steps)
        self._model.train()
        sums: dict[str, float] = {}
        counted = 0
        report: dict[str, float] = {}
        bar = tqdm(total=recipe.steps, initial=self.step, unit="step", disable=not self._fabric.is_global_zero)
        for batch, targets in self._batches(last):
            self._set_learning_rate()
            device = self._fabric.device
            batch, targets = self.objective.seen(batch, targets, self.step)
            losses = self._model(batch.to(device), None if targets is None else moved(targets, device))
            self._fabric.backward(losses["loss"])
            self._fabric.clip_gradients(self._model, self._optimiser, max_norm=recipe.clip)
            self._optimiser.step()
            self._optimiser.zero_grad()
            self._average.update_parameters(self.network)
            self.step += 1
            counted += 1
            bar.update()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            if not math.isfinite(sums["loss"]):
                raise LightTrackError(f"{self._folder}: the loss is no number at step {self.step}; lower lr")
            if self.step % recipe.log_every == 0 or self.step == last:
                report = {name: value / counted for name, value in sums.items()}
                bar.set_postfix(loss=f"{report['loss']:.3f}")
                self._log(report)
                sums, counted = {}, 0
            if self.step % recipe.save_every == 0 or self.step == last:
                self._save()
        bar.close()
        return report

    def _batches(self, last: int) -> Iterator[tuple[Any, Any]]:
        recipe = self._recipe
        loader: DataLoader[Any] = DataLoader(
            self._supply,
            batch_sampler=_Order(recipe, self.step, last, self._fabric.global_rank, self._fabric.world_size),
            num_workers=recipe.workers,
            collate_fn=_as_it_is,
            prefetch_factor=3 if recipe.workers else None,
            pin_memory=self._fabric.device.type == "cuda" and recipe.workers > 0,
        )
        return iter(loader)

    def _set_learning_rate(self) -> None:
        """Linear warm-up, then half a cosine down to a hundredth of the peak."""
        recipe = self._recipe
        progress = self.step / recipe.steps
        factor = min(1.0, (self.step + 1) / recipe.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * factor

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "last.ckpt"

    def _save(self) -> None:
        state = {
            "step": self.step,
            "objective": self.objective.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }
        if self._fabric.is_global_zero:
            for path, content in (
                (self._checkpoint, state),
                (self._folder / "student.pt", self.objective.published(self.average)),
            ):
                torch.save(content, path.with_suffix(".part"))
                os.replace(path.with_suffix(".part"), path)  # a crash while writing leaves the previous file
        self._fabric.barrier()

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, map_location=self._fabric.device, weights_only=True)
        try:
            self.objective.load_state_dict(state["objective"])
            self._average.load_state_dict(state["average"])
            self._optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise LightTrackError(f"{self._checkpoint}: is of another recipe; name another folder ({error})") from error
        torch.set_rng_state(state["random"].cpu())
        self.step = state["step"]

    def _log(self, report: dict[str, float]) -> None:
        if not self._fabric.is_global_zero:
            return
        path = self._folder / "curves.csv"
        row = {"step": self.step, "lr": self._optimiser.param_groups[0]["lr"], **report}
        is_new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})


class _Order(torch.utils.data.Sampler[list[int]]):
    """Pairs of each step: in order in the first round, so that a cache fills in order, then shuffled.

    The order depends on the step alone, so a resumed run continues with the same pairs as an uninterrupted one.
    """

    def __init__(self, recipe: Recipe, first: int, last: int, rank: int, ranks: int) -> None:
        if recipe.batch_size % ranks:
            raise LightTrackError(f"batch_size {recipe.batch_size} cannot be shared by {ranks} devices")
        self._recipe, self._steps, self._rank, self._ranks = recipe, range(first, last), rank, ranks

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        batch, per_round = self._recipe.batch_size, self._recipe.pairs_count // self._recipe.batch_size
        order: list[int] = []
        current = -1
        for step in self._steps:
            turn, place = divmod(step, per_round)
            if turn != current:
                generator = torch.Generator().manual_seed(self._recipe.seed + turn)
                count = self._recipe.pairs_count
                order = list(range(count)) if turn == 0 else torch.randperm(count, generator=generator).tolist()
                current = turn
            yield order[place * batch : (place + 1) * batch][self._rank :: self._ranks]


def _as_it_is(item: Any) -> Any:
    return item
