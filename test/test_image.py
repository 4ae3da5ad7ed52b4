"""Every encoding against OpenCV's conversion of the whole image, and against cv_bridge where it is installed."""

import re
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import (
    FEW_LEVELS,
    MIN_SIDE,
    Intensities,
    decode,
    decode_compressed,
    encodings,
    from_bgr,
    grey_levels,
)

WIDTH, HEIGHT = 64, 48
REGIONS = [
    (0, 0, WIDTH, HEIGHT),
    (0, 0, 1, 1),
    (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT),
    (7, 5, 8, 6),
    (7, 5, 30, 28),
    (8, 4, 31, 27),
    (1, 1, 3, 2),
    (WIDTH - 9, 0, WIDTH, 11),
    (0, HEIGHT - 7, 5, HEIGHT),
]


def grey(image):
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def eight_bits(image):
    return np.rint(image.astype(np.float64) * 255 / 65535).astype(np.uint8)


def bayer(code):
    return lambda image: cv2.cvtColor(image, code)


def bayer16(code):
    return lambda image: eight_bits(cv2.cvtColor(image, code))


def two_planes(code):
    return lambda image: cv2.cvtColor(image, code)


# encoding: (dtype, channels, whole image to BGR); written out here a second time, from ROS's and OpenCV's documents.
ENCODINGS = {
    "bgr8": (np.uint8, 3, lambda image: image),
    "rgb8": (np.uint8, 3, lambda image: image[..., ::-1]),
    "bgra8": (np.uint8, 4, lambda image: image[..., :3]),
    "rgba8": (np.uint8, 4, lambda image: image[..., 2::-1]),
    "mono8": (np.uint8, 1, grey),
    "mono16": (np.uint16, 1, lambda image: grey(eight_bits(image))),
    "bgr16": (np.uint16, 3, lambda image: eight_bits(image)),
    "rgb16": (np.uint16, 3, lambda image: eight_bits(image[..., ::-1])),
    "bgra16": (np.uint16, 4, lambda image: eight_bits(image[..., :3])),
    "rgba16": (np.uint16, 4, lambda image: eight_bits(image[..., 2::-1])),
    "16UC1": (np.uint16, 1, lambda image: grey(eight_bits(image))),
    "16SC1": (np.int16, 1, lambda image: grey(eight_bits(image.astype(np.int32) + 32768))),
    "16UC3": (np.uint16, 3, lambda image: eight_bits(image)),
    "32FC1": (np.float32, 1, lambda image: grey(np.rint(image * 255).astype(np.uint8))),
    "8UC1": (np.uint8, 1, grey),
    "8UC3": (np.uint8, 3, lambda image: image),
    "8UC4": (np.uint8, 4, lambda image: image[..., :3]),
    "uyvy": (np.uint8, 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2BGR_UYVY)),
    "yuv422": (np.uint8, 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2BGR_UYVY)),
    "yuyv": (np.uint8, 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2BGR_YUYV)),
    "yuv422_yuy2": (np.uint8, 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2BGR_YUYV)),
    "nv12": (np.uint8, 1, two_planes(cv2.COLOR_YUV2BGR_NV12)),
    "nv21": (np.uint8, 1, two_planes(cv2.COLOR_YUV2BGR_NV21)),
    "bayer_rggb8": (np.uint8, 1, bayer(cv2.COLOR_BayerRGGB2BGR)),
    "bayer_bggr8": (np.uint8, 1, bayer(cv2.COLOR_BayerBGGR2BGR)),
    "bayer_gbrg8": (np.uint8, 1, bayer(cv2.COLOR_BayerGBRG2BGR)),
    "bayer_grbg8": (np.uint8, 1, bayer(cv2.COLOR_BayerGRBG2BGR)),
    "bayer_rggb16": (np.uint16, 1, bayer16(cv2.COLOR_BayerRGGB2BGR)),
    "bayer_bggr16": (np.uint16, 1, bayer16(cv2.COLOR_BayerBGGR2BGR)),
    "bayer_gbrg16": (np.uint16, 1, bayer16(cv2.COLOR_BayerGBRG2BGR)),
    "bayer_grbg16": (np.uint16, 1, bayer16(cv2.COLOR_BayerGRBG2BGR)),
}


FULL = {"16SC1": Intensities((-32768, 32767)), "32FC1": Intensities((0, 1))}


