"""MixFormerV2's distillation: edges from corners, blocks that fade, what is mimicked, a run that resumes."""

import copy
import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import Architecture as LightTrackArchitecture
from lighttrack_ros.networks.lighttrack import LightTrack
from lighttrack_ros.networks.mixformerv2 import Architecture, MixFormerV2, load
from lighttrack_ros.training.corner_network import CornerNetwork, marginals
from lighttrack_ros.training.corner_network import load as load_corners
from lighttrack_ros.training.data import Clip, Library, generate_scenes
from lighttrack_ros.training.distill import Supply
from lighttrack_ros.training.mixformerv2 import (
    CornerTeacher,
    DenseTeacher,
    Mimicry,
    Sparse,
    SparseTeacher,
    _images,
    prepare,
)
from lighttrack_ros.training.mixformerv2_losses import (
    box_loss,
    ciou,
    edge_divergence,
    gate,
    mimicked,
    narrowed,
    spread,
    true_box,
    without_blocks,
)
from lighttrack_ros.training.pairs import CROPPINGS, Batch, PairSettings, PairSource
from lighttrack_ros.training.recipe import MixFormerV2Settings, Recipe, TeacherSettings
from lighttrack_ros.training.trainer import Trainer

CPU = torch.device("cpu")
TEXT = "sizes_32_64_channels_64_mlp_128_depth_{}_bins_16"
DEEP, SHALLOW = (Architecture.parse(TEXT.format(depth)) for depth in (4, 2))
SMALL = "back_04502514044521042540+cls_010222222+reg_000222222_ops_20+width_25_25"
PAIRS = PairSettings(template_size=32, search_size=64, photo=0, absent=0.2, shift=16)
RECIPE = Recipe(
    architecture=TEXT.format(4), tracker="mixformerv2", steps=12, pairs_count=8, batch_size=8, lr=1e-3, head_lr=3e-3,
    warmup=2, workers=0, log_every=2, ema=0.5, pairs=PAIRS,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return generate_scenes(1, seed=5, side=256)


@pytest.fixture(scope="module")
def source(clips: list[Clip]) -> PairSource:
    return PairSource(Library(clips, CPU), PAIRS, 1, CROPPINGS["mixformerv2"])


@pytest.fixture(scope="module")
def batch(source: PairSource) -> Batch:
    return source.batch(list(range(8)))


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = MixFormerV2(DEEP)
    torch.nn.init.normal_(network.box_head.layers[1][0].weight, std=0.3)  # edges that differ from pair to pair
    torch.save(network.state_dict(), tmp_path / "deep.pt")
    return tmp_path / "deep.pt"


def _recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)


def test_an_architecture_is_read_from_a_recipes_words() -> None:
    assert (DEEP.depth, DEEP.mlp_channels, DEEP.template_size, DEEP.search_size) == (4, 128, 32, 64)
    assert (DEEP.channels, DEEP.bins) == (64, 16)
    for text, message in (("288_depth8", "expected one like"), (TEXT.format(0), "no zeros"), ("sizes_30_64", "like")):
        with pytest.raises(LightTrackError, match=message):
            Architecture.parse(text)


def test_edges_are_the_marginals_of_the_corners() -> None:
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 2] = 0.75  # row 1, column 2
    maps[0, 0, 3, 0] = 0.25
    maps[0, 1, 3, 3] = 1
    left, right, top, bottom = marginals(maps)[0].tolist()
    assert left == [0.25, 0, 0.75, 0]
    assert top == [0, 0.75, 0, 0.25]
    assert right == bottom == [0, 0, 0, 1]


def test_the_divergence_of_edges_by_hand() -> None:
    wanted = torch.tensor([[[0.5, 0.5, 0, 0]] * 4, [[0.0] * 4] * 4])
    logits = torch.zeros(2, 4, 4)
    logits[0, 3] = torch.tensor([0.0, 0, -100, -100])  # one edge is right
    # 3 of 4 edges: sum q (log q - log 1/4) = log(1/2) + log 4
    assert edge_divergence(logits, wanted).tolist() == pytest.approx([0.75 * math.log(2), 0])


