"""`lighttrack import` makes a model folder that matches PyTorch; if it fails, it leaves nothing behind."""

import numpy as np
import onnx
import pytest
import torch
import yaml

from lighttrack_ros.commands import main
from lighttrack_ros.models import SessionSettings, load_model
from lighttrack_ros.networks.lighttrack import MEAN, MOBILE, STD, Architecture, LightTrack
from lighttrack_ros.runtime import load_engine

TINY = MOBILE + "+width_20_20"


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = LightTrack(Architecture.parse(TINY)).half()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def run_import(checkpoint, place, *more):
    arguments = ["import", str(checkpoint), "--name", "tiny", "--architecture", TINY, "--output", str(place)]
    return main(arguments + list(more))


def test_graphs_match_pytorch_on_bytes(checkpoint, tmp_path, capsys):
    assert run_import(checkpoint, tmp_path / "engines", "--source", "a test", "--licence", "none") == 0
    assert capsys.readouterr().out.count("largest difference from PyTorch") == 7
    model = load_model(tmp_path / "engines/tiny")
    assert (model.name, model.tracker, model.architecture) == ("tiny", "lighttrack", TINY)
    assert (model.provenance.source, model.provenance.licence) == ("a test", "none")
    for graph in (model.template_graph, model.search_graph):
        assert onnx.load(graph).opset_import[0].version >= 17

    network = LightTrack(Architecture.parse(TINY)).eval()
    network.load_state_dict(torch.load(checkpoint)["state_dict"])
    rng = np.random.default_rng(0)
    features = None
    for graph, side in ((model.template_graph, 127), (model.search_graph, 256), (model.search_graph, 288)):
        crop = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        rgb = (crop[..., ::-1] / 255 - np.array(MEAN)) / np.array(STD)
        image = torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32))
        engine = load_engine(graph, dimensions={"side": side})
        with torch.inference_mode():
            if features is None:
                features = network.template_features(image)
                expected = [features]
                outputs = engine.run({"crop": crop})
            else:
                searched = network.search_features(image)
                expected = [*network.match(features, searched), searched]
                outputs = engine.run({"crop": crop, "template_features": features.numpy()})
        for got, want in zip(outputs.values(), expected, strict=True):
            np.testing.assert_allclose(got, want.numpy(), atol=1e-5 * float(want.abs().max()), rtol=1e-4)


def test_session_limits_are_not_taken_from_other_weights(checkpoint, tmp_path, mobile, capsys):
    capsys.readouterr()
    run_import(checkpoint, tmp_path)
    assert load_model(tmp_path / "tiny").session == SessionSettings()
    assert f"lighttrack fit-session {tmp_path / 'tiny'} --sequences DIR --write" in capsys.readouterr().out
    assert load_model(mobile).session != SessionSettings()


def test_importing_again_replaces_a_model_and_nothing_of_the_users(checkpoint, tmp_path, capsys):
    run_import(checkpoint, tmp_path)
    (tmp_path / "tiny/notes.txt").touch()
    capsys.readouterr()
    assert run_import(checkpoint, tmp_path) == 1
    assert "holds notes.txt, which would be lost" in capsys.readouterr().err
    (tmp_path / "tiny/notes.txt").unlink()
    (tmp_path / "tiny/verifier.npz").touch()  # the session's, of the weights before
    run_import(checkpoint, tmp_path, "--licence", "second")
    assert load_model(tmp_path / "tiny").provenance.licence == "second"
    assert sorted(file.name for file in (tmp_path / "tiny").iterdir()) == ["model.yaml", "search.onnx", "template.onnx"]
    assert not list(tmp_path.glob(".import-*"))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda state: state.pop("neck.BN_x.weight"), "missing neck.BN_x.weight"),
        (lambda state: state.update({"head.cls_perd.cls_pred.bias": torch.full((1,), float("nan"))}), "differs by nan"),
    ],
)
def test_a_failed_import_changes_nothing(checkpoint, tmp_path, capsys, spoil, complaint):
    run_import(checkpoint, tmp_path)
    before = yaml.safe_load((tmp_path / "tiny/model.yaml").read_text())
    state = torch.load(checkpoint)["state_dict"]
    spoil(state)
    torch.save(state, checkpoint)
    assert run_import(checkpoint, tmp_path) == 1
    assert complaint in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / "tiny/model.yaml").read_text()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny.pth"]


def test_an_output_that_is_not_a_folder_is_an_error(checkpoint, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run_import(checkpoint, tmp_path / "file") == 1
    assert "file: cannot be written (File exists); --output" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_a_bad_name_is_refused(checkpoint, tmp_path, capsys, name):
    assert main(["import", str(checkpoint), "--name", name, "--architecture", TINY, "--output", str(tmp_path)]) == 1
    assert "model name" in capsys.readouterr().err
