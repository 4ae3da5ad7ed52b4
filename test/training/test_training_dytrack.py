"""DyTrack's training: what early exits learn and from whom, what decisions learn, a run that resumes bit for bit."""

import copy
import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.dytrack import Architecture, DyTrack, Prediction, load
from lighttrack_ros.training.data import Clip, Library, generate_scenes
from lighttrack_ros.training.distill import Supply, normalise
from lighttrack_ros.training.dytrack import Decisions, Exits, FrozenNetwork, prepare, run_stages
from lighttrack_ros.training.dytrack_losses import (
    decision_loss,
    exit_losses,
    giou,
    imitation,
    iou,
    relation,
    target_mask,
    true_box,
    worth_imitating,
)
from lighttrack_ros.training.pairs import CROPPINGS, Batch, PairSettings, PairSource
from lighttrack_ros.training.recipe import DyTrackSettings, Recipe
from lighttrack_ros.training.trainer import Objective, Trainer
from lighttrack_ros.training.transformer_start import start_from_pictures

CPU = torch.device("cpu")
TINY = Architecture(channels=64, exit_channels=16, exits=(1, 2, 3), template_size=32, search_size=64)
PAIRS = PairSettings(template_size=32, search_size=64, photo=0, absent=0.2, shift=16)
RECIPE = Recipe(
    architecture=str(TINY), tracker="dytrack", steps=12, pairs_count=8, batch_size=8, lr=1e-3, head_lr=3e-3, warmup=2,
    workers=0, log_every=2, ema=0.5, pairs=PAIRS,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return generate_scenes(1, seed=5, side=256)


@pytest.fixture(scope="module")
def source(clips: list[Clip]) -> PairSource:
    return PairSource(Library(clips, CPU), PAIRS, 1, CROPPINGS["dytrack"])


@pytest.fixture(scope="module")
def batch(source: PairSource) -> Batch:
    return source.batch(list(range(8)))


def _network(seed: int = 0) -> DyTrack:
    torch.manual_seed(seed)
    return DyTrack(TINY)


def test_the_mask_falls_with_the_distance_from_the_target() -> None:
    mask = target_mask(torch.tensor([[0.5, 0.5, 0.4, 0.2]]), 8)[0].unflatten(0, (8, 8))
    x, y = 0.5 / 8 / 0.2, 0.5 / 8 / 0.1  # from the centre to the cell beside it, in spreads
    assert mask[4, 4].item() == pytest.approx(np.exp(-(x**2 + y**2) / 2))
    assert mask[4, 6].item() == pytest.approx(np.exp(-((5 * x) ** 2 + y**2) / 2))


@pytest.mark.parametrize(("x", "y", "share"), [(0.5, 0.5, 1), (0, 0.5, 0.5), (0.5, 1, 0.5), (1, 0, 0.25), (-1, 0.5, 0)])
@pytest.mark.parametrize("size", [0.2, 0.02], ids=["box", "smaller than the floor"])
def test_of_a_box_partly_outside_the_mask_counts_what_is_inside(x: float, y: float, share: float, size: float) -> None:
    mask = target_mask(torch.tensor([[x, y, size, size]]), 16)
    spread = 16 * max(size / 2, 0.05)
    assert mask.sum().item() == pytest.approx(share * 2 * np.pi * spread**2, rel=1e-2, abs=1e-6)


def test_nothing_is_learnt_by_the_exit_that_is_imitated(batch: Batch) -> None:
    network = _network()
    outputs = list(run_stages(network, batch))
    mask = target_mask(true_box(batch)[0], TINY.cells)
    for early in outputs[:-1]:
        loss = imitation(early.passed.tokens, outputs[-1].passed.tokens, mask).sum()
        tokens = (early.passed.tokens, early.template), (outputs[-1].passed.tokens, outputs[-1].template)
        for value in (loss, relation(*tokens, mask).sum()):
            network.zero_grad()
            value.backward(retain_graph=True)
            for parameter in (*network.blocks[2].parameters(), *network.exits[2].parameters()):
                assert parameter.grad is None
            assert network.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
            assert value > 0


def test_an_exit_that_is_as_the_last_has_nothing_to_learn() -> None:
    torch.manual_seed(0)
    search, template, mask = torch.randn(2, 16, 64), torch.randn(2, 4, 64), torch.rand(2, 16)
    assert imitation(3 * search, search, mask).abs().max() < 1e-6  # the scale of a vector says nothing
    assert relation((3 * search, template), (search, template), mask).abs().max() < 1e-6
    far = relation((search.flip(1), template), (search, template), mask)
    assert (far > 0.01).all()


@pytest.mark.parametrize(
    ("early", "last", "worth"), [(0.3, 0.6, 1), (0.7, 0.6, 0), (0.3, 0.4, 0), (0.6, 0.6, 1)],
    ids=["better", "worse", "lost", "equal"],
)  # fmt: skip
def test_only_a_last_exit_that_knows_better_is_imitated(early: float, last: float, worth: float) -> None:
    assert worth_imitating(torch.tensor([early]), torch.tensor([last])).item() == worth


def test_without_a_target_only_the_centre_map_learns(batch: Batch) -> None:
    network = _network().eval()
    gone = batch._replace(present=torch.zeros(8))
    losses = Exits(network, DyTrackSettings(distillation=0.5), 0)(gone, None)
    for name, value in losses.items():
        assert (value > 0) == (name == "loss" or name.startswith("centre")), name


def _perfect(box: torch.Tensor, n: int) -> Prediction:
    """Every cell says the box, the cell of its centre is sure of it."""
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    offset = box[:, :2, None, None] * n - torch.stack((columns, rows))
    logits = torch.full((len(box), 1, n, n), -12.0)
    for item, (x, y) in enumerate((box[:, :2] * n).long().tolist()):
        logits[item, 0, y, x] = 12
    size = box[:, 2:, None, None].expand(-1, -1, n, n)
    return Prediction(box, torch.ones(len(box)), logits, offset, size, torch.empty(len(box), 0))


def test_losses_vanish_for_the_true_box_only() -> None:
    box = torch.tensor([[0.3, 0.6, 0.2, 0.3], [0.95, 0.05, 0.3, 0.3]])
    right = _perfect(box, 8)
    assert torch.stack(exit_losses(right, box, torch.ones(2))).max() < 1e-4
    centre, overlap = exit_losses(right, box + torch.tensor([0.2, 0, 0, 0]), torch.ones(2))
    assert centre > 1
    assert overlap > 1
    wide = right._replace(size=2 * right.size)
    half = iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 0, 2, 2]))
    assert exit_losses(wide, box, torch.ones(2))[1].item() == pytest.approx(2 * (1 - half.item()) + 5 * 0.275 / 2)


