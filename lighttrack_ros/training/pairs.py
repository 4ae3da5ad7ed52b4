"""Training pairs: a template crop, a search crop and where the target is, drawn and augmented from a `Library`.

Everything random about pair `i` comes from a generator seeded by (seed, i), so any process makes the same pair.
The random choices make a small plan on the host; pixels are processed in batches on the library's device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, interpolate

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, context_side
from lighttrack_ros.training.data import Library


@dataclass(frozen=True)
class PairSettings:
    """How pairs are drawn. Shares of the kinds need not sum to 1."""

    template_size: int = 128
    search_size: int = 256
    video: float = 0.35  # two frames of one video
    photo: float = 0.25  # two views of one annotated object in a photo
    patch: float = 0.30  # two views of any patch of any picture; of little use without a teacher
    absent: float = 0.08  # the search crop does not show the target
    backdrop: float = 0.75  # outside the picture a crop shows another picture, else the mean colour
    frames_apart: int = 20  # between the two frames of a video, at most; likewise of a second template's
    search_factor: float = 0.0  # side of the search crop where the template's is 2; 0: both at one scale
    shift: float = 64.0  # largest shift of the target from the crop's centre, pixels; half as much again in one of five
    scale: float = 0.2  # standard deviation of the log of the search crop's scale
    aspect: float = 0.08  # likewise of its aspect ratio
    rotation: float = 6.0  # degrees, at most
    flip: float = 0.5  # both crops
    blur: float = 0.2
    low_resolution: float = 0.2
    grey: float = 0.05  # both crops
    colour: float = 0.2  # strength of brightness, contrast, saturation and channel gains
    noise: float = 0.1
    occlusion: float = 0.12  # a patch of another pair hides part of the target
    look_alike: float = 0.12  # a recoloured copy of the target is pasted elsewhere
    hard: float = (
        0.0  # share of pairs that are shifted, scaled, stretched and turned more, with more blur, occlusion, ...
    )

    def harder(self) -> PairSettings:
        return replace(
            self,
            shift=1.5 * self.shift,
            scale=1.5 * self.scale,
            aspect=2.5 * self.aspect,
            rotation=6 * self.rotation,
            blur=0.5,
            occlusion=0.5,
            look_alike=0.5,
            hard=0.0,
        )


class Cropping(NamedTuple):
    """How a tracker cuts its crops.

    Attributes:
        tracker: name of the tracker.
        side: side of the template crop from a box's width and height, in the same units.
        black: whether crops are black outside the picture; else they have the picture's mean colour.
        templates: of a pair; a second one is of another frame.
    """

    tracker: str
    side: Callable[[float, float], float]
    black: bool
    templates: int = 1


# Degrees; a box keeps its shape when the crop is turned, so beyond them its sides are no longer exact.
_EXACT_ROTATION = 15.0

CROPPINGS = {
    "lighttrack": Cropping("lighttrack", context_side, black=False),
    "dytrack": Cropping("dytrack", lambda width, height: 2 * math.sqrt(width * height), black=True),
    "mixformerv2": Cropping("mixformerv2", lambda width, height: 2 * math.sqrt(width * height), True, templates=2),
}


class Batch(NamedTuple):
    """B pairs; crops are R, G, B.

    Attributes:
        template: (B, 3, template_size, template_size) uint8; of a tracker with two templates (B, 2, 3, ...).
        search: (B, 3, search_size, search_size) uint8.
        box: (B, 4) left, top, right, bottom in pixels of the search crop.
        present: (B,) 1 if the search crop shows the target, else 0.
        exact: (B,) 1 if `box` is an annotated object, 0 if it is any patch.
    """

    template: Tensor
    search: Tensor
    box: Tensor
    present: Tensor
    exact: Tensor

    @property
    def first_template(self) -> Tensor:
        """(B, 3, template_size, template_size), whether the tracker has one template or two."""
        return self.template if self.template.ndim == 4 else self.template[:, 0]

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


# Crop coordinates -1..1 to pixels of the picture: rows of a 2 x 3 affine map.
_Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


class PairSource:
    """An endless, repeatable supply of pairs.

    Raises:
        LightTrackError: the settings ask for a kind of pair for which the library has no pictures.
    """

    def __init__(
        self, library: Library, settings: PairSettings, seed: int, cropping: Cropping = CROPPINGS["lighttrack"]
    ) -> None:
        self.library, self.settings, self.seed, self.cropping = library, settings, seed, cropping
        videos = [[i for i in clip if library.boxes[i]] for clip in library.clips if len(clip) > 1]
        self._videos = [frames for frames in videos if len(frames) > 1]
        self._photos = [clip[0] for clip in library.clips if len(clip) == 1 and library.boxes[clip[0]]]
        shares = {"video": settings.video, "photo": settings.photo, "patch": settings.patch, "absent": settings.absent}
        if settings.video and not self._videos:
            raise LightTrackError("pairs: video pairs are asked for, but there is no video (set video: 0)")
        if settings.photo and not self._photos:
            raise LightTrackError("pairs: photo pairs are asked for, but there is no photo with a box (set photo: 0)")
        self._kinds = list(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())

    def batch(self, indices: list[int]) -> Batch:
        """The pairs with these numbers."""
        plans = [self._plan(index) for index in indices]
        s, device = self.settings, self.library.device
        template = self._crops([plan.template for plan in plans], s.template_size)
        online = self._crops([plan.online for plan in plans if plan.online], s.template_size)
        search = self._crops([plan.search for plan in plans], s.search_size)
        box = torch.tensor([plan.box for plan in plans], dtype=torch.float32, device=device)
        for i, plan in enumerate(plans):
            _paste(search, i, plan)
        for crops, looks in (
            (template, [p.template for p in plans]),
            (online, [p.online for p in plans if p.online]),
            (search, [p.search for p in plans]),
        ):
            for i, view in enumerate(looks):
                crops[i] = view.look(crops[i])
        return Batch(
            _to_bytes(torch.stack([template, online], 1) if len(online) else template),
            _to_bytes(search),
            box,
            torch.tensor([float(plan.present) for plan in plans], device=device),
            torch.tensor([float(plan.exact) for plan in plans], device=device),
        )

    def _plan(self, index: int) -> _Plan:
        rng = np.random.default_rng((self.seed, index))
        s = self.settings
        if s.hard and rng.random() < s.hard:
            s = s.harder()
        kind = self._kinds[rng.choice(4, p=self._shares)]
        first, second, box, other, exact = self._target("any" if kind == "absent" else kind, rng)
        flip, grey = rng.random() < s.flip, rng.random() < s.grey
        side = self.cropping.side(box.width, box.height)
        template = _View(
            picture=first,
            centre=tuple(np.add(box.centre, rng.uniform(-0.03, 0.03, 2) * side)),
            side=side * math.exp(rng.normal(0, 0.04)),
            look=_Look.draw(rng, s, grey, gentle=True),
            flip=flip,
            backdrop=self._backdrop(rng),
        )
        scale = math.exp(float(np.clip(rng.normal(0, s.scale), -2.5 * s.scale, 2.5 * s.scale)))
        scale *= s.search_factor / 2 if s.search_factor else s.search_size / s.template_size
        side = self.cropping.side(other.width, other.height) * scale
        reach = s.shift * (1.5 if rng.random() < 0.2 else 1.0)
        shift = rng.uniform(-reach, reach, 2)  # pixels of the crop
        present = kind != "absent"
        if not present:
            strangers = [clip for clip in self.library.clips if first not in clip]
            if strangers and rng.random() < 0.5:
                clip = strangers[rng.integers(len(strangers))]
                second = int(clip[rng.integers(len(clip))])
                width, height = self.library.sizes[second]
                other = Box(rng.uniform(0, width), rng.uniform(0, height), other.width, other.height)
            else:  # so far away that the crop shows nothing of the target
                angle = rng.uniform(0, 2 * math.pi)
                shift = np.array([math.cos(angle), math.sin(angle)]) * s.search_size * rng.uniform(0.9, 1.6)
        search = _View(
            picture=second,
            centre=tuple(np.subtract(other.centre, shift * side / s.search_size)),
            side=side,
            look=_Look.draw(rng, s, grey, gentle=False),
            flip=flip,
            aspect=math.exp(rng.normal(0, s.aspect)),
            rotation=math.radians(rng.uniform(-s.rotation, s.rotation)),
            backdrop=self._backdrop(rng),
        )
        return _Plan(
            template,
            self._online(template, box, exact, rng) if self.cropping.templates == 2 else None,
            search,
            search.box_in_crop(other, s.search_size),
            present,
            exact and present and abs(search.rotation) <= math.radians(_EXACT_ROTATION),
            occlude=present and rng.random() < s.occlusion,
            look_alike=present and rng.random() < s.look_alike,
            dice=rng.random(8).tolist(),
        )

    def _online(self, template: _View, box: Box, exact: bool, rng: np.random.Generator) -> _View:
        """A second template: the target in another frame of its video; another view of what is in no video."""
        picture = template.picture
        frames = next((frames for frames in self._videos if exact and picture in frames), None)
        if frames is not None:
            picture = self._near(frames, frames.index(picture), rng)
            box = self.library.boxes[picture][0]
        side = self.cropping.side(box.width, box.height)
        return template._replace(
            picture=picture,
            centre=tuple(np.add(box.centre, rng.uniform(-0.05, 0.05, 2) * side)),
            side=side * math.exp(rng.normal(0, 0.06)),
            look=_Look.draw(rng, self.settings, grey=template.look.saturation == 0, gentle=True),
        )

    def _near(self, frames: list[int], place: int, rng: np.random.Generator) -> int:
        """One of a video's frames that are at most `frames_apart` from the one at `place`."""
        apart = self.settings.frames_apart
        return frames[int(rng.integers(max(0, place - apart), min(len(frames), place + apart + 1)))]

    def _target(self, kind: str, rng: np.random.Generator) -> tuple[int, int, Box, Box, bool]:
        """Two pictures, the target's box in each, and whether the boxes are annotated."""
        if kind == "any":
            kind = "video" if self._videos and (not self._photos or rng.random() < 0.5) else "photo"
            kind = kind if self._videos or self._photos else "patch"
        if kind == "video":
            frames = self._videos[rng.integers(len(self._videos))]
            a = int(rng.integers(len(frames)))
            first, second = frames[a], self._near(frames, a, rng)
            return first, second, self.library.boxes[first][0], self.library.boxes[second][0], True
        if kind == "photo":
            picture = self._photos[rng.integers(len(self._photos))]
            boxes = self.library.boxes[picture]
            box = boxes[rng.integers(len(boxes))]
            return picture, picture, box, box, True
        picture = int(rng.integers(len(self.library.boxes)))
        width, height = self.library.sizes[picture]
        size = math.exp(rng.uniform(math.log(16), math.log(max(17.0, 0.4 * min(width, height)))))
        aspect = math.exp(rng.normal(0, 0.4))
        w, h = size * math.sqrt(aspect), size / math.sqrt(aspect)
        box = Box(rng.uniform(0, max(1.0, width - w)), rng.uniform(0, max(1.0, height - h)), w, h)
        return picture, picture, box, box, False

    def _crops(self, views: list[_View], size: int) -> Tensor:
        """(B, 3, size, size) float, 0..255."""
        return torch.stack([self._crop(view, size) for view in views]) if views else torch.empty(0, 3, size, size)

    def _crop(self, view: _View, size: int) -> Tensor:
        crop, outside = self._warp(view.picture, view.matrix(), size)
        if view.backdrop is not None:
            behind, _ = self._warp(view.backdrop.picture, view.backdrop.matrix(), size)
            crop = torch.where(outside, behind, crop)
        return crop

    def _warp(self, picture: int, matrix: _Matrix, size: int) -> tuple[Tensor, Tensor]:
        """A crop (3, size, size), and a mask (size, size) of its pixels outside the picture."""
        (a, b, x), (c, d, y) = matrix
        width, height = self.library.sizes[picture]
        # Convert only the needed window of the picture to floats.
        left, right = _window(x, abs(a) + abs(b), width)
        top, bottom = _window(y, abs(c) + abs(d), height)
        mean = self.library.means[picture]
        if self.cropping.black:
            mean = torch.zeros_like(mean)
        window = self.library.pixels[picture][None, :, top:bottom, left:right].float() - mean
        across, down = 2 / (right - left), 2 / (bottom - top)
        theta = torch.tensor(
            [[[a * across, b * across, (x - left) * across - 1], [c * down, d * down, (y - top) * down - 1]]],
            dtype=torch.float32,
        ).to(mean.device)
        grid = affine_grid(theta, [1, 3, size, size], align_corners=False)
        crop = grid_sample(window, grid, padding_mode="zeros", align_corners=False)[0] + mean
        at_x, at_y = (grid[0, :, :, 0] + 1) / across + left, (grid[0, :, :, 1] + 1) / down + top
        return crop, (at_x < 0) | (at_x > width) | (at_y < 0) | (at_y > height)

    def _backdrop(self, rng: np.random.Generator) -> _Backdrop | None:
        if rng.random() >= self.settings.backdrop:
            return None
        picture = int(rng.integers(len(self.library.boxes)))
        width, height = self.library.sizes[picture]
        side = min(width, height) * rng.uniform(0.4, 1.0)
        return _Backdrop(
            picture, (rng.uniform(side, 2 * width - side) / 2, rng.uniform(side, 2 * height - side) / 2), side
        )