def message(encoding, is_bigendian=False, padding=0, width=WIDTH, height=HEIGHT, seed=0):
    """The fields of an Image with random pixels, and those pixels as BGR by the table above."""
    dtype, channels, to_bgr = ENCODINGS[encoding]
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    shape = (rows, width) if channels == 1 else (rows, width, channels)
    rng = np.random.default_rng(seed)
    if dtype is np.float32:
        pixels = rng.random(shape, dtype)
    else:
        pixels = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape, dtype)
    sent = pixels.astype(pixels.dtype.newbyteorder(">" if is_bigendian else "<"))
    row_bytes = sent.view(np.uint8).reshape(rows, -1)
    padded = np.pad(row_bytes, ((0, 0), (0, padding)), constant_values=255)
    fields = {
        "encoding": encoding,
        "width": width,
        "height": height,
        "step": padded.shape[1],
        "is_bigendian": is_bigendian,
        "data": padded.tobytes(),
    }
    return fields, np.ascontiguousarray(to_bgr(pixels))


def test_the_table_is_whole():
    assert set(ENCODINGS) == set(encodings())


@pytest.mark.parametrize("padding", [0, 6, 13])
@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_region_equals_the_whole_image_converted(encoding, is_bigendian, padding):
    fields, expected = message(encoding, is_bigendian, padding)
    frame = decode(**fields, intensities=FULL.get(encoding, Intensities((0, 65535))))
    assert (frame.width, frame.height) == (WIDTH, HEIGHT)
    for x0, y0, x1, y1 in REGIONS:
        region = frame.region(x0, y0, x1, y1)
        assert region.dtype == np.uint8
        np.testing.assert_array_equal(region, expected[y0:y1, x0:x1], err_msg=f"{encoding} {x0, y0, x1, y1}")
    np.testing.assert_array_equal(frame.bgr(), expected)
    np.testing.assert_allclose(frame.mean_colour(), expected.reshape(-1, 3).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name.startswith(("bayer", "mono", "rgb", "bgr"))])
def test_odd_sizes(encoding):
    fields, expected = message(encoding, width=63, height=47)
    frame = decode(**fields, intensities=Intensities((0, 65535)))
    for region in [(0, 0, 63, 47), (60, 44, 63, 47), (61, 45, 63, 47), (31, 22, 40, 33)]:
        x0, y0, x1, y1 = region
        np.testing.assert_array_equal(frame.region(*region), expected[y0:y1, x0:x1])


@pytest.mark.parametrize("encoding", ["bgr8", "8UC3"])
def test_bgr_is_a_view_of_the_message(encoding):
    fields, _ = message(encoding, padding=5)
    fields["data"] = bytearray(fields["data"])
    frame = decode(**fields)
    region = frame.region(3, 2, 9, 8)
    fields["data"][2 * fields["step"] + 3 * 3] ^= 0xFF
    assert region[0, 0, 0] == fields["data"][2 * fields["step"] + 3 * 3]
    assert np.shares_memory(frame.bgr(), region)


def test_the_last_row_may_lack_its_padding():
    fields, expected = message("rgb8", padding=10)
    fields["data"] = fields["data"][:-10]
    np.testing.assert_array_equal(decode(**fields).bgr(), expected)


@pytest.mark.parametrize(
    ("encoding", "changes", "words"),
    [
        ("bgr8", {"data": b""}, "64 x 48 'bgr8' has no data"),
        ("bgr8", {"width": 0}, "0 x 48, expected at least"),
        ("bgr8", {"height": 0}, "64 x 0, expected at least"),
        ("bgr8", {"width": 1, "height": 1, "step": 3, "data": b"abc"}, "1 x 1, expected at least"),
        ("bgr8", {"width": MIN_SIDE - 1}, f"{MIN_SIDE - 1} x 48, expected at least {MIN_SIDE}"),
        ("bgr8", {"step": 0}, "step is 0, expected at least 192"),
        ("bgr8", {"step": 191}, "step is 191, expected at least 192"),
        ("bgr8", {"step": 193}, "has 9216 bytes, expected 9264"),
        ("bgr8", {"step": 2**32 - 1}, "has 9216 bytes"),
        ("bgr8", {"height": 2**32 - 1}, "has 9216 bytes"),
        ("bgr8", {"width": 2**32 - 1}, "step is 192, expected at least"),
        ("bgr8", {"data": bytes(9215)}, "has 9215 bytes, expected 9216"),
        ("bgr8", {"data": bytes(9217)}, "has 9217 bytes, expected 9216"),
        ("bgr8", {"encoding": "rgba8"}, "step is 192, expected at least 256"),
        ("mono16", {"step": 64}, "step is 64, expected at least 128"),
        ("uyvy", {"width": 63}, "63 x 48: pixels of 'uyvy' share colour, expected even"),
        ("nv12", {"height": 47}, "64 x 47: pixels of 'nv12' share colour, expected even"),
        ("nv12", {"data": bytes(64 * 48)}, "has 3072 bytes, expected 4608"),
    ],
)
def test_fields_that_do_not_fit_are_named(encoding, changes, words):
    fields, _ = message(encoding)
    with pytest.raises(LightTrackError, match=re.escape(words)):
        decode(**{**fields, **changes})


