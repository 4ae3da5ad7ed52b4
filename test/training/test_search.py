"""One-shot search: which paths there are, layers that they share, predicted time, an evolution that goes on."""

import copy
import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

pytest.importorskip("optuna", reason="needs the extra search")

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.models import load_model
from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, LightTrack
from lighttrack_ros.training.data import Clip, Library, generate_scenes
from lighttrack_ros.training.distill import Supply, Teacher
from lighttrack_ros.training.held_out import intersection_over_union
from lighttrack_ros.training.lighttrack import LightTrackObjective
from lighttrack_ros.training.losses import cell_points
from lighttrack_ros.training.pairs import Batch, PairSettings, PairSource
from lighttrack_ros.training.prune import inherit
from lighttrack_ros.training.recipe import DataSettings, Recipe, TeacherSettings
from lighttrack_ros.training.search.evolution import Cost, Limits, accuracy_of, evolve
from lighttrack_ros.training.search.latency import LatencyModel, Timing, fitted, measure_layers, measure_paths
from lighttrack_ros.training.supernet.classes import ClassSource, prepare
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.objective import SupernetObjective, new_supernet
from lighttrack_ros.training.supernet.space import Space, layers, timed_layers
from lighttrack_ros.training.trainer import Trainer

CPU = torch.device("cpu")
BASE = "back_04000000000000000000+cls_010022222+reg_000222222_ops_21"
OTHER_BASE = "back_04000000000000000000+cls_010022222+reg_000222222_ops_20"
EIGHT = "back_04000000000000000000+cls_010022222+reg_000222222_ops_11+lite"  # a path under it, of stride 8


@pytest.fixture(scope="module")
def teacher() -> LightTrack:
    torch.manual_seed(3)
    return LightTrack(Architecture.parse(BASE)).eval()


@pytest.fixture
def supernet(teacher: LightTrack) -> Supernet:
    return Supernet(Space(BASE), teacher, torch.randn(2, 3, 64, 64)).eval()


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return generate_scenes(2, seed=5, side=256)


def test_a_space_is_what_the_base_has_or_less_of_it() -> None:
    decisions = Space(BASE).decisions
    assert decisions["output"] == ("10", "11", "12", "13", "20", "21"), "stride 8, then stride 16"
    assert Space(BASE).output_channels == {40: 8, 80: 16}
    assert set(Space(MOBILE).output_channels) == {40, 80, 96}
    assert decisions["0-0"] == ("0", "2", "4", "7", "8", "9"), (
        "kernel 7, expansion 4: all kernels, 4 or 2; it must stay"
    )
    assert decisions["2-1"] == ("0", "7", "6"), "kernel 3, expansion 4, or left out"
    assert decisions["cls.width"] == ("0",)
    assert decisions["cls.0"] == ("0", "1")
    assert decisions["cls.1"] == ("0", "2")
    assert decisions["cls.7"] == ("2",), "the base has no such unit"
    rng = np.random.default_rng(0)
    for base in (BASE, MOBILE):
        largest = Architecture.parse(Space(base).largest)
        for _ in range(50):
            path = Architecture.parse(Space(base).random_path(rng))
            for blocks, most in zip(path.blocks, largest.blocks, strict=False):
                for block, limit in zip(blocks, most, strict=False):
                    assert block is None or (block[0] <= limit[0] and block[1] <= limit[1])
            assert path.cls_channels <= largest.cls_channels
            assert len(path.reg_kernels) <= len(largest.reg_kernels)


def test_paths_are_drawn_uniformly() -> None:
    rng = np.random.default_rng(1)
    paths = [Space(BASE).random_path(rng) for _ in range(1200)]
    digits = Counter(path[len("back_0")] for path in paths)
    assert set(digits) == set("024789")
    for count in digits.values():
        assert abs(count - 200) < 4 * np.sqrt(1200 * 1 / 6 * 5 / 6)


@pytest.mark.parametrize("path", [f"{MOBILE}+lite", "back_00000000000000000000+cls_000222222+reg_000222222_ops_10"])
def test_what_is_no_base_is_refused(path: str) -> None:
    with pytest.raises(LightTrackError, match="is no base"):
        Space(path)


