"""`lighttrack export` replaces a model's weights and keeps the rest; if it fails, it changes nothing."""

import dataclasses
import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lighttrack_ros.commands import main  # noqa: E402
from lighttrack_ros.models import SessionSettings, load_model, save_model  # noqa: E402
from lighttrack_ros.networks import dytrack  # noqa: E402
from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, LightTrack  # noqa: E402
from lighttrack_ros.runtime import load_engine  # noqa: E402

TINY = MOBILE + "+width_20_20"
SESSION = SessionSettings(midpoint=1.5, slope=0.5, found=0.9)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two LightTrack checkpoints, one of another path, and a DyTrack checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    networks = {
        "first": LightTrack(Architecture.parse(TINY)),
        "second": LightTrack(Architecture.parse(TINY)),
        "other path": LightTrack(Architecture.parse(MOBILE + "+width_24_20")),
        "dytrack": dytrack.DyTrack(dytrack.Architecture.parse("sizes_64_128_channels_64_64_exits_1_2")),
    }
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / name)
    return folder


@pytest.fixture
def model(checkpoints, tmp_path):
    """A model folder with the first checkpoint's weights and tuned settings."""
    place = tmp_path / "engines"
    arguments = ["import", str(checkpoints / "first"), "--name", "tiny", "--architecture", TINY, "--output", str(place)]
    assert main(arguments) == 0
    tuned = dataclasses.replace(load_model(place / "tiny"), session=SESSION, scores={"auc": 0.5})
    save_model(tuned)
    (place / "tiny/LICENSE").write_text("mine")
    return place / "tiny"


def template_features(folder):
    engine = load_engine(folder / "template.onnx", dimensions={"side": 128})
    engine.input_buffers["crop"][:] = np.arange(128, dtype=np.uint8)[:, None, None]
    features = np.array(engine.run({})["template_features"])
    engine.close()
    return features


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_export_replaces_the_weights_and_keeps_the_rest(model, checkpoints, tmp_path, capsys):
    before = template_features(model)
    (model / "ranges.yaml").write_text("of the graphs before")
    assert main(["export", str(checkpoints / "second"), str(model)]) == 0
    out = capsys.readouterr().out
    assert "largest difference from PyTorch" in out
    assert f"lighttrack calibrate {model} --sequences DIR" in out
    renewed = load_model(model)
    assert renewed.session == SESSION
    assert renewed.scores == {}  # the old weights'
    assert renewed.provenance.sha256 == hashlib.sha256((checkpoints / "second").read_bytes()).hexdigest()
    assert (model / "LICENSE").read_text() == "mine"
    assert not np.allclose(template_features(model), before)
    assert [path.name for path in model.parent.iterdir()] == ["tiny"]
    # And they are what an import of the same weights gives.
    arguments = ["import", str(checkpoints / "second"), "--name", "new", "--architecture", TINY]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    np.testing.assert_array_equal(template_features(model), template_features(tmp_path / "new"))


@pytest.mark.parametrize(
    ("checkpoint", "complaint"),
    [
        ("dytrack", "dytrack: tracker is dytrack, tiny's is lighttrack"),
        ("other path", "other path: "),
        ("none", "none: "),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(model, checkpoints, capsys, checkpoint, complaint):
    before = contents(model)
    assert main(["export", str(checkpoints / checkpoint), str(model)]) == 1
    assert complaint in capsys.readouterr().err
    assert contents(model) == before
    assert [path.name for path in model.parent.iterdir()] == ["tiny"]


def test_the_error_names_a_missing_model(checkpoints, tmp_path, capsys):
    assert main(["export", str(checkpoints / "first"), str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
