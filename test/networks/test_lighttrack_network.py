"""The LightTrack network compared with the official one, layer by layer; every kind of path; bad checkpoints."""

import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import MEAN, MOBILE, STD, Architecture, LightTrack, load_checkpoint


@pytest.fixture(scope="module")
def mobile(shared):
    return load_checkpoint(shared / "models/LightTrackM.safetensors", Architecture.parse(MOBILE))


def as_input(crop):
    """(side, side, 3) uint8 RGB to the network's input."""
    image = (crop / 255.0 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))


@torch.inference_mode()
def test_every_layer_equals_the_official_network(mobile, shared):
    golden = np.load(shared / "golden/lighttrack/forward.npz")
    seen = {}
    for name, module in {
        "zf_xf": mobile.features,
        "corr_ca": mobile.feature_fusor.pw_corr,
        "fused": mobile.feature_fusor,
    }.items():
        module.register_forward_hook(lambda _, __, output, name=name: seen.setdefault(name, []).append(output[0]))
    template = mobile.template_features(as_input(golden["template_crop"]))
    image = as_input(golden["search_crop"])
    logits, distances = mobile(template, image)
    ours = {
        "zf": seen["zf_xf"][0],
        "xf": seen["zf_xf"][1],
        "zf_bn": template[0].T.reshape(96, 8, 8),
        "xf_bn": mobile.search_features(image)[0],
        "corr_ca": seen["corr_ca"][0],
        "fused": seen["fused"][0],
        "cls": logits[0, 0],
        "reg": distances[0],
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value.numpy(), golden[name], rtol=1e-4, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("path", "stride", "channels", "depths", "towers"),
    [
        (MOBILE, 16, 96, [1, 2, 4, 4, 3], (6, 8)),
        ("back_04502514044521042540+cls_000000000+reg_202222222_ops_13", 8, 40, [1, 2, 4], (8, 1)),
        ("back_00123450123450123450+cls_101010101+reg_211111111_ops_20", 16, 80, [1, 2, 4, 1], (8, 8)),
        ("back_0543210543210543210540+cls_010222222+reg_112222222_ops_31", 16, 96, [1, 4, 4, 4, 2], (2, 1)),
        (MOBILE + "+width_50_75", 16, 48, [1, 2, 4, 4, 3], (6, 8)),
    ],
)
def test_any_path_builds_and_trains(path, stride, channels, depths, towers):
    architecture = Architecture.parse(path)
    network = LightTrack(architecture, template_size=64)
    assert (architecture.stride, architecture.channels[-1]) == (stride, channels)
    assert [len(stage) for stage in network.features.blocks] == depths
    assert (len(network.head.cls_tower), len(network.head.reg_tower)) == towers
    template, search = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 128, 128)
    logits, distances = network.train()(network.template_features(template), search)
    cells = 128 // stride
    assert logits.shape == (2, 1, cells, cells)
    assert distances.shape == (2, 4, cells, cells)
    assert (distances >= 0).all()
    (logits.mean() + distances.mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("LightTrackM", "expected back_0"),
        (MOBILE.replace("back_0", "back_00"), "19 searched"),
        (MOBILE.replace("ops_32", "ops_42"), "output 42"),
        (MOBILE.replace("cls_21", "cls_22"), "cls 221000022"),
        (MOBILE.replace("reg_1", "reg_3"), "reg 300000111"),
        (MOBILE + "+width_0_100", "10 to 200"),
    ],
)
def test_the_error_says_what_is_wrong_in_a_path(path, complaint):
    with pytest.raises(LightTrackError, match=complaint):
        Architecture.parse(path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_pickled_checkpoints_load_with_their_wrappers(tmp_path, wrap):
    architecture = Architecture.parse(MOBILE + "+width_20_20")
    source = LightTrack(architecture)
    torch.save(wrap(source.state_dict()), tmp_path / "checkpoint.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint.pth", architecture)
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert not loaded.training


class Settings:
    """An object as the authors' trainers save beside the weights; users do not have its module."""


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_trainers_objects_beside_the_weights_are_neither_needed_nor_run(tmp_path, monkeypatch):
    architecture = Architecture.parse(MOBILE + "+width_20_20")
    source = LightTrack(architecture)
    settings = Settings()
    settings.environment, settings.device = Settings(), torch.device("cpu")
    absent = types.ModuleType("the_authors_trainer")
    absent.Settings = Settings
    path = tmp_path / "checkpoint.pth.tar"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, absent.__name__, absent)
        patch.setattr(Settings, "__module__", absent.__name__)
        stats = OrderedDict(train=OrderedDict(loss=Settings()))
        trap = Trap(tmp_path / "run")
        torch.save({"net": source.state_dict(), "settings": settings, "stats": stats, "trap": trap}, path)
    loaded = load_checkpoint(path, architecture)
    assert torch.equal(loaded.state_dict()["neck.BN_z.weight"], source.state_dict()["neck.BN_z.weight"])
    assert not (tmp_path / "run").exists()


def test_the_error_names_every_difference_of_a_checkpoint(tmp_path):
    architecture = Architecture.parse(MOBILE + "+width_20_20")
    state = LightTrack(architecture).state_dict()
    del state["neck.BN_z.weight"], state["features.conv_stem.weight"]
    state["head.extra"] = torch.zeros(3)
    state["feature_fusor.adj_layer.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "checkpoint.pth")
    with pytest.raises(LightTrackError) as error:
        load_checkpoint(tmp_path / "checkpoint.pth", architecture)
    for part in (
        "4 differences",
        "missing neck.BN_z.weight",
        "missing features.conv_stem.weight (8, 3, 3, 3)",
        "not expected head.extra (3,)",
        "feature_fusor.adj_layer.bias is (5,), expected (24,)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["rubbish.pth", "rubbish.safetensors", "none.pth", "code.pth", "empty.pth"])
def test_the_error_names_an_unreadable_checkpoint(tmp_path, name):
    path = tmp_path / name
    if name.startswith("rubbish"):
        path.write_bytes(b"not a checkpoint at all")
    elif name == "code.pth":
        torch.save({"loader": eval}, path)
    elif name == "empty.pth":
        torch.save({"epoch": 3}, path)
    with pytest.raises(LightTrackError, match=name) as error:
        load_checkpoint(path, Architecture.parse(MOBILE))
    assert "weights_only" not in str(error.value)  # PyTorch's advice is to run whatever the file says