def test_overlaps() -> None:
    a, b = torch.tensor([0.5, 0.5, 1, 1]), torch.tensor([1.0, 0.5, 1, 1])
    assert iou(a, b).item() == pytest.approx(1 / 3)
    assert giou(a, b).item() == pytest.approx(1 / 3)  # the hull is the union
    assert giou(a, torch.tensor([2.5, 0.5, 1, 1])).item() == pytest.approx(-1 / 3)


def test_a_decision_is_to_tell_the_overlap_and_whether_going_on_helps() -> None:
    overlap = torch.tensor([[0.2, 0.8, 0.82]])
    quality = torch.tensor([[0.2, 0.8, 0.82]], requires_grad=True)
    decision_loss(quality, overlap).backward()
    first, second, last = quality.grad[0]
    assert first > 0  # going on helps: lower
    assert second < 0  # it does not: higher
    assert last == 0  # it tells its overlap, and cannot go on


def test_decisions_are_judged_on_what_the_frozen_network_does(batch: Batch) -> None:
    network = _network().eval()
    batch = batch._replace(present=torch.tensor([0.0, 1] * 4))
    judgement = FrozenNetwork(network, CPU)(batch)
    predictions = [output.prediction for output in run_stages(network, batch)]
    box, seen = true_box(batch)
    assert seen.sum() == 4
    for index, prediction in enumerate(predictions):
        torch.testing.assert_close(judgement.overlap[:, index], iou(prediction.box, box) * seen)
    objective = Decisions(network)
    shown = [exit_.judge(judgement.facts[:, 0], None) for exit_ in network.exits[:1]]
    torch.testing.assert_close(shown[0], predictions[0].quality)
    objective(batch, judgement)["loss"].backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (".decision." in name), name


