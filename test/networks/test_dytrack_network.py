"""The DyTrack network: one-way attention, recycling of features, and its exits."""

import pytest
import torch

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.dytrack import BASE, SMALL, Architecture, DyTrack, load

TINY = Architecture(channels=128, exit_channels=24, exits=(1, 2, 4), template_size=32, search_size=64)


def make_network(architecture=TINY):
    """Random weights, without the zeros with which training starts: zeros would hide errors."""
    torch.manual_seed(0)
    network = DyTrack(architecture).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64)


@torch.inference_mode()
def test_every_exit_predicts_for_the_whole_batch(network, images):
    template, search = images
    predictions = network(template, search)
    assert len(predictions) == 3
    for prediction in predictions:
        assert prediction.box.shape == (2, 4)
        assert prediction.quality.shape == (2,)
        assert ((prediction.quality > 0) & (prediction.quality < 1)).all()
        alone = network(template[1:], search[1:])
    torch.testing.assert_close([p.box[1:] for p in predictions], [p.box for p in alone])


@torch.inference_mode()
def test_the_box_is_that_of_the_best_cell(network, images):
    for prediction in network(*images):
        for item in range(2):
            y, x = divmod(int(prediction.centre_logits[item, 0].argmax()), 4)
            at = (torch.tensor([x, y]) + prediction.offset[item, :, y, x]) / 4
            expected = torch.cat((at, prediction.size[item, :, y, x]))
            torch.testing.assert_close(prediction.box[item], expected)


@torch.inference_mode()
def test_the_template_does_not_attend_to_the_search_image(network, images):
    """A joint computation gives the same template tokens for every search image."""
    template, search = images
    shares = network.template_shares(template)
    tokens = torch.cat(
        (
            network.patch_embed(template) + network.pos_embed_template,
            network.patch_embed(search) + network.pos_embed_search,
        ),
        1,
    )
    joint = []
    for block in network.blocks:
        tokens = block(tokens, 4)
        joint.append(tokens)
    passed = search
    for index, count in enumerate(TINY.exits):
        torch.testing.assert_close(joint[count - 1][:, :4], shares[index].tokens, rtol=1e-4, atol=1e-4)
        passed, _ = network.stage(index, passed, shares[index])
        torch.testing.assert_close(joint[count - 1][:, 4:], passed.tokens, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("index", [1, 2])
def test_with_gain_zero_an_exit_ignores_earlier_features(images, index):
    network = make_network()
    template, search = images
    shares = network.template_shares(template)
    passed = search
    for earlier in range(index):
        passed, _ = network.stage(earlier, passed, shares[earlier])
    other = passed._replace(features=passed.features + 1)
    answers = [network.stage(index, each, shares[index])[1] for each in (passed, other)]
    assert not torch.allclose(answers[0].centre_logits, answers[1].centre_logits)
    network.exits[index].recycle_gain.zero_()
    answers = [network.stage(index, each, shares[index])[1] for each in (passed, other)]
    for one, two in zip(*answers, strict=True):
        assert torch.equal(one, two)


@torch.inference_mode()
def test_an_untrained_network_recycles_nothing(images):
    network = DyTrack(TINY).eval()
    template, search = images
    shares = network.template_shares(template)
    passed, _ = network.stage(0, search, shares[0])
    other = passed._replace(features=passed.features + 1, centre=passed.centre + 1)
    answers = [network.stage(1, each, shares[1])[1].centre_logits for each in (passed, other)]
    assert torch.equal(*answers)


@pytest.mark.parametrize("architecture", [TINY, SMALL, BASE])
def test_the_architecture_is_read_from_the_tensors(architecture):
    with torch.device("meta"):
        tensors = DyTrack(architecture).state_dict()
    tensors["exit_blocks"] = torch.tensor(architecture.exits)
    assert Architecture.of(tensors) == architecture


def test_the_error_names_what_does_not_fit_in_a_checkpoint(network):
    tensors = network.state_dict()
    assert torch.equal(load(tensors).exits[2].neck.weight, network.exits[2].neck.weight)
    del tensors["exits.1.recycle_gain"]
    with pytest.raises(LightTrackError, match=r"1 differences:\s+missing exits.1.recycle_gain \(\)"):
        load(tensors)
    with pytest.raises(LightTrackError, match="not a DyTrack checkpoint: exit_blocks is missing"):
        load({"backbone.reg_tokens": torch.zeros(1)})


@pytest.mark.parametrize("exits", [(), (0, 2), (3, 3), (6, 3)])
def test_exits_must_rise(exits):
    with pytest.raises(LightTrackError, match="rising"):
        Architecture(channels=64, exit_channels=16, exits=exits)


def test_every_weight_has_a_gradient():
    network = make_network().train()
    predictions = network(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64))
    sum(
        p.box.sum() + p.quality.sum() + p.centre_logits.sum() + p.offset.sum() + p.size.sum() for p in predictions
    ).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