@pytest.mark.parametrize("encoding", ["", "bgr", "BGR8", "64FC1", "nv24", "h264", "no such thing"])
def test_an_unknown_encoding_names_the_known_ones(encoding, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    fields, _ = message("bgr8")
    with pytest.raises(LightTrackError, match=f"encoding is '{encoding}', supported are bgr8, rgb8.*cv_bridge"):
        decode(**{**fields, "encoding": encoding})


def test_an_unknown_encoding_goes_through_cv_bridge_where_it_is_installed(monkeypatch):
    fields, expected = message("bgr8")
    fields["encoding"] = "bayer_rggb32"

    class CvBridge:
        def imgmsg_to_cv2(self, image, desired_encoding):
            assert desired_encoding == "bgr8"
            assert {name: getattr(image, name) for name in fields} == fields
            return expected

    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=CvBridge))
    np.testing.assert_array_equal(decode(**fields).bgr(), expected)
    monkeypatch.setattr(CvBridge, "imgmsg_to_cv2", lambda *_: 1 / 0)
    with pytest.raises(LightTrackError, match="'bayer_rggb32', which cv_bridge cannot decode"):
        decode(**fields)


def test_cv_bridge_agrees():
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed (it comes with an apt ROS)")
    from sensor_msgs.msg import Image

    compared = set()
    for encoding in ENCODINGS:
        fields, _ = message(encoding, padding=24)  # whole pixels of every encoding: cv_bridge asks for that
        try:
            theirs = cv_bridge.CvBridge().imgmsg_to_cv2(Image(**{**fields, "is_bigendian": 0}), "bgr8")
        except (cv_bridge.CvBridgeError, KeyError, TypeError, ValueError):
            continue  # one that cv_bridge does not know
        compared.add(encoding)
        difference = np.abs(decode(**fields).bgr().astype(int) - theirs.astype(int))
        assert difference.max() <= 1, encoding  # of 16 bits it may round halves otherwise
    assert compared >= {"bgr8", "rgb8", "bgra8", "rgba8", "mono8", "mono16", "bayer_rggb8"}


@pytest.mark.parametrize(("suffix", "exact"), [(".png", True), (".jpg", False)])
@pytest.mark.parametrize("name", ["jpeg", "png", "bgr8; jpeg compressed bgr8", "rgb8; png compressed bgr8"])
def test_compressed(suffix, exact, name):
    image = cv2.GaussianBlur(message("bgr8")[1], (9, 9), 3)
    frame = decode_compressed(name, cv2.imencode(suffix, image)[1].tobytes())
    assert (frame.width, frame.height) == (WIDTH, HEIGHT)
    assert np.abs(frame.bgr().astype(int) - image.astype(int)).max() <= (0 if exact else 40)
    np.testing.assert_array_equal(frame.region(5, 6, 20, 30), frame.bgr()[6:30, 5:20])


def test_compressed_grey_becomes_bgr():
    image = message("mono8")[1][..., 0]
    frame = decode_compressed("mono8; png compressed ", cv2.imencode(".png", image)[1].tobytes())
    np.testing.assert_array_equal(frame.bgr(), grey(image))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("jpeg", b"", "no data"),
        ("jpeg", b"\xff\xd8\xff\xe0 this is no picture", "23 bytes 'jpeg': expected a whole JPEG or PNG"),
        ("h264", bytes(1000), "1000 bytes 'h264': expected a whole JPEG or PNG"),
        ("16UC1; compressedDepth png", b"\x00" * 12 + b"\x89PNG", "depth is no picture"),
        ("png", cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes(), "1 x 1, expected at least"),
    ],
)
def test_compressed_data_that_is_no_picture(name, data, words):
    with pytest.raises(LightTrackError, match=re.escape(words)):
        decode_compressed(name, data)