def test_a_position_is_shared_by_two_bins() -> None:
    positions = torch.tensor([[[0.3, 1.7]] * 4])
    made = spread(positions, torch.tensor([[0.75, 0.25]]), 10)
    assert made[0, 0].tolist() == pytest.approx([0, 0, 0, 0.75, 0, 0, 0, 0, 0, 0.25])
    between = spread(torch.full((1, 4, 1), 0.325), torch.ones(1, 1), 10)
    assert between[0, 2].tolist() == pytest.approx([0, 0, 0, 0.75, 0.25, 0, 0, 0, 0, 0])
    assert (between * torch.arange(10) / 10).sum(2)[0].tolist() == pytest.approx([0.325] * 4)


def test_ciou_by_hand() -> None:
    square = torch.tensor([[0.2, 0.2, 0.6, 0.6]])
    assert ciou(square, square).item() == pytest.approx(1)
    moved = torch.tensor([[0.4, 0.2, 0.8, 0.6]])  # IoU 1/3, centres 0.2 apart, hull 0.6 x 0.4; no term of the shape
    assert ciou(moved, square).item() == pytest.approx(1 / 3 - 0.04 / 0.52)
    wide = torch.tensor([[0.15, 0.2, 0.65, 0.6]])  # IoU 0.8, the same centre
    shape = 4 / math.pi**2 * (math.atan(1) - math.atan(1.25)) ** 2
    assert ciou(wide, square).item() == pytest.approx(0.8 - shape * shape / (0.2 + shape))
    turned = torch.tensor([[0.6, 0.6, 0.2, 0.2]])  # edges may come out in the wrong order
    assert -1 <= ciou(turned, square).item() <= 0
    seen = torch.tensor([1.0, 0.0])
    both = box_loss(torch.cat([moved, moved]), torch.cat([square, square]), seen)
    assert both.item() == pytest.approx(2 * (1 - 1 / 3 + 0.04 / 0.52) + 5 * 0.1)


def test_blocks_fade_by_half_a_cosine() -> None:
    assert gate(1, 40) == pytest.approx(0.5 * (1 + math.cos(math.pi * 2 / 40)))  # the authors' first epoch, 0.994
    assert gate(19, 40) == pytest.approx(0.5)
    assert gate(39, 40) == gate(100, 40) == pytest.approx(0)


def test_what_is_mimicked_lies_before_what_goes() -> None:
    assert mimicked(12, (0, 3, 6, 9)) == [2, 5, 8, 11]
    assert mimicked(6, (0, 1, 4)) == [3, 5]
    network = Sparse(MixFormerV2(SHALLOW), MixFormerV2Settings(removed=(0, 2)), 0)
    assert network._blocks == [0, 1], "blocks 1 and 3 of the teacher"


def test_faded_out_is_left_out(deep: Path, source: PairSource, batch: Batch) -> None:
    """At the start all is as it was; in the end the student without the blocks gives the same."""
    settings = MixFormerV2Settings(removed=(0, 2), fade=10)
    objective, _ = prepare(_recipe(architecture=TEXT.format(2), start=str(deep), mixformerv2=settings), source, CPU)
    assert isinstance(objective, Sparse)
    whole = load(torch.load(deep))
    objective.seen(batch, None, 9)
    cut = load(objective.published(objective.network))
    assert cut.architecture == SHALLOW
    with torch.no_grad():
        gone, left_out = (network.block_outputs(*_images(batch))[-1] for network in (objective.network, cut))
        torch.testing.assert_close(gone, left_out)
        objective._gate = 1.0
        torch.testing.assert_close(
            objective.network.block_outputs(*_images(batch))[-1], whole.block_outputs(*_images(batch))[-1]
        )
    backbone = objective.network.backbone
    frozen = {name.split(".")[1] for name, value in backbone.named_parameters() if not value.requires_grad}
    assert frozen == {"0", "2"}, "what fades does not learn"


def test_fewer_blocks_are_renumbered_and_fewer_units_are_those_of_most_weight() -> None:
    tensors = MixFormerV2(DEEP).state_dict()
    cut = without_blocks(tensors, (0, 2))
    assert cut.keys() == MixFormerV2(SHALLOW).state_dict().keys()
    assert cut["backbone.blocks.1.attn.proj.weight"] is tensors["backbone.blocks.3.attn.proj.weight"]
    rows, columns = torch.ones(4, 2), torch.ones(2, 4)
    rows[1], columns[:, 3] = 3, 4  # worth 1, 3, 1, 4
    small = narrowed({"m.mlp.fc1.weight": rows, "m.mlp.fc1.bias": torch.arange(4.0), "m.mlp.fc2.weight": columns}, 2)
    assert small["m.mlp.fc1.bias"].tolist() == [1, 3]
    assert small["m.mlp.fc2.weight"].shape == (2, 2)


