"""Pairs of held-out videos: how well a student finds the target in one search crop, cheaper than tracking."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks import dytrack, mixformerv2
from lighttrack_ros.networks.lighttrack import Architecture, LightTrack, load_checkpoint, read_checkpoint
from lighttrack_ros.training.data import Clip, Library, read_clips, read_videos
from lighttrack_ros.training.distill import normalise
from lighttrack_ros.training.losses import cell_points
from lighttrack_ros.training.pairs import CROPPINGS, Batch, PairSource
from lighttrack_ros.training.recipe import Recipe

_SEED = 12345  # of the pairs
_CHUNK = 16  # pairs a forward pass


def held_out_pairs(recipe: Recipe, side: int, count: int = 192) -> Batch:
    """Pairs of a recipe's held-out videos with search crops of that side, the same in every call.

    Raises:
        LightTrackError: no videos are held out, or one is missing or damaged.
    """
    settings = dataclasses.replace(
        recipe.pairs, video=1.0, photo=0.0, patch=0.0, absent=0.0, look_alike=0.0, occlusion=0.0, hard=0.0,
        search_size=side, shift=0.25 * side,
    )  # fmt: skip
    library = Library(_read_held_out(recipe), torch.device("cpu"))
    return PairSource(library, settings, _SEED, CROPPINGS[recipe.tracker]).batch(list(range(count)))


@torch.no_grad()
def overlaps(boxes: Callable[[Batch], Tensor], pairs: Batch) -> Tensor:
    """Intersection over union of the boxes found with the true ones, (pairs whose crop shows the target,).

    Args:
        boxes: gives (B, 4) left, top, right, bottom in pixels of the search crop.
    """
    each = []
    for start in range(0, len(pairs.box), _CHUNK):
        batch = Batch(*(tensor[start : start + _CHUNK] for tensor in pairs))
        each.append(intersection_over_union(boxes(batch), batch.box)[batch.present > 0])
    return torch.cat(each)


def student_boxes(checkpoint: Path, recipe: Recipe) -> Callable[[Batch], Tensor]:
    """What a published student finds: its surest cell's box, its last exit's, its edges'.

    Raises:
        LightTrackError: the checkpoint does not fit the recipe.
    """
    if recipe.tracker == "lighttrack":
        single = load_checkpoint(checkpoint, Architecture.parse(recipe.architecture), recipe.pairs.template_size)
        return lambda batch: surest_boxes(single, batch)
    tensors = read_checkpoint(checkpoint)
    if recipe.tracker == "dytrack":
        exits = dytrack.load(tensors)

        def whole_depth(batch: Batch) -> Tensor:
            passed: Tensor | dytrack.Passed = normalise(batch.search)
            for index, share in enumerate(exits.template_shares(normalise(batch.template))):
                passed, prediction = exits.stage(index, passed, share)
            return _corners(prediction.box, batch)

        return whole_depth
    network = mixformerv2.load(tensors)

    def from_edges(batch: Batch) -> Tensor:
        templates = normalise(batch.template[:, 0]), normalise(batch.template[:, 1])
        return _corners(network(*templates, normalise(batch.search))[0], batch)

    return from_edges


def surest_boxes(network: LightTrack, batch: Batch) -> Tensor:
    """(B, 4) left, top, right, bottom of the best cell's box, in pixels of the search crop."""
    template = network.template_features(normalise(batch.template))
    logits, distances = network(template, normalise(batch.search))
    n, size = logits.shape[-1], batch.search.shape[-1]
    best = logits.flatten(1).argmax(1)
    at = cell_points(size, n, best.device).float()
    x, y = at[best % n], at[best // n]
    left, top, right, bottom = distances.flatten(2).gather(2, best[:, None, None].expand(-1, 4, 1))[..., 0].unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)


def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    """(B,) of boxes (B, 4): left, top, right, bottom."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared).clamp_min(1e-6)


def _corners(box: Tensor, batch: Batch) -> Tensor:
    """Centre and size in units of the crop's side, as left, top, right, bottom in pixels."""
    half = box[:, 2:].clamp_min(0) / 2
    return batch.search.shape[-1] * torch.cat([box[:, :2] - half, box[:, :2] + half], 1)


def _read_held_out(recipe: Recipe) -> list[Clip]:
    """The pictures of a recipe that are kept for validation.

    Raises:
        LightTrackError: there are none, or one is missing or damaged.
    """
    data = recipe.data
    clips: list[Clip] = []
    if data.held_out:
        clips += read_videos(Path(data.videos), include=data.held_out, side=data.side)
    if data.held_out_clips:
        cache, every = Path(data.clips_cache), data.clips_every
        clips += read_clips(Path(data.clips), cache, include=data.held_out_clips, every=every, side=data.side)
    if not clips:
        raise LightTrackError("data: held_out and held_out_clips are empty: paths are compared on held-out videos")
    return clips