def test_from_bgr_copies_nothing():
    image = message("bgr8")[1]
    frame = from_bgr(image)
    assert np.shares_memory(frame.region(1, 2, 30, 40), image)
    np.testing.assert_array_equal(frame.mean_colour(), cv2.mean(image)[:3])


def thermal(scene, low=7300, span=500):
    """What a radiometric camera sends of an 8-bit picture: a few hundred of 65,536 counts, and a dead pixel."""
    counts = (low + scene.astype(np.uint32) * span // 255).astype(np.uint16)
    counts[0, 0] = 0
    return counts


def as_mono16(counts, encoding="mono16"):
    height, width = counts.shape
    step = width * counts.itemsize
    fields = {"encoding": encoding, "width": width, "height": height, "step": step, "is_bigendian": False}
    return fields | {"data": counts.tobytes()}


@pytest.fixture
def scene():
    """A picture of all grey levels, (120, 160) uint8."""
    rng = np.random.default_rng(1)
    blurred = cv2.GaussianBlur(rng.random((120, 160), np.float32), (0, 0), 4)
    return cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "32FC1"])
def test_a_few_hundred_counts_are_stretched_over_all_grey_levels(scene, encoding):
    counts = thermal(scene)
    if encoding == "32FC1":
        counts = counts.astype(np.float32) / 100
        counts[0, :2] = np.nan, np.inf
    image = decode(**as_mono16(counts, encoding)).bgr()
    assert grey_levels(image) > 120
    assert np.corrcoef(image[2:, :, 0].ravel(), scene[2:].ravel())[0, 1] > 0.999
    assert image[2:].max() - image[2:].min() > 190


def test_a_16_bit_png_is_the_same_picture_through_both_doors(scene, tmp_path):
    from lighttrack_ros.media.folder import read_image

    counts = thermal(scene)
    cv2.imwrite(str(tmp_path / "1.png"), counts)
    sent = decode_compressed("mono16; png", (tmp_path / "1.png").read_bytes()).bgr()
    np.testing.assert_array_equal(sent, read_image(tmp_path / "1.png"))
    np.testing.assert_array_equal(sent, decode(**as_mono16(counts)).bgr())


def test_the_range_stays_until_values_leave_it_or_a_target_is_given(scene):
    intensities = Intensities()
    first = decode(**as_mono16(thermal(scene)), intensities=intensities).bgr()
    shifted = decode(**as_mono16(thermal(scene, low=7310)), intensities=intensities).bgr().astype(int)
    assert 2 <= np.median(shifted - first) <= 10  # not measured anew: ten counts brighter are seen as brighter
    jumped = decode(**as_mono16(thermal(scene, low=9000)), intensities=intensities).bgr()
    np.testing.assert_allclose(jumped[2:].astype(int), first[2:], atol=2)  # it clipped
    dim = decode(**as_mono16(thermal(scene, low=9100, span=250)), intensities=intensities).bgr()
    intensities.start()
    fresh = decode(**as_mono16(thermal(scene, low=9100, span=250)), intensities=intensities).bgr()
    assert np.ptp(fresh[2:].astype(int)) > 1.5 * np.ptp(dim[2:].astype(int))


def test_a_small_hot_target_is_within_the_range(scene):
    counts = thermal(scene, span=100)
    counts[50:56, 70:76] = 9000 + np.arange(36).reshape(6, 6) * 20
    intensities = Intensities()
    assert len(np.unique(decode(**as_mono16(counts), intensities=intensities).region(70, 50, 76, 56))) == 1
    intensities.start(Box(70.0, 50.0, 6.0, 6.0))
    assert len(np.unique(decode(**as_mono16(counts), intensities=intensities).region(70, 50, 76, 56))) > 20


def test_a_given_range_is_kept_and_a_flat_picture_is_known_for_one(scene):
    image = decode(**as_mono16(thermal(scene)), intensities=Intensities((0, 65535))).bgr()
    assert grey_levels(image) < FEW_LEVELS
    assert grey_levels(np.repeat(scene[..., None], 3, axis=2)) > FEW_LEVELS