class _Look(NamedTuple):
    """Changes of a crop's pixels after the geometric ones."""

    gains: tuple[float, float, float]
    contrast: float
    saturation: float
    shrink: int  # 1: none; else rendered at 1/shrink of the resolution
    blur: tuple[int, float]  # length in pixels (0: none) and direction; direction below 0 blurs all ways
    noise: tuple[float, int]  # standard deviation and seed

    @classmethod
    def draw(cls, rng: np.random.Generator, s: PairSettings, grey: bool, gentle: bool) -> _Look:
        rarer = 0.4 if gentle else 1.0
        brightness = math.exp(rng.normal(0, s.colour))
        gains = brightness * np.exp(rng.normal(0, s.colour / 4, 3))
        blurred = rng.random() < s.blur * rarer
        return cls(
            gains=(float(gains[0]), float(gains[1]), float(gains[2])),
            contrast=math.exp(rng.normal(0, s.colour)),
            saturation=0.0 if grey else math.exp(rng.normal(0, s.colour)),
            shrink=int(rng.choice([2, 2, 3, 4])) if rng.random() < s.low_resolution * rarer else 1,
            blur=(int(rng.integers(3, 12)) if blurred else 0, float(rng.uniform(-math.pi, math.pi))),
            noise=(float(rng.uniform(2, 12)) if rng.random() < s.noise * rarer else 0.0, int(rng.integers(2**31))),
        )

    def __call__(self, crop: Tensor) -> Tensor:
        """(3, n, n) float 0..255 -> the same."""
        if self.shrink > 1:
            small = avg_pool2d(crop[None], self.shrink, ceil_mode=True)
            crop = interpolate(small, size=crop.shape[-2:], mode="bilinear", align_corners=False)[0]
        length, direction = self.blur
        if length:
            reach = length // 2
            at = torch.arange(-reach, reach + 1, device=crop.device, dtype=crop.dtype)
            y, x = torch.meshgrid(at, at, indexing="ij")
            if direction < 0:  # out of focus
                kernel = torch.exp(-(x * x + y * y) / (0.25 * length) ** 2)
            else:  # moving
                across = x * math.sin(direction) - y * math.cos(direction)
                kernel = torch.exp(-2 * across * across) * (x * x + y * y <= (reach + 0.5) ** 2)
            kernel = (kernel / kernel.sum()).expand(1, 1, -1, -1)
            crop = conv2d(torch.nn.functional.pad(crop[:, None], (reach,) * 4, mode="replicate"), kernel)[:, 0]
        luma = (crop * crop.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
        crop = luma + (crop - luma) * self.saturation
        middle = crop.mean()
        crop = (middle + (crop - middle) * self.contrast) * crop.new_tensor(self.gains)[:, None, None]
        strength, seed = self.noise
        if strength:
            generator = torch.Generator(crop.device).manual_seed(seed)
            crop = crop + strength * torch.randn(crop.shape, generator=generator, device=crop.device)
        return crop


class _Backdrop(NamedTuple):
    """A square cut from the inside of a picture."""

    picture: int
    centre: tuple[float, float]
    side: float

    def matrix(self) -> _Matrix:
        return (self.side / 2, 0.0, self.centre[0]), (0.0, self.side / 2, self.centre[1])


class _View(NamedTuple):
    """A square cut from a picture."""

    picture: int
    centre: tuple[float, float]  # pixels of the picture
    side: float  # pixels of the picture
    look: _Look
    flip: bool
    aspect: float = 1.0  # of the pixels: above 1 squeezes the width
    rotation: float = 0.0  # radians
    backdrop: _Backdrop | None = None

    def _axes(self) -> tuple[float, float, float, float]:
        """Crop offset -> picture offset, as a 2 x 2 matrix, for offsets in units of `side`."""
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        x, y = math.sqrt(self.aspect) * (-1 if self.flip else 1), 1 / math.sqrt(self.aspect)
        return c * x, -s * y, s * x, c * y

    def matrix(self) -> _Matrix:
        a, b, c, d = (value * self.side / 2 for value in self._axes())
        return (a, b, self.centre[0]), (c, d, self.centre[1])

    def box_in_crop(self, box: Box, size: int) -> list[float]:
        """Left, top, right, bottom of `box` in pixels of the crop; a rotation moves its centre and leaves its shape."""
        a, b, c, d = (value * self.side / size for value in self._axes())
        determinant = a * d - b * c
        dx, dy = box.centre[0] - self.centre[0], box.centre[1] - self.centre[1]
        x = size / 2 + (d * dx - b * dy) / determinant
        y = size / 2 + (a * dy - c * dx) / determinant
        width = box.width * size / self.side / math.sqrt(self.aspect)
        height = box.height * size / self.side * math.sqrt(self.aspect)
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


class _Plan(NamedTuple):
    template: _View
    online: _View | None
    search: _View
    box: list[float]
    present: bool
    exact: bool
    occlude: bool
    look_alike: bool
    dice: list[float]


def _paste(search: Tensor, i: int, plan: _Plan) -> None:
    """Occlude the target of crop `i`, or paste a recoloured copy of it elsewhere, in place."""
    size = search.shape[-1]
    x0, y0, x1, y1 = (round(min(max(value, 0), size)) for value in plan.box)
    width, height = x1 - x0, y1 - y0
    if min(width, height) < 8:
        return
    d = plan.dice
    if plan.look_alike and width < size // 2 and height < size // 2:
        if d[0] < 0.5:  # elsewhere
            left = round((x0 + size / 2 + (2 * d[0] - 0.5) * size / 3) % (size - width))
            top = round((y0 + size / 2 + (d[1] - 0.5) * size / 3) % (size - height))
            strength = 0.8
        else:  # side by side, like two cars that pass each other: the box must not cover both
            along, gap = round((d[1] - 0.5) * 0.8 * (height if d[0] < 0.8 else width)), round(0.2 * d[6] * width)
            before = d[7] < 0.5
            if d[0] < 0.8:
                left, top = (x0 - width - gap if before else x1 + gap), y0 + along
            else:
                left, top = x0 + along, (y0 - height - gap if before else y1 + gap)
            strength = 0.3
        left, top = max(left, 0), max(top, 0)
        copy = search[i, :, y0:y1, x0:x1].clone()
        copy = copy.flip(-1) if d[2] < 0.5 else copy
        gains = copy.new_tensor([1 + strength * (value - 0.5) for value in d[3:6]])[:, None, None]
        place = search[i, :, top : top + height, left : left + width]
        clear = left >= x1 or left + width <= x0 or top >= y1 or top + height <= y0
        if clear and place.numel():
            place.copy_((copy * gains)[:, : place.shape[1], : place.shape[2]])
    if plan.occlude:
        along = round((0.2 + 0.3 * d[6]) * (width if d[7] < 0.5 else height))
        other = search[i].flip(-2, -1)  # some other part of the same crop
        if d[7] < 0.25:
            search[i, :, y0:y1, x0 : x0 + along] = other[:, y0:y1, x0 : x0 + along]
        elif d[7] < 0.5:
            search[i, :, y0:y1, x1 - along : x1] = other[:, y0:y1, x1 - along : x1]
        else:
            search[i, :, y1 - along : y1, x0:x1] = other[:, y1 - along : y1, x0:x1]


def _window(centre: float, reach: float, size: int) -> tuple[int, int]:
    """First and last + 1 pixel of a picture's side that a crop touches; never empty."""
    first = min(max(math.floor(centre - reach) - 2, 0), size - 1)
    return first, max(min(math.ceil(centre + reach) + 2, size), first + 1)


def _to_bytes(crops: Tensor) -> Tensor:
    return crops.round_().clamp_(0, 255).to(torch.uint8)
