"""Properties that hold for any box, any crop and any image, not only for those that somebody thought of."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, clip_box, context_side, intersection_over_union, round_half_away
from lighttrack_ros.image import MIN_SIDE, Frame, decode, decode_compressed, encodings, from_bgr
from lighttrack_ros.trackers.crop import SquareCropper

places = st.floats(-5000, 5000)
sizes = st.floats(1, 5000)
boxes = st.builds(Box, places, places, sizes, sizes)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_share(a, b):
    overlap = intersection_over_union(a, b)
    assert overlap == intersection_over_union(b, a)
    assert 0 <= overlap <= 1
    assert intersection_over_union(a, a) == pytest.approx(1)
    apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
    assert (overlap == 0) == apart or overlap < 1e-9


@given(boxes, st.integers(1, 4000), st.integers(1, 4000))
def test_a_clipped_box_lies_inside_and_clipping_again_changes_nothing(box, width, height):
    clipped = clip_box(box, width, height)
    assert clipped.x >= 0
    assert clipped.y >= 0
    assert clipped.width >= 0
    assert clipped.height >= 0
    assert clipped.x + clipped.width <= width + 1e-6
    assert clipped.y + clipped.height <= height + 1e-6
    again = clip_box(clipped, width, height)
    assert again == pytest.approx(clipped, abs=1e-6)
    if box.x >= 0 and box.y >= 0 and box.x + box.width <= width and box.y + box.height <= height:
        assert clipped == pytest.approx(box)


@given(sizes, sizes)
def test_the_context_lies_between_the_squares_of_the_sides(width, height):
    side = context_side(width, height)
    assert side == context_side(height, width)
    assert 2 * min(width, height) <= side * (1 + 1e-9)
    assert side <= 2 * max(width, height) * (1 + 1e-9)


@given(st.floats(-1e9, 1e9))
def test_rounding_is_odd_and_goes_to_the_nearest(value):
    assert abs(round_half_away(value) - value) <= 0.5
    assert round_half_away(-value) == -round_half_away(value)


@given(
    width=st.integers(MIN_SIDE, 90),
    height=st.integers(MIN_SIDE, 90),
    x0=st.integers(-200, 200),
    y0=st.integers(-200, 200),
    side=st.integers(1, 200),
    out=st.sampled_from([16, 33, 64]),
    seed=st.integers(0, 99),
)
@settings(max_examples=200)
def test_any_crop_equals_that_of_a_padded_copy(width, height, x0, y0, side, out, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    fill = rng.integers(0, 256, 3).astype(np.uint8)
    found = np.empty((out, out, 3), np.uint8)
    SquareCropper().crop(from_bgr(image), x0, y0, side, fill, found)
    margin = 410
    padded = cv2.copyMakeBorder(image, *(4 * [margin]), cv2.BORDER_CONSTANT, value=fill.tolist())
    square = padded[y0 + margin : y0 + margin + side, x0 + margin : x0 + margin + side]
    expected = square if side == out else cv2.resize(square, (out, out), interpolation=cv2.INTER_LINEAR)
    if x0 + side <= 0 or y0 + side <= 0 or x0 >= width or y0 >= height:
        expected = np.broadcast_to(fill, (out, out, 3))
    np.testing.assert_array_equal(found, expected)


fields = {
    "encoding": st.one_of(st.sampled_from(encodings()), st.text(max_size=12)),
    "width": st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1)),
    "height": st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1)),
    "step": st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)),
    "is_bigendian": st.booleans(),
}


@given(**fields, data=st.binary(max_size=300), repeats=st.integers(1, 60))
@settings(max_examples=600)
def test_any_fields_make_a_frame_of_that_size_or_an_error_of_ours(
    encoding, width, height, step, is_bigendian, data, repeats
):
    try:
        frame = decode(encoding, width, height, step, is_bigendian, data * repeats)
    except LightTrackError:
        return
    looks_like_an_image(frame, width, height)


@given(
    encoding=st.sampled_from(encodings()),
    width=st.integers(MIN_SIDE, 40),
    height=st.integers(MIN_SIDE, 40),
    padding=st.integers(0, 9),
    is_bigendian=st.booleans(),
    seed=st.integers(0, 9),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=300)
def test_any_region_of_any_image_is_that_part_of_the_whole(
    encoding, width, height, padding, is_bigendian, seed, corners
):
    width, height = width - width % 2, height - height % 2  # as some encodings want it
    rng = np.random.default_rng(seed)
    values = 1 if encoding.startswith(("mono8", "8UC1", "nv")) else 2
    values = {"bgr8": 3, "rgb8": 3, "8UC3": 3, "bgra8": 4, "rgba8": 4, "8UC4": 4, "32FC1": 4}.get(encoding, values)
    values = {"bgr16": 6, "rgb16": 6, "16UC3": 6, "bgra16": 8, "rgba16": 8}.get(encoding, values)
    values = 1 if encoding.startswith("bayer") and encoding.endswith("8") else values
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    step = width * values + padding
    data = rng.integers(0, 256, rows * step, np.uint8).tobytes()
    frame = decode(encoding, width, height, step, is_bigendian, data)
    whole = frame.bgr()
    looks_like_an_image(frame, width, height)
    x0, x1 = sorted(round(share * width) for share in corners[:2])
    y0, y1 = sorted(round(share * height) for share in corners[2:])
    assume(x0 < x1 and y0 < y1)
    np.testing.assert_array_equal(frame.region(x0, y0, x1, y1), whole[y0:y1, x0:x1])


def looks_like_an_image(frame: Frame, width: int, height: int) -> None:
    assert (frame.width, frame.height) == (width, height)
    whole = frame.bgr()
    assert whole.shape == (height, width, 3)
    assert whole.dtype == np.uint8
    assert all(map(math.isfinite, frame.mean_colour()))


PICTURES = {
    suffix: cv2.imencode(suffix, np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8))[1].tobytes()
    for suffix in (".png", ".jpg", ".tiff", ".bmp", ".webp")
}


@given(
    suffix=st.sampled_from(sorted(PICTURES)),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    cut=st.floats(0, 1),
)
@settings(max_examples=120)
def test_a_damaged_picture_is_a_frame_or_an_error_of_ours(suffix, changes, cut):
    data = bytearray(PICTURES[suffix])
    for place, value in changes:
        data[place % min(len(data), 200)] = value  # the headers are in front
    try:
        frame = decode_compressed(suffix, bytes(data[: max(1, round(cut * len(data)))]))
    except LightTrackError:
        return
    looks_like_an_image(frame, frame.width, frame.height)


@given(data=st.binary(max_size=400), format=st.text(max_size=20))
@example(b"\x89PNG\r\n\x1a\n", "png")
def test_any_bytes_are_no_picture(data, format):
    with pytest.raises(LightTrackError):
        decode_compressed(format, data)


def png(width: int, height: int, rows: int) -> bytes:
    """A PNG that announces a size, and holds so many rows of zeros."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + 3 * width) * rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(20_000, 20_000, 20), "has more pixels than 67108864"),
        (png(2**31 - 1, 2**31 - 1, 0), ""),
        (b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(200), ""),
    ],
    ids=["pixels", "sides", "jpeg"],
)
def test_a_header_that_announces_gigabytes_costs_nothing(data, words):
    """In a process of its own, whose peak of memory tells."""
    script = (
        "import resource, sys\n"
        "from lighttrack_ros.errors import LightTrackError\n"
        "from lighttrack_ros.image import decode_compressed\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: decode_compressed('any', sys.stdin.buffer.read())\n"
        "except LightTrackError as error: print(peak() - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    kilobytes, error = done.stdout.decode().split(" ", 1)
    assert int(kilobytes) < 50_000
    assert words in error