def test_the_largest_path_is_the_pruned_student(teacher: LightTrack, supernet: Supernet) -> None:
    images = torch.randn(2, 3, 64, 64)
    student = LightTrack(Architecture.parse(f"{BASE}+lite")).eval()
    with torch.no_grad():
        ours = Supernet(Space(BASE), teacher, images).eval().network(f"{BASE}+lite")
        inherit(student, teacher, images)
        template, search = torch.randn(2, 3, 128, 128), torch.randn(2, 3, 160, 160)
        for a, b in zip(
            ours(ours.template_features(template), search),
            student.eval()(student.template_features(template), search),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_paths_share_layers_and_a_step_changes_those_of_its_path_alone(supernet: Supernet) -> None:
    rng = np.random.default_rng(2)
    path = Space(BASE).random_path(rng)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    network = supernet.train().network(path)
    assert not network.neck.training
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.1)
    logits, distances = network(network.template_features(torch.randn(2, 3, 128, 128)), torch.randn(2, 3, 160, 160))
    (logits.square().mean() + distances.mean()).backward()
    optimiser.step()
    changed = {
        name.split(".")[1] for name, value in supernet.state_dict().items() if not torch.equal(value, before[name])
    }
    # The fusion is one for all widths, so it changes under both names.
    assert {name for name in changed if "fusion" not in name} <= set(layers(path))
    assert "stem" in changed
    assert layers(path)[-1] in changed


def test_the_time_of_a_path_is_the_sum_of_its_layers_and_two_constants() -> None:
    space, rng = Space(BASE), np.random.default_rng(3)
    paths = [space.random_path(rng) for _ in range(12)]
    names = {name for path in paths for name in timed_layers(path)}
    table = {name: float(value) for name, value in zip(sorted(names), rng.uniform(0.1, 1, len(names)), strict=True)}
    by_hand = sum(table[name] for name in timed_layers(paths[0]))
    assert LatencyModel(table, 0.5, 0.25).predict(paths[0]) == pytest.approx(0.5 * by_hand + 0.25)
    times = [0.8 * sum(table[name] for name in timed_layers(path)) + 0.3 for path in paths]
    model = fitted(table, paths, times)
    assert (model.share, model.fixed) == pytest.approx((0.8, 0.3))


def test_every_layer_and_every_path_can_be_measured(supernet: Supernet) -> None:
    timing = Timing(side=160, rounds=2)
    table = measure_layers(supernet, timing)
    assert {name.removesuffix(" @8") for name in table} == set(supernet.layers)
    rng = np.random.default_rng(4)
    paths = [Space(BASE).random_path(rng) for _ in range(30)]
    assert {Architecture.parse(path).stride for path in paths} == {8, 16}
    for path in paths:
        assert set(timed_layers(path)) <= set(table)
    assert table["cls 0 0 0 @8"] > table["cls 0 0 0"], "the heads take longer on four times the cells"
    path = next(path for path in paths if Architecture.parse(path).stride == 8)
    (whole,) = measure_paths(supernet, [path], timing)
    assert whole > 0
    assert min(table.values()) > 0


def test_a_path_of_stride_8_learns_from_maps_of_stride_16(teacher: LightTrack, clips: list[Clip]) -> None:
    """Each of the teacher's cells lies on every second of the student's: distances read there are the same pixels."""
    source = PairSource(Library(clips, CPU), PairSettings(photo=0), 1)
    batch = source.batch([0, 1])
    targets = Teacher(copy.deepcopy(teacher), CPU)(batch)
    student = LightTrack(Architecture.parse(EIGHT))
    objective = LightTrackObjective(student, Recipe(architecture=EIGHT, steps=1, windows=(160,)))
    cut, shown = objective.seen(batch, targets, 0)
    assert cut.search.shape[-1] == 160
    assert shown.logits.shape[-1] == 10
    losses = objective(cut, shown)
    assert losses["teacher_box"] >= 0
    assert losses["teacher_search"] == 0, "features of another stage are not learnt"
    at, finer = cell_points(160, 10, CPU), cell_points(160, 20, CPU)
    assert torch.equal(finer[::2], at)
    losses["loss"].backward()
    assert student.head.cls_perd.cls_pred.weight.grad.abs().sum() > 0


def test_overlaps_and_accuracy(supernet: Supernet) -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert intersection_over_union(a, b).tolist() == pytest.approx([1, 1 / 3, 0])
    batch = Batch(
        torch.zeros(2, 3, 128, 128, dtype=torch.uint8),
        torch.zeros(2, 3, 160, 160, dtype=torch.uint8),
        torch.tensor([[40.0, 40, 120, 120]] * 2),
        torch.tensor([1.0, 0.0]),
        torch.ones(2),
    )
    assert 0 <= accuracy_of(supernet, f"{BASE}+lite", batch) <= 1


