"""The MixFormerV2 network compared with the official one, token by token; cached against published computation."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mixformerv2_weights import ARCHITECTURES, rule_made_weights

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.mixformerv2 import SMALL, Architecture, MixFormerV2, load
from lighttrack_ros.networks.transformer import MEAN, STD

TINY = Architecture(depth=2, mlp_channels=96, template_size=32, search_size=64, channels=128, bins=12)


def as_input(crop):
    """(side, side, 3) uint8 RGB to the network's input."""
    image = (crop / 255.0 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))


@pytest.fixture(scope="module", params=["small", "base"])
def variant(request, shared):
    """One published variant: a network with weights made by rule, its golden data, its modules' outputs on them."""
    folder = shared / "golden/mixformerv2"
    weights = rule_made_weights(request.param)
    network = load(weights)
    golden = np.load(folder / f"{request.param}.npz")
    seen = {"blocks": [], "patches": [], "attention": [], "logits": []}

    def keep(into):
        return lambda _, __, output: seen[into].append(output[0].numpy())

    hooks = [block.register_forward_hook(keep("blocks")) for block in network.backbone.blocks]
    hooks.append(network.backbone.patch_embed.register_forward_hook(keep("patches")))
    hooks.append(network.backbone.blocks[0].attn.proj.register_forward_hook(keep("attention")))
    hooks.append(network.box_head.layers[1].register_forward_hook(keep("logits")))
    images = [as_input(golden[name]) for name in ("template", "online_template", "search")]
    with torch.inference_mode():
        box, score_logit = network(*images)
    for hook in hooks:
        hook.remove()
    return SimpleNamespace(
        name=request.param,
        keys=(folder / f"keys_{request.param}.txt").read_text().splitlines(),
        weights=weights,
        network=network,
        golden=golden,
        images=images,
        seen=seen,
        box=box,
        score_logit=score_logit,
    )


def test_the_weights_are_those_of_the_golden_data(variant):
    for line, (name, tensor) in zip(variant.keys, variant.weights.items(), strict=True):
        key, shape, first, total = line.split()
        assert (key, shape) == (name, "x".join(map(str, tensor.shape)))
        assert float(first) == pytest.approx(tensor.flatten()[0].item(), abs=1e-6), name
        assert float(total) == pytest.approx(tensor.double().sum().item(), rel=1e-6, abs=1e-3), name
    assert Architecture.of(variant.weights) == ARCHITECTURES[variant.name]


def test_every_token_equals_the_official_network(variant):
    golden, seen, architecture = variant.golden, variant.seen, variant.network.architecture
    count = architecture.template_count
    blocks = np.array(seen["blocks"])
    search = 2 * count
    first_of_each = [0, count, search, search + architecture.search_count]
    with torch.inference_mode():
        cache = variant.network.template_cache(*variant.images[:2])
    tables = {
        "pos_embed_s": variant.network.backbone.pos_embed_s[0].numpy(),
        "pos_embed_t": variant.network.backbone.pos_embed_t[0].numpy(),
    }
    ours = {
        "patch_embed_search": seen["patches"][2][:4, :64],
        "attn0_out": seen["attention"][0][first_of_each, :64],
        "template_tok_per_block": blocks[:, :2, :64],
        "online_tok_per_block": blocks[:, count : count + 2, :64],
        "search_tok_per_block": blocks[:, search : search + 4, :64],
        "pred_tokens_per_block": blocks[:, -4:],
        "template_k_cache": np.array([keys[0, 0, :4] for keys, _ in cache]),
        "template_v_cache": np.array([values[0, 0, :4] for _, values in cache]),
    }
    for name, table in tables.items():
        step = max(1, len(table) // 16) if name == "pos_embed_s" else 4
        ours[name] = table[::step, :32]
    for name, value in ours.items():
        np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-4, err_msg=name)


def test_box_probabilities_and_score_equal_the_official_network(variant):
    golden = variant.golden
    logits = torch.from_numpy(variant.seen["logits"][0])  # left, right, top, bottom
    for row, edge in enumerate("lrtb"):
        np.testing.assert_allclose(logits[row], golden[f"logits_{edge}"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(logits[row].softmax(0), golden[f"prob_{edge}"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(variant.box[0], golden["pred_box_cxcywh"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(variant.score_logit, golden["score_logit"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(variant.score_logit.sigmoid(), golden["score"], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_cached_computation_equals_the_published_one_bit_for_bit(variant):
    template, online_template, search = variant.images
    box, score_logit = variant.network.track(search, variant.network.template_cache(template, online_template))
    assert torch.equal(box, variant.box)
    assert torch.equal(score_logit, variant.score_logit)


@torch.inference_mode()
@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_equals_its_members_one_by_one(batch):
    torch.manual_seed(0)
    network = MixFormerV2(TINY).eval()
    template, online_template = torch.randn(2, batch, 3, 32, 32)
    search = torch.randn(batch, 3, 64, 64)
    box, score_logit = network(template, online_template, search)
    cached = network.track(search, network.template_cache(template, online_template))
    assert (box.shape, score_logit.shape) == ((batch, 4), (batch,))
    torch.testing.assert_close(cached, (box, score_logit))
    for i in range(batch):
        alone = network(template[i : i + 1], online_template[i : i + 1], search[i : i + 1])
        torch.testing.assert_close(alone, (box[i : i + 1], score_logit[i : i + 1]))


def test_the_architecture_is_read_from_the_tensors():
    assert Architecture.of(MixFormerV2(TINY).state_dict()) == TINY
    with pytest.raises(LightTrackError, match=r"not a MixFormerV2 checkpoint: .* is missing"):
        Architecture.of({"features.conv_stem.weight": torch.zeros(16, 3, 3, 3)})


def test_the_error_names_every_difference_of_a_checkpoint():
    tensors = MixFormerV2(dataclasses.replace(SMALL, depth=1)).state_dict()
    del tensors["backbone.reg_tokens"], tensors["box_head.layers.0.1.bias"]
    tensors["backbone.cls_token"] = torch.zeros(1, 1, 768)
    tensors["backbone.blocks.0.attn.proj.bias"] = torch.zeros(5)
    with pytest.raises(LightTrackError) as error:
        load(tensors)
    for part in (
        "4 differences",
        "missing backbone.reg_tokens (1, 4, 768)",
        "missing box_head.layers.0.1.bias (768,)",
        "not expected backbone.cls_token (1, 1, 768)",
        "backbone.blocks.0.attn.proj.bias is (5,), expected (768,)",
    ):
        assert part in str(error.value)
