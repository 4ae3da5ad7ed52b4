"""Label a batch of pairs with a teacher's outputs, and cache pairs and labels on disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import MEAN, STD, LightTrack
from lighttrack_ros.training.folding import fold
from lighttrack_ros.training.pairs import Batch, PairSource


class Labeller(Protocol):
    """Makes a student's targets for pairs, in addition to their boxes.

    Attributes:
        kind: type of the targets: a NamedTuple of tensors with the pair as first dimension.
    """

    kind: Any

    def __call__(self, batch: Batch) -> Any: ...


def moved(targets: Any, device: torch.device) -> Any:
    """A labeller's targets as float32 on a device."""
    return type(targets)(*(tensor.to(device, non_blocking=True).float() for tensor in targets))


class Targets(NamedTuple):
    """A teacher's outputs on B pairs.

    Attributes:
        template: (B, cells, channels) template features after the neck.
        search: (B, channels, n, n) search features after the neck.
        logits: (B, 1, n, n).
        distances: (B, 4, n, n) left, top, right, bottom in pixels of the search crop.
    """

    template: Tensor
    search: Tensor
    logits: Tensor
    distances: Tensor


def normalise(crops: Tensor) -> Tensor:
    """uint8 crops (B, 3, n, n), R, G, B -> the network's input."""
    mean = torch.tensor(MEAN, device=crops.device)[:, None, None] * 255
    std = torch.tensor(STD, device=crops.device)[:, None, None] * 255
    return ((crops.float() - mean) / std).contiguous(memory_format=torch.channels_last)


class Teacher:
    """A trained network that labels pairs."""

    kind = Targets

    def __init__(self, network: LightTrack, device: torch.device) -> None:
        fold(network)
        self._network = network.eval().requires_grad_(False).to(device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        network = self._network
        template = network.template_features(normalise(batch.template))
        search = network.search_features(normalise(batch.search))
        fused = network.feature_fusor(template, search)
        return Targets(template, search, network.head.cls_logits(fused), network.head.reg_distances(fused))


class Supply(torch.utils.data.Dataset[tuple[Batch, Any]]):
    """Pairs with a labeller's targets (or None), made on demand; with a cache folder each is made only once.

    Args:
        source: draws the pairs.
        teacher: labels them, or None.
        folder: cache of pairs and targets (0.3 MB per pair of 256 px), or None.
        count: number of pairs.

    Raises:
        LightTrackError: the folder contains the cache of other pairs.
    """

    def __init__(self, source: PairSource, teacher: Labeller | None, folder: Path | None, count: int) -> None:
        self._source, self._teacher, self._count = source, teacher, count
        self._cache = (
            None if folder is None else _Cache(folder, count, source, None if teacher is None else teacher.kind)
        )

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, indices: list[int]) -> tuple[Batch, Any]:
        if self._cache is None:
            return self._make(indices)
        missing = [index for index in indices if not self._cache.has(index)]
        if missing:
            self._cache.put(missing, *self._make(missing))
        return self._cache.get(indices)

    def _make(self, indices: list[int]) -> tuple[Batch, Any]:
        batch = self._source.batch(indices)
        return batch, None if self._teacher is None else self._teacher(batch)


class _Cache:
    """One file per field, with row i for pair i, and a file of flags; a pair's flag is written last."""

    def __init__(self, folder: Path, count: int, source: PairSource, kind: Any) -> None:
        self._folder, self._count, self._kind = folder, count, kind
        self._rows: dict[str, np.memmap[tuple[int, ...], np.dtype[np.generic]]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        label = {
            "count": count,
            "seed": source.seed,
            "cropping": source.cropping.tracker,
            "targets": kind.__name__ if kind else None,
            "pictures": len(source.library.boxes),
            "pairs": asdict(source.settings),
        }
        note = folder / "pairs.json"
        if note.is_file() and json.loads(note.read_text()) != label:
            raise LightTrackError(f"{folder}: holds the cache of other pairs; name another folder or delete it")
        note.write_text(json.dumps(label, indent=1))
        self._done = self._open("done", (count,), "uint8")

    def has(self, index: int) -> bool:
        return bool(self._done[index])

    def put(self, indices: list[int], batch: Batch, targets: Any) -> None:
        for name, tensor in self._fields(batch, targets):
            array = tensor.detach().cpu().numpy()
            kind = "uint8" if array.dtype == np.uint8 else "float32" if name in ("box",) else "float16"
            if array.ndim and name not in self._rows:
                self._rows[name] = self._open(name, (self._count, *array.shape[1:]), kind)
            self._rows[name][indices] = array.astype(kind)
        self._done[indices] = 1

    def get(self, indices: list[int]) -> tuple[Batch, Any]:
        def read(name: str) -> Tensor:
            if name not in self._rows:
                shape, kind = json.loads((self._folder / f"{name}.json").read_text())
                self._rows[name] = self._open(name, tuple(shape), kind)
            return torch.from_numpy(np.ascontiguousarray(self._rows[name][indices]))

        batch = Batch(*(read(name) for name in Batch._fields))
        batch = batch._replace(box=batch.box.float(), present=batch.present.float(), exact=batch.exact.float())
        if self._kind is None:
            return batch, None
        return batch, self._kind(*(read(f"teacher_{name}") for name in self._kind._fields))

    def _fields(self, batch: Batch, targets: Any) -> list[tuple[str, Tensor]]:
        fields = list(batch._asdict().items())
        return fields + [(f"teacher_{k}", v) for k, v in (targets._asdict() if targets else {}).items()]

    def _open(self, name: str, shape: tuple[int, ...], kind: str) -> np.memmap[tuple[int, ...], np.dtype[np.generic]]:
        path = self._folder / f"{name}.bin"
        (self._folder / f"{name}.json").write_text(json.dumps([shape, kind]))
        if not path.is_file():
            with path.open("ab") as file:  # sparse: takes no disk space before it is written
                file.truncate(int(np.prod(shape)) * np.dtype(kind).itemsize)
        return np.memmap(path, np.dtype(kind), "r+", shape=shape)
