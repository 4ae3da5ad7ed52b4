"""Model folders: read back as written, every wrong entry named, found where they may lie."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.models import (
    LightTrackHyperParameters,
    Model,
    Provenance,
    SessionSettings,
    find_model,
    load_model,
    save_model,
)


def make_model(folder: Path) -> Model:
    model = Model(
        folder=folder,
        name=folder.name,
        tracker="lighttrack",
        architecture="back_...",
        template_size=128,
        search_sizes=(256, 288),
        stride=16,
        provenance=Provenance("somewhere", "MIT", "0" * 64),
        hyper_parameters=LightTrackHyperParameters(lr=0.5),
        scores={"auc": 0.7},
    )
    folder.mkdir(parents=True)
    for graph in model.template_graphs + model.search_graphs:
        graph.write_bytes(b"")
    save_model(model)
    return model


def test_a_model_is_read_as_it_was_written(tmp_path):
    model = make_model(tmp_path / "nano")
    assert load_model(tmp_path / "nano") == model
    assert load_model(tmp_path / "nano").session == SessionSettings()


def change(**entries):
    return lambda data: data.update(entries)


def inside(section, **entries):
    return lambda data: data[section].update(entries)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (change(version=7), "version is 7, expected 1"),
        (change(tracker="lightrack"), "tracker is 'lightrack', expected one of lighttrack"),
        (change(tracker=["lighttrack"]), r"tracker is \['lighttrack'\]"),
        (change(template_sise=128), "unknown key 'template_sise' .did you mean 'template_size'"),
        (change(template_size="128"), "template_size: is '128', expected a whole number"),
        (change(template_size=True), "template_size: is True, expected a whole number"),
        (change(search_sizes=256), "search_sizes: is 256, expected a list"),
        (change(search_sizes=[256]), "two sides"),
        (
            change(search_sizes=[250, 288]),
            "search_sizes is 250, expected a multiple of 16 over the template's 128 .try 256",
        ),
        (change(stride=10), "stride is 10"),
        (change(provenance="me"), "provenance: is 'me', expected a section"),
        (inside("provenance", licence=None), "licence: is None, expected a text"),
        (inside("hyper_parameters", lr="fast"), "hyper_parameters: lr: is 'fast', expected a number"),
        (inside("hyper_parameters", lr=1.5), "lr is 1.5, expected 0 to 1"),
        (inside("hyper_parameters", near_size=176), "near_size is 176, expected 0, or a multiple of 32 between"),
        (
            inside("hyper_parameters", middle_size=192),
            "middle_size is 192, expected 0, or a multiple of 32 between near_size",
        ),
        (inside("hyper_parameters", near_size=256), "near_size is 256, expected 0, or a multiple of 32 between"),
        (inside("hyper_parameters", lr=float("nan")), "lr: is nan, expected a number"),
        (inside("session", lost_frames=0), "lost_frames is 0, expected 1 to"),
        (inside("graphs", search=["gone.onnx"]), "graph gone.onnx is not in"),
        (lambda data: data.pop("provenance"), "provenance is missing"),
        (lambda data: data.pop("hyper_parameters"), "hyper_parameters"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, edit, complaint):
    make_model(tmp_path / "nano")
    file = tmp_path / "nano/model.yaml"
    data = yaml.safe_load(file.read_text())
    edit(data)
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(LightTrackError, match=complaint) as error:
        load_model(tmp_path / "nano")
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize("text", ["", "just words", "a: [1", "\x00"])
def test_a_file_that_is_no_settings_file_is_named(tmp_path, text):
    make_model(tmp_path / "nano")
    (tmp_path / "nano/model.yaml").write_text(text)
    with pytest.raises(LightTrackError, match=r"nano/model\.yaml"):
        load_model(tmp_path / "nano")


def test_places_are_searched_in_order_and_listed_when_nothing_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    installed = make_model(tmp_path / "two/share/lighttrack_ros/engines/nano").folder
    assert find_model("nano") == installed
    own = make_model(tmp_path / "data/lighttrack_ros/engines/nano").folder
    assert find_model("nano") == own
    here = make_model(tmp_path / "engines/nano").folder
    assert find_model("nano") == here
    assert find_model(installed) == installed
    with pytest.raises(LightTrackError) as error:
        find_model("giant")
    for part in ("'giant'", str(tmp_path / "one/share/lighttrack_ros/engines"), "nano"):
        assert part in str(error.value)


def test_every_field_of_the_schema_is_stored(tmp_path):
    make_model(tmp_path / "nano")
    data = yaml.safe_load((tmp_path / "nano/model.yaml").read_text())
    assert set(data) == {field.name for field in dataclasses.fields(Model)} - {"folder"} | {"version"}