def test_a_student_at_its_teachers_word_has_nothing_to_learn(deep: Path, batch: Batch) -> None:
    network = load(torch.load(deep))
    targets = SparseTeacher(copy.deepcopy(network), mimicked(4, ()), CPU)(batch)
    losses = Sparse(network, MixFormerV2Settings(), 0)(batch, targets)
    assert losses["edges"].item() == pytest.approx(0, abs=1e-5)
    assert losses["features"].item() == pytest.approx(0, abs=1e-8)
    assert losses["loss"].item() == pytest.approx(losses["box"].item(), abs=1e-4)
    other = targets._replace(tokens=targets.tokens + 2)
    assert Sparse(network, MixFormerV2Settings(), 0)(batch, other)["features"].item() == pytest.approx(0.2 * 4)


def test_without_a_target_no_edge_is_learnt(deep: Path, batch: Batch) -> None:
    network = load(torch.load(deep))
    gone = batch._replace(present=torch.zeros(8))
    targets = Mimicry(torch.full((8, 4, 16), 1 / 16), torch.zeros(8, 1, 8 + 16 + 4, 64))
    losses = Sparse(network, MixFormerV2Settings(), 0)(gone, targets)
    assert losses["box"] == losses["edges"] == 0
    assert losses["features"] > 0


def test_dense_teachers_know_where_the_edges_are(batch: Batch) -> None:
    torch.manual_seed(2)
    corners = CornerNetwork(DEEP)
    assert load_corners(corners.state_dict()).architecture == DEEP
    edges = CornerTeacher(corners, CPU)(batch).edges
    torch.testing.assert_close(edges.sum(2), torch.ones(8, 4))
    teacher = DenseTeacher(LightTrack(LightTrackArchitecture.parse(SMALL)).eval(), 256, 16, CPU)
    with torch.no_grad():  # sure of every cell, each of which sees the box around itself: 32 px of 256, two bins
        teacher._network.head.cls_perd.cls_pred.bias.fill_(1e3)
        teacher._network.head.reg_pred.bbox_pred.weight.zero_()
        teacher._network.head.reg_pred.bbox_pred.bias.fill_(2.0)
    made = teacher(batch)
    left, right, *_ = made.edges[0]
    at = torch.arange(16)
    assert ((right - left) * at).sum().item() == pytest.approx(4, abs=0.4)  # less what lies outside
    assert made.template.shape == (8, 4, teacher.channels)
    assert made.search.shape == (8, 16, teacher.channels)
    teacher._network.head.cls_perd.cls_pred.bias.data.fill_(-1e3)
    assert teacher(batch).edges.abs().max() == 0, "of a crop where it is sure of no cell it knows nothing"


def test_pairs_have_two_templates_of_one_target(clips: list[Clip], source: PairSource, batch: Batch) -> None:
    assert batch.template.shape == (8, 2, 3, 32, 32)
    assert batch.first_template.shape == (8, 3, 32, 32)
    assert not torch.equal(batch.template[:, 0], batch.template[:, 1])
    one = PairSource(Library(clips, CPU), PAIRS, 1, CROPPINGS["dytrack"]).batch(list(range(8)))
    assert torch.equal(one.template, batch.template[:, 0]), "a second template changes nothing else of a pair's plan"
    settings = dataclasses.replace(PAIRS, video=1, patch=0, absent=0, scale=0, aspect=0, rotation=0, search_factor=5.0)
    boxes = PairSource(Library(clips, CPU), settings, 1, CROPPINGS["mixformerv2"]).batch(list(range(8))).box
    assert (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt().tolist() == pytest.approx([64 / 5] * 8, rel=1e-3)


def _trainer(recipe: Recipe, source: PairSource, folder: Path) -> Trainer:
    fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.precision)
    fabric.launch()
    torch.manual_seed(1)
    objective, labeller = prepare(recipe, source, CPU)
    return Trainer(fabric, objective, Supply(source, labeller, folder / "pairs", recipe.pairs_count), recipe, folder)