def test_a_start_from_pictures_sees_whitened_patches(source: PairSource) -> None:
    network = _network()
    images = normalise(source.batch(list(range(64))).search)
    start_from_pictures(network.patch_embed, network.blocks, images)
    tokens = network.patch_embed(images).flatten(0, 1)
    covariance = torch.cov(tokens.T)
    assert tokens.mean(0).abs().max() < 1e-3
    assert (covariance - torch.diag(covariance.diag())).abs().max() < 1e-3
    for block in network.blocks:
        queries, keys, _ = block.attn.qkv.weight.chunk(3)
        assert torch.equal(queries, keys)


def test_crops_are_cut_as_the_tracker_cuts_them(clips: list[Clip]) -> None:
    """Side from the root of the area: a target keeps a quarter of a search crop's side, whatever its shape."""
    settings = dataclasses.replace(PAIRS, video=1, patch=0, absent=0, scale=0, aspect=0, rotation=0, backdrop=0)
    boxes = PairSource(Library(clips, CPU), settings, 1, CROPPINGS["dytrack"]).batch(list(range(8))).box
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    assert sides.tolist() == pytest.approx([16] * 8, rel=1e-3)


def test_hard_pairs_are_more_shifted(clips: list[Clip]) -> None:
    library = Library(clips, CPU)
    easy, hard = (
        PairSource(library, dataclasses.replace(PAIRS, hard=share), 1).batch(list(range(60))) for share in (0.0, 1.0)
    )
    spread = [(pairs.box[:, :2] - 24)[pairs.present > 0].abs().mean().item() for pairs in (easy, hard)]
    assert spread[1] > 1.2 * spread[0]


def _trainer(objective: Objective, source: PairSource, labeller: object, recipe: Recipe, folder: Path) -> Trainer:
    fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.precision)
    fabric.launch()
    return Trainer(fabric, objective, Supply(source, labeller, folder / "pairs", recipe.pairs_count), recipe, folder)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_learns_and_resumes_bit_for_bit(tmp_path: Path, source: PairSource, precision: str) -> None:
    recipe = dataclasses.replace(RECIPE, precision=precision)

    def trainer(folder: str) -> Trainer:
        torch.manual_seed(1)
        objective, labeller = prepare(recipe, source, CPU)
        return _trainer(objective, source, labeller, recipe, tmp_path / folder)

    trainer("whole").run()
    trainer("halves").run(until=5)
    second = trainer("halves")
    assert second.step == 5
    second.run()
    whole, halves = (torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "halves"))
    assert any(name.startswith("projections.") for name in whole["objective"])  # they are resumed as well
    for part in ("objective", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, halves[part][name]), name
    with (tmp_path / "whole/curves.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.8 * losses[0]
    assert load(torch.load(tmp_path / "whole/student.pt")).architecture == TINY  # and nothing but the network


def test_the_last_part_trains_nothing_but_decisions(tmp_path: Path, source: PairSource) -> None:
    torch.save(_network().state_dict(), tmp_path / "start.pt")
    settings = DyTrackSettings(stage="decisions")
    start = str(tmp_path / "start.pt")
    recipe = dataclasses.replace(RECIPE, start=start, dytrack=settings, lr=1e-2, head_lr=1e-2, steps=30, log_every=5)
    objective, labeller = prepare(recipe, source, CPU)
    before = copy.deepcopy(objective.network.state_dict())
    _trainer(objective, source, labeller, recipe, tmp_path / "run").run()
    after = torch.load(tmp_path / "run/student.pt")
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (".decision." not in name), name
    with (tmp_path / "run/curves.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "dytrack_small"}, "expected one like sizes_128_256"),
        ({"architecture": "sizes_60_128_channels_64_16_exits_1"}, "multiples of 16"),
        ({"architecture": str(dataclasses.replace(TINY, search_size=96))}, "are not those of"),
    ],
)
def test_a_recipe_that_cannot_be_is_named(source: PairSource, change: dict[str, object], message: str) -> None:
    with pytest.raises(LightTrackError, match=message):
        prepare(dataclasses.replace(RECIPE, **change), source, CPU)


def test_a_start_of_another_architecture_is_named(tmp_path: Path, source: PairSource) -> None:
    torch.save(DyTrack(dataclasses.replace(TINY, exits=(1, 2))).state_dict(), tmp_path / "other.pt")
    with pytest.raises(LightTrackError, match=r"other\.pt: is sizes_.*exits_1_2, the recipe asks for"):
        prepare(dataclasses.replace(RECIPE, start=str(tmp_path / "other.pt")), source, CPU)
