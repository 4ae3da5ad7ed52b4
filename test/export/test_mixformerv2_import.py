"""`lighttrack import` of MixFormerV2 checkpoints: the graphs against the golden data, and whole runs of the tracker."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import yaml
from mixformerv2_weights import rule_made_weights

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import load_model, save_model
from lighttrack_ros.networks.mixformerv2 import load
from lighttrack_ros.networks.transformer import MEAN, STD
from lighttrack_ros.runtime import load_engine
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.lighttrack import LightTrackTracker


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The model of a variant with weights made by rule, imported once through the command line."""
    place = tmp_path_factory.mktemp("import")
    models = {}

    def model(variant):
        if variant not in models:
            checkpoint = place / f"mixformerv2_{variant}.pth.tar"
            torch.save({"net": rule_made_weights(variant)}, checkpoint)
            assert main(["import", str(checkpoint), "--name", variant, "--output", str(place / "engines")]) == 0
            models[variant] = load_model(place / "engines" / variant)
        return models[variant]

    yield model
    shutil.rmtree(place)  # half a gigabyte


@pytest.fixture
def small(imported):
    return imported("small")


@pytest.mark.parametrize("variant", ["small", "base"])
def test_the_graphs_equal_the_official_network(imported, shared, variant):
    model = imported(variant)
    golden = np.load(shared / f"golden/mixformerv2/{variant}.npz")
    crops = {key: np.ascontiguousarray(golden[key][..., ::-1]) for key in ("template", "online_template", "search")}
    search = load_engine(model.search_graph, threads=1)
    tensors = {"template": crops["template"], "online_template": crops["online_template"]}
    for index, graph in enumerate(model.template_graphs):
        engine = load_engine(graph, threads=1)
        outputs = engine.run(tensors)
        np.testing.assert_allclose(outputs["keys"][0, 0, :4], golden["template_k_cache"][index], rtol=0, atol=1e-4)
        np.testing.assert_allclose(outputs["values"][0, 0, :4], golden["template_v_cache"][index], rtol=0, atol=1e-4)
        search.hold({f"keys_{index}": outputs["keys"], f"values_{index}": outputs["values"]})
        tensors = {"tokens": outputs.get("next_tokens")}
    answer = search.run({"crop": crops["search"]})
    np.testing.assert_allclose(answer["box"][0], golden["pred_box_cxcywh"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(answer["score"], golden["score"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "architecture", "template_size", "search_size"),
    [("small", "224_depth4_mlp1_score", 112, 224), ("base", "288_depth8_mlp4_score", 128, 288)],
)
def test_model_yaml_describes_the_graphs(imported, variant, architecture, template_size, search_size):
    model = imported(variant)
    assert (model.tracker, model.architecture) == ("mixformerv2", architecture)
    assert (model.template_size, model.search_sizes) == (template_size, (search_size,))
    assert model.provenance.source == f"mixformerv2_{variant}.pth.tar"


def test_a_run_on_video_equals_the_full_network_on_every_frame(small):
    """With cached templates, and after every new template, the results equal the published computation."""
    eager = dataclasses.replace(small.hyper_parameters, update_interval=3, update_score=0.0)
    tracker = create_tracker(dataclasses.replace(small, hyper_parameters=eager), threads=1)
    network = load(rule_made_weights("small"))
    rng = np.random.default_rng(0)
    frames = [from_bgr(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)) for _ in range(9)]
    tracker.init(frames[0], Box(140, 100, 40, 30))
    online_templates = set()
    for frame in frames[1:]:
        templates = tracker._template.copy(), tracker._online.copy()
        estimate = tracker.update(frame)
        crops = *templates, tracker._search.input_buffers["crop"]
        images = [((crop[..., ::-1] / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32) for crop in crops]
        with torch.inference_mode():
            _, logit = network(*map(torch.from_numpy, images))
        assert estimate.confidence == pytest.approx(logit.sigmoid().item(), abs=1e-5)
        online_templates.add(templates[1].tobytes())
        while tracker.idle_work():
            pass
    tracker.close()
    tracker.close()
    assert len(online_templates) == 3


def test_an_architecture_for_a_mixformerv2_checkpoint_is_refused(small, tmp_path, capsys):
    with pytest.raises(LightTrackError, match="for the tracker 'mixformerv2', not for 'lighttrack'"):
        LightTrackTracker(small)
    checkpoint = tmp_path / "mixformer.pth.tar"
    torch.save({"net": rule_made_weights("small")}, checkpoint)
    command = ["import", str(checkpoint), "--name", "m", "--output", str(tmp_path / "engines")]
    assert main([*command, "--architecture", "back_04502514044521042540+cls_211000022+reg_100000111_ops_32"]) == 1
    assert "a mixformerv2 checkpoint, which says its own architecture" in capsys.readouterr().err
    assert not (tmp_path / "engines").exists()


def test_an_incomplete_checkpoint_is_refused_and_writes_nothing(tmp_path, capsys):
    weights = rule_made_weights("small")
    del weights["backbone.blocks.2.attn.qkv.bias"]
    torch.save({"net": weights}, tmp_path / "holed.pth.tar")
    status = main(["import", str(tmp_path / "holed.pth.tar"), "--name", "m", "--output", str(tmp_path / "engines")])
    assert status == 1
    assert "holed.pth.tar: does not fit" in (message := capsys.readouterr().err)
    assert "missing backbone.blocks.2.attn.qkv.bias (2304,)" in message
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("hyper_parameters", "update_intervall", 3, "did you mean 'update_interval'"),
        ("hyper_parameters", "update_score", 1.5, "update_score is 1.5, expected 0 to 1"),
        ("hyper_parameters", "search_factor", 0.5, "search_factor is 0.5, expected 1 to 10"),
        (None, "search_sizes", [224, 288], "expected one side"),
        (None, "tracker", "mixformer", "expected one of lighttrack, mixformerv2"),
        (None, "tracker", "lighttrack", "hyper_parameters: unknown key"),
    ],
)
def test_the_error_names_a_wrong_entry(small, tmp_path, section, key, value, complaint):
    folder = tmp_path / "model"
    folder.mkdir()
    for graph in small.template_graphs + small.search_graphs:
        (folder / graph.name).symlink_to(graph)
    save_model(dataclasses.replace(small, folder=folder))
    data = yaml.safe_load((folder / "model.yaml").read_text())
    (data[section] if section else data)[key] = value
    (folder / "model.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(LightTrackError, match=complaint):
        load_model(folder)