def test_an_evolution_keeps_its_limits_finds_the_front_and_goes_on(tmp_path: Path) -> None:
    """Worth and cost of a path: its number of blocks; whoever leaves none out is best, and too dear."""
    space, asked = Space(BASE), []

    def blocks(path: str) -> int:
        return sum(choice is not None for stage in Architecture.parse(path).blocks for choice in stage)

    def accuracy(path: str) -> float:
        asked.append(path)
        return blocks(path) / 10

    def run(trials: int, limit: float = 7) -> list:
        cost = lambda path: Cost(float(blocks(path)), 1.0, 1.0)  # noqa: E731
        return evolve(space, cost, accuracy, Limits(ms=limit), trials, tmp_path / "journal", population=8)

    found = run(16)
    first = len(asked)
    assert all(item.cost.ms <= 7 for item in found)
    assert [item.accuracy for item in found if item.front] == sorted({item.accuracy for item in found})
    assert 0 < first <= 16
    assert len(run(16)) == len(found), "what was tried counts"
    assert len(asked) == first
    run(24)
    assert first < len(asked) <= first + 8
    with pytest.raises(LightTrackError, match="none of 8 paths keeps"):
        run(8, limit=0.5)


def test_a_supernets_training_resumes_bit_for_bit(tmp_path: Path, teacher: LightTrack, clips: list[Clip]) -> None:
    recipe = Recipe(
        architecture=BASE, method="supernet", steps=4, pairs_count=4, batch_size=2, warmup=1, workers=0,
        windows=(160,), pairs=PairSettings(photo=0),
    )  # fmt: skip
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()

    def trainer(folder: str) -> Trainer:
        fabric.seed_everything(1, verbose=False)
        objective = SupernetObjective(Supernet(Space(BASE), teacher, torch.ones(1, 3, 64, 64)), Space(BASE), recipe)
        source = PairSource(Library(clips, CPU), recipe.pairs, recipe.seed)
        return Trainer(fabric, objective, Supply(source, None, None, 4), recipe, tmp_path / folder)

    trainer("whole").run()
    trainer("halves").run(until=2)
    trainer("halves").run()
    whole, halves = (torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "halves"))
    for name, value in whole["average"].items():
        assert torch.equal(value, halves["average"][name]), name


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Bright pictures and dark ones."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 20)):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(3):
            picture = (level + 40 * rng.random((90, 120, 3))).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "classes" / name / f"{number}.jpg"), picture)
    return tmp_path / "classes"


def test_a_backbone_learns_classes_and_resumes_bit_for_bit(tmp_path: Path, classes: Path) -> None:
    recipe = Recipe(
        architecture=BASE, method="classes", steps=10, pairs_count=40, batch_size=4, warmup=1, workers=0, log_every=2,
        lr=1e-3, head_lr=1e-2, teacher=TeacherSettings(architecture=BASE),
        data=DataSettings(classes=str(classes)),
    )  # fmt: skip
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()

    def trainer(folder: str) -> Trainer:
        fabric.seed_everything(1, verbose=False)
        source = ClassSource(classes, 128, 1, CPU)
        assert source.names == ["bright", "dark"]
        objective, labeller = prepare(recipe, source, CPU)
        assert labeller is None
        return Trainer(fabric, objective, Supply(source, None, None, 40), recipe, tmp_path / folder)

    trainer("whole").run()
    trainer("halves").run(until=4)
    trainer("halves").run()
    whole, halves = (torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "halves"))
    for name, value in whole["objective"].items():
        assert torch.equal(value, halves["objective"][name]), name
    with (tmp_path / "whole/curves.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    start = dataclasses.replace(recipe, method="supernet", start=str(tmp_path / "whole/student.pt"))
    images = torch.randn(2, 3, 64, 64)
    supernet, _ = new_supernet(start, images)
    assert torch.equal(supernet.layers["stem"].weight, whole["average"]["module.layers.stem.weight"])
    with pytest.raises(LightTrackError, match="does not fit a supernet of"):
        new_supernet(dataclasses.replace(start, teacher=TeacherSettings(architecture=OTHER_BASE)), images)


def test_a_fresh_supernets_activations_neither_fade_nor_grow() -> None:
    """Without batch norms or a teacher, at every depth."""
    torch.manual_seed(0)
    images = torch.randn(8, 3, 128, 128)
    recipe = Recipe(architecture=MOBILE, steps=1, teacher=TeacherSettings(inherit=False))
    supernet, space = new_supernet(recipe, images)
    with torch.no_grad():
        features = supernet.network(space.largest).features(images)
    assert 0.2 < features.std() < 5


def test_what_is_no_folder_of_classes_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightTrackError, match="no such folder of classes"):
        ClassSource(tmp_path / "none", 64, 1, CPU)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/picture.jpg").write_bytes(b"no picture")
    with pytest.raises(LightTrackError, match="1 classes in it, expected two or more"):
        ClassSource(tmp_path, 64, 1, CPU)
    (tmp_path / "two").mkdir()
    (tmp_path / "two/picture.jpg").write_bytes(b"no picture")
    with pytest.raises(LightTrackError, match="cannot be read as a picture"):
        ClassSource(tmp_path, 64, 1, CPU)


