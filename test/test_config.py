"""Typed YAML: what is wrong is named with its place, its value and what was expected; what could hurt is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import yaml

from lighttrack_ros import config
from lighttrack_ros.config import at_least, not_empty, one_of, within
from lighttrack_ros.errors import LightTrackError


@dataclass(frozen=True)
class Camera:
    width: Annotated[int, at_least(1)]
    gain: Annotated[float, within(0, 1)] = 0.5
    mode: Annotated[str, one_of("raw", "jpeg")] = "raw"
    name: Annotated[str, not_empty] = "front"


@dataclass(frozen=True)
class Rig:
    main: Camera
    folder: Path
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    spare: Camera | None = None
    range: tuple[float, float] = (0.0, 1.0)
    sizes: tuple[Annotated[int, at_least(1)], ...] = ()
    live: bool = True


def read(path: Path, text: str | bytes) -> Rig:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return config.check(Rig, config.load(path), path, folder=path.parent)


def test_what_is_saved_is_read(tmp_path):
    cameras = {"links ü": Camera(3, mode="jpeg"), "1": Camera(4)}
    rig = Rig(Camera(640, gain=1.0), tmp_path, cameras, Camera(2), (-1.0, 2.5), (1, 2), False)
    for inline in (False, True):
        data = asdict(rig)
        del data["folder"]
        config.save(tmp_path / "rig.yaml", data, version=3, inline=inline)
        assert config.check(Rig, config.load(tmp_path / "rig.yaml", version=3), "", folder=tmp_path) == rig


def test_a_whole_number_is_a_number_and_a_list_a_tuple(tmp_path):
    rig = read(tmp_path / "rig.yaml", "{main: {width: 1, gain: 1}, range: [0, 2], cameras: {7: {width: 2}}}")
    assert rig == Rig(Camera(1, 1.0), tmp_path, {"7": Camera(2)}, None, (0.0, 2.0))
    assert type(rig.main.gain) is type(rig.range[1]) is float


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("live: true", ": main is missing"),
        ("main: {gain: 1}", ": main: width is missing"),
        ("main: 7", ": main: is 7, expected a section with keys"),
        ("main: {width: 0}", ": main: width is 0, expected at least 1"),
        ("main: {width: 1.0}", ": main: width: is 1.0, expected a whole number"),
        ("main: {width: '1'}", ": main: width: is '1', expected a whole number"),
        ("main: {width: yes}", ": main: width: is True, expected a whole number"),
        ("main: {width: null}", ": main: width: is None, expected a whole number"),
        ("main: {width: 1, gain: 1.5}", ": main: gain is 1.5, expected 0 to 1"),
        ("main: {width: 1, gain: .inf}", ": main: gain: is inf, expected a number"),
        ("main: {width: 1, mode: png}", ": main: mode is 'png', expected one of raw, jpeg"),
        ("main: {width: 1, name: ''}", ": main: name is '', expected a text"),
        ("main: {width: 1, name: 2}", ": main: name: is 2, expected a text"),
        ("main: {width: 1, gian: 2}", ": main: unknown key 'gian' (did you mean 'gain'?)"),
        ("main: {width: 1}\nzoom: 2", ": unknown key 'zoom' (known: main, cameras, spare, range, sizes, live)"),
        ("main: {width: 1}\nfolder: x", ": unknown key 'folder' (known: "),
        ("main: {width: 1}\ncameras: {left: {with: 2}}", ": cameras: left: width is missing"),
        ("main: {width: 1}\ncameras: {left: {width: 2, gian: 2}}", ": cameras: left: unknown key 'gian' (did you mean"),
        ("main: {width: 1}\nspare: {width: 2, gian: 2}", ": spare: unknown key 'gian' (did you mean 'gain'?)"),
        (
            "main: {width: 1}\ncameras: {width: {width: 2, zoom: 2}}",
            ": cameras: width: unknown key 'zoom' (known: width",
        ),
        ("main: {width: 1}\ncameras: []", ": cameras: is [], expected a section with keys"),
        ("main: {width: 1}\nrange: [1]", ": range: entry 2 is missing"),
        ("main: {width: 1}\nrange: [1, 2, 3]", ": range: is [1, 2, 3], expected fewer entries"),
        ("main: {width: 1}\nsizes: [1, a]", ": sizes: entry 2: is 'a', expected a whole number"),
        ("main: {width: 1}\nsizes: [1, 0]", ": sizes: entry 2 is 0, expected at least 1"),
        ("main: {width: 1}\nlive: 1", ": live: is 1, expected true or false"),
        ("main: {width: " + "x" * 10_000 + "}", ": main: width: is 'xxx"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, complaint):
    with pytest.raises(LightTrackError) as error:
        read(tmp_path / "rig.yaml", text)
    assert str(error.value).startswith(f"{tmp_path / 'rig.yaml'}{complaint}")
    assert len(str(error.value)) < 400


BILLION_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected `key: value` lines, found NoneType"),
        ("- a", "expected `key: value` lines, found list"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 1\nb: 2\na: 3", "found the key 'a' twice"),
        ("a: {b: 1, b: 2}", "found the key 'b' twice"),
        (BILLION_LAUGHS, "found an alias (*name), which is not taken"),
        ("a: &a [*a]", "found an alias"),
        ("[" * 100_000, "found more than 20 levels"),
        ("a: " + "{a: " * 10_000, "found more than 20 levels"),
        ("a: b\n" * 1_000_000, "over 1,000,000 bytes"),
        (b"a: \xff\xfe", "can't decode byte 0xff"),
        ("a: \x00", "special characters are not allowed"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("? [a]\n: b", "found unhashable key"),
        ("2020-01-01: a", "keys must be"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 0x" + "f" * 5000, "Exceeds the limit"),
    ],
)
def test_a_file_that_could_hurt_or_is_none_is_refused(tmp_path, text, complaint):
    if "Exceeds" in complaint and not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("this Python has no limit on whole numbers")
    with pytest.raises(LightTrackError) as error:
        read(tmp_path / "rig.yaml", text)
    assert str(error.value).startswith(f"{tmp_path / 'rig.yaml'}: cannot be read (")
    assert complaint in str(error.value)


def test_no_file_and_another_version_say_the_way_out(tmp_path):
    with pytest.raises(LightTrackError, match=r"a\.yaml: cannot be read .*No such file.*; make it anew"):
        config.load(tmp_path / "a.yaml", 1, "make it anew")
    (tmp_path / "a.yaml").write_text("version: 2")
    with pytest.raises(LightTrackError, match=r"a\.yaml: version is 2, expected 1 \(make it anew\)"):
        config.load(tmp_path / "a.yaml", 1, "make it anew")


def test_an_old_pydantic_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", yaml)  # any module without pydantic 2's names

    @dataclass(frozen=True)
    class Fresh:
        a: int

    with pytest.raises(LightTrackError, match=r"pydantic 2 is needed .*pip install 'pydantic>=2.6'"):
        config.check(Fresh, {"a": 1}, tmp_path)