def _losses(folder: Path) -> list[float]:
    with (folder / "curves.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_fading_run_resumes_bit_for_bit(tmp_path: Path, source: PairSource, deep: Path) -> None:
    settings = MixFormerV2Settings(removed=(0, 2), fade=8)
    recipe = _recipe(
        architecture=TEXT.format(2), start=str(deep), teacher=TeacherSettings(str(deep)), mixformerv2=settings
    )
    _trainer(recipe, source, tmp_path / "whole").run()
    _trainer(recipe, source, tmp_path / "halves").run(until=5)
    second = _trainer(recipe, source, tmp_path / "halves")
    assert second.step == 5
    second.run()
    whole, halves = (torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "halves"))
    for part in ("objective", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, halves[part][name]), name
    assert load(torch.load(tmp_path / "whole/student.pt")).architecture == SHALLOW
    with (tmp_path / "whole/curves.csv").open() as file:
        gates = [float(row["gate"]) for row in csv.DictReader(file)]
    assert gates[0] == pytest.approx((gate(0, 8) + gate(1, 8)) / 2, rel=1e-4)
    assert gates[-1] == 0


def test_from_corners_to_a_score(tmp_path: Path, source: PairSource) -> None:
    """The stages hand over: dense, sparse, cut and narrowed, score."""
    dense = _recipe(mixformerv2=MixFormerV2Settings(stage="dense"))
    _trainer(dense, source, tmp_path / "dense").run()
    corners = str(tmp_path / "dense/student.pt")
    _trainer(_recipe(start=corners, teacher=TeacherSettings(corners)), source, tmp_path / "sparse").run()
    for stage in ("dense", "sparse"):
        losses = _losses(tmp_path / stage)
        assert losses[-1] < 0.9 * losses[0], stage
    start = str(tmp_path / "sparse/student.pt")
    narrow = TEXT.format(2).replace("mlp_128", "mlp_64")
    cut = _recipe(
        architecture=narrow, start=start, teacher=TeacherSettings(start),
        mixformerv2=MixFormerV2Settings(removed=(1, 2)),
    )  # fmt: skip
    _trainer(cut, source, tmp_path / "cut").run()
    small = torch.load(tmp_path / "cut/student.pt")
    assert load(small).architecture == Architecture.parse(narrow)
    score = _recipe(
        architecture=narrow, start=str(tmp_path / "cut/student.pt"), mixformerv2=MixFormerV2Settings(stage="score"),
        pairs=dataclasses.replace(PAIRS, absent=1.0), steps=30, head_lr=1e-2,
    )  # fmt: skip
    again = PairSource(source.library, score.pairs, 1, CROPPINGS["mixformerv2"])
    _trainer(score, again, tmp_path / "score").run()
    for name, value in torch.load(tmp_path / "score/student.pt").items():
        assert torch.equal(value, small[name]) == (not name.startswith("score_head.")), name
    losses = _losses(tmp_path / "score")
    assert losses[-1] < 0.9 * losses[0]


def test_the_true_box_is_cut_at_the_crop(batch: Batch) -> None:
    box = torch.tensor([[-16.0, 8, 32, 24], [60, 60, 100, 100]])
    two = Batch(batch.template[:2], batch.search[:2], box, torch.ones(2), torch.ones(2))
    true, seen = true_box(two)
    assert true[0].tolist() == [0, 0.125, 0.5, 0.375]
    assert seen.tolist() == [1, 0], "the second one's centre lies outside"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": TEXT.format(4).replace("64_c", "96_c")}, "are not those of"),
        ({"architecture": TEXT.format(2), "mixformerv2": MixFormerV2Settings(removed=(0, 5))}, r"removed is \(0, 5\)"),
        ({"mixformerv2": MixFormerV2Settings(removed=(1, 1))}, "expected different blocks"),
        ({"mixformerv2": MixFormerV2Settings(removed=(1,), fade=5)}, "fade needs a start"),
        ({"architecture": TEXT.format(3), "start": "deep"}, "does not fit 64_depth3"),
        ({"architecture": TEXT.format(3), "teacher": "deep"}, "has 4 blocks, the student 3 and 0 removed"),
        ({"architecture": TEXT.format(4).replace("_16", "_32"), "teacher": "deep"}, "has bins 16, the student 32"),
        ({"teacher": "deep", "mixformerv2": MixFormerV2Settings(stage="score")}, "stage score has none"),
        ({"teacher": "deep", "mixformerv2": MixFormerV2Settings(stage="dense")}, "is no LightTrack"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_named(
    source: PairSource, deep: Path, changes: dict[str, Any], message: str
) -> None:
    if "start" in changes:
        changes = {**changes, "start": str(deep)}
    if "teacher" in changes:
        changes = {**changes, "teacher": TeacherSettings(str(deep))}
    with pytest.raises(LightTrackError, match=message):
        prepare(_recipe(**changes), source, CPU)