def test_from_a_recipe_to_model_folders(
    tmp_path: Path, teacher: LightTrack, clips: list[Clip], classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All stages: classes, frozen backbone, whole supernet, search, the winner's retraining."""
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    for clip in clips:
        folder = tmp_path / "videos" / clip.name
        folder.mkdir(parents=True)
        lines = []
        for number, picture in enumerate(clip.pictures):
            cv2.imwrite(str(folder / f"{number:04d}.jpg"), picture.pixels[:, :, ::-1])
            lines.append(",".join(map(str, picture.boxes[0])) if picture.boxes else "nan,nan,nan,nan")
        (folder / "boxes.txt").write_text("\n".join(lines))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"architecture: {BASE}\nmethod: supernet\nsteps: 2\npairs_count: 4\nbatch_size: 2\nworkers: 0\nwindows: [160]\n"
        f"data: {{videos: {tmp_path}/videos, held_out: [scene 1], classes: {classes}}}\npairs: {{photo: 0}}\n"
        f"teacher: {{checkpoint: {tmp_path}/teacher.pt, architecture: {BASE}}}\n"
        "stages:\n"
        "  classes: {method: classes}\n"
        "  heads: {start: 'stage:classes', frozen: [layers.stem, layers.first, layers.0, layers.1, layers.2]}\n"
        "  whole: {start: 'stage:heads'}\n"
        "  retrain: {method: student, start: searched}\n"
    )
    out = tmp_path / "out"
    arguments = ["search", str(recipe), "--output", str(out), "--limit-ms", "1000", "--side", "160"]
    arguments += ["--trials", "4", "--rounds", "1", "--check", "2"]
    assert main([*arguments, "--name", "tiny", "--plot", str(tmp_path / "front.png")]) == 0
    said = capsys.readouterr().out
    assert "predicted time of 2 random paths" in said
    with (out / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        model = load_model(out / "engines" / row["name"])
        assert model.architecture == row["path"]
        assert row["path"] in said
    assert (tmp_path / "front.png").is_file()
    (kept,) = out.glob("latency-*.json")
    assert json.loads(kept.read_text())["timing"]["side"] == 160
    assert json.loads((out / "whole/run.json").read_text())["recipe"]["method"] == "supernet"
    stages = [torch.load(out / name / "student.pt") for name in ("classes", "heads")]
    for name in stages[0]:
        if not name.startswith(("layers.cls", "layers.reg", "layers.fusion")):
            assert torch.equal(stages[0][name], stages[1][name]), f"{name} was frozen"
    best = max(rows, key=lambda row: float(row["overlap"]))
    retrained = json.loads((out / "retrain/run.json").read_text())["recipe"]
    assert retrained["architecture"] == best["path"]
    assert retrained["start"] == str(out / "engines" / best["name"])
    assert f"--architecture {best['path']} --name tiny" in said
    before = (out / "whole/student.pt").stat().st_mtime_ns
    assert main([*arguments, "--name", "tiny"]) == 0
    assert (out / "whole/student.pt").stat().st_mtime_ns == before, "what is done is not done again"
    assert main(["train", str(recipe), "--output", str(out)]) == 1
    assert "start: searched is known only to lighttrack search" in capsys.readouterr().err


def test_a_search_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"architecture: {BASE}\nsteps: 2\n")
    for arguments, words in (
        ([], "no stage of the recipe is 'supernet'"),
        (["--limit-ms", "0"], "--limit-ms is 0, expected more than 0"),
        (["--side", "100"], "--side is 100, expected a multiple of 32 over 128"),
    ):
        assert main(["search", str(recipe), "--output", str(tmp_path / "out"), *arguments]) == 1
        assert words in capsys.readouterr().err
