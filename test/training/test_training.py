"""Training: pairs whose boxes are true, losses, inheritance, and a run that learns, resumes bit for bit and exports."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export.graphs import compare_graph, normalised, random_crop
from lighttrack_ros.export.importer import import_checkpoint
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.sequences import read_boxes
from lighttrack_ros.models import load_model
from lighttrack_ros.networks.dytrack import Architecture as DyTrackArchitecture
from lighttrack_ros.networks.lighttrack import Architecture, LightTrack, load_checkpoint
from lighttrack_ros.networks.mixformerv2 import Architecture as MixFormerV2Architecture
from lighttrack_ros.training.data import Clip, Library, Picture, generate_scenes, read_clips, read_photos, read_videos
from lighttrack_ros.training.distill import Supply, Targets, Teacher, normalise
from lighttrack_ros.training.folding import fold, official_state
from lighttrack_ros.training.lighttrack import LightTrackObjective, prepare
from lighttrack_ros.training.losses import box_loss, cell_points, labels
from lighttrack_ros.training.pairs import Batch, PairSettings, PairSource
from lighttrack_ros.training.prune import inherit
from lighttrack_ros.training.recipe import DataSettings, Recipe, read_stages
from lighttrack_ros.training.record import data_hash, write_record
from lighttrack_ros.training.start import read_graphs
from lighttrack_ros.training.trainer import Trainer
from lighttrack_ros.training.windows import cut_windows

RECIPES = Path(__file__).resolve().parents[2] / "lighttrack_ros/training/recipes"
CPU = torch.device("cpu")
SMALL = "back_00000000000000000000+cls_000222222+reg_000222222_ops_20+width_50_25"
LITE = "back_00700600000000000000+cls_000222222+reg_000222222_ops_20+width_50_25+lite"
PLAIN = PairSettings(backdrop=0, blur=0, low_resolution=0, grey=0, colour=0, noise=0, occlusion=0, look_alike=0)


@pytest.fixture(scope="session")
def scene_clips() -> list[Clip]:
    return generate_scenes(1, seed=5, side=256)


def _network(path: str, seed: int = 0) -> LightTrack:
    torch.manual_seed(seed)
    network = LightTrack(Architecture.parse(path))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(2):  # statistics as if it had been trained
            network(network.template_features(torch.randn(4, 3, 128, 128)), torch.randn(4, 3, 256, 256))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    return network.eval()


def _painted(box: Box, width: int = 200, height: int = 150) -> Clip:
    """A grey picture with a red box."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    x, y, w, h = (int(value) for value in box)
    pixels[y : y + h, x : x + w] = (250, 20, 20)
    return Clip("painted", (Picture(pixels, (box,)),))


def _red(crop: torch.Tensor) -> list[float]:
    rows, columns = torch.nonzero((crop[0].int() - crop[1].int()) > 115, as_tuple=True)
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]


@pytest.mark.parametrize("box", [Box(80, 60, 40, 30), Box(20, 30, 24, 60), Box(150, 20, 30, 20)])
def test_the_box_of_a_pair_is_where_the_target_is(box: Box) -> None:
    settings = dataclasses.replace(PLAIN, video=0, patch=0, absent=0, shift=40, rotation=0)
    batch = PairSource(Library([_painted(box)], CPU), settings, seed=3).batch(list(range(12)))
    for search, expected in zip(batch.search, batch.box, strict=True):
        assert _red(search) == pytest.approx(expected.clamp(0, 256).tolist(), abs=1.6)
    for template in batch.template:
        left, top, right, bottom = _red(template)
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((64, 64), abs=6)


def test_a_pair_does_not_depend_on_the_batch_it_is_made_in(scene_clips: list[Clip]) -> None:
    source = PairSource(Library(scene_clips, CPU), PairSettings(photo=0), seed=1)
    together, alone = source.batch(list(range(40))), source.batch([37])
    for name in Batch._fields:
        assert torch.equal(getattr(together, name)[37], getattr(alone, name)[0]), name
    other = PairSource(Library(scene_clips, CPU), PairSettings(photo=0), seed=2).batch([37])
    assert not torch.equal(other.search, alone.search)


def test_absent_targets_do_not_show() -> None:
    settings = dataclasses.replace(PLAIN, video=0, photo=0, patch=0, absent=1)
    batch = PairSource(Library([_painted(Box(80, 60, 40, 30))], CPU), settings, seed=3).batch(list(range(20)))
    assert not batch.present.any()
    assert not ((batch.search[:, 0].int() - batch.search[:, 1].int()) > 60).any()


def _batch(box: tuple[float, float, float, float], present: float = 1.0) -> Batch:
    crop = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    return Batch(crop, crop, torch.tensor([box]), torch.tensor([present]), torch.ones(1))


def test_labels_have_an_ignore_band_between_target_and_rest() -> None:
    label = labels(_batch((64, 64, 192, 192)), 16)
    positive, negative = label.positive[0, 0], label.negative[0, 0]
    assert positive[8, 8] == 1  # the cell at 128, 128
    assert positive[8, 10] == 1
    assert positive[8, 11] == 0  # three cells away: inside the box, neither
    assert negative[8, 11] == 0
    assert negative[0, 0] == 1
    assert label.distances[0, :, 8, 9].tolist() == [80, 64, 48, 64]
    assert labels(_batch((126, 126, 131, 131)), 16).positive.sum() == 1  # smaller than a cell
    gone = labels(_batch((64, 64, 192, 192), present=0), 16)
    assert gone.positive.sum() == 0
    assert gone.negative.sum() == 256


def test_box_loss_is_zero_for_the_true_box_only() -> None:
    label = labels(_batch((60, 70, 180, 160)), 16)
    assert box_loss(label.distances.clamp_min(0), label.distances, label.positive).item() == pytest.approx(0, abs=1e-6)
    half = label.distances.clamp_min(0) / 2
    assert box_loss(half, label.distances, label.positive).item() == pytest.approx(np.log(4), abs=0.01)
    assert cell_points(256, 16, CPU)[[0, 8]].tolist() == [0, 128]


def test_folding_changes_nothing_and_keeps_the_official_keys() -> None:
    network, folded = _network(SMALL), _network(SMALL)
    fold(folded)
    back = LightTrack(Architecture.parse(SMALL))
    back.load_state_dict(official_state(folded))
    template, search = torch.randn(2, 3, 128, 128), torch.randn(2, 3, 256, 256)
    for other in (folded, back.eval()):
        for ours, theirs in zip(
            network(network.template_features(template), search),
            other(other.template_features(template), search),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_inheriting_everything_gives_the_teacher() -> None:
    teacher, student = _network(SMALL, 0), _network(SMALL, 1)
    images = torch.randn(2, 3, 128, 128)
    inherit(student, teacher, images)
    torch.testing.assert_close(
        student.eval().search_features(images), teacher.search_features(images), rtol=1e-3, atol=1e-3
    )


def test_a_smaller_student_inherits_the_largest_channels() -> None:
    teacher, student = _network(SMALL, 0), _network(LITE, 1)
    inherit(student, teacher, torch.randn(2, 3, 128, 128))
    assert student.features.blocks[1][1].conv_dw.weight.shape[0] < teacher.features.blocks[1][1].conv_dw.weight.shape[0]
    fused = teacher.features.blocks[1][1]
    scale = fused.bn2.weight / (fused.bn2.running_var + fused.bn2.eps).sqrt()
    scaled = fused.conv_dw.weight.flatten(1) * scale[:, None]
    ours = student.features.blocks[1][1].conv_dw.weight.flatten(1)
    distance = torch.cdist(ours, scaled).amin(1)
    assert distance.max() < 5e-3  # float32 distances between kernels of length about 1
    with pytest.raises(LightTrackError, match="the teacher has no squeeze-excite"):
        inherit(_network(SMALL), _network(LITE), torch.randn(1, 3, 128, 128))


def test_the_cache_gives_back_what_was_made(tmp_path: Path, scene_clips: list[Clip]) -> None:
    source = PairSource(Library(scene_clips, CPU), PairSettings(photo=0), seed=1)
    teacher = Teacher(_network(SMALL), CPU)
    plain = Supply(source, teacher, None, 8).__getitems__([3, 5])
    Supply(source, teacher, tmp_path, 8).__getitems__([5, 3])
    batch, targets = Supply(source, None, None, 8).__getitems__([3])
    assert targets is None
    batch, targets = Supply(source, teacher, tmp_path, 8).__getitems__([3, 5])
    assert targets is not None
    assert plain[1] is not None
    for name in Batch._fields:
        assert torch.equal(getattr(batch, name), getattr(plain[0], name)), name
    torch.testing.assert_close(targets.logits.float(), plain[1].logits, rtol=1e-3, atol=1e-3)
    other = PairSource(Library(scene_clips, CPU), PairSettings(photo=0, blur=0.9), seed=1)
    with pytest.raises(LightTrackError, match="other pairs"):
        Supply(other, teacher, tmp_path, 8)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("distilled", [False, True], ids=["alone", "distilled"])
def test_a_run_learns_resumes_bit_for_bit_and_exports(
    tmp_path: Path, scene_clips: list[Clip], workers: int, distilled: bool
) -> None:
    recipe = Recipe(
        architecture=LITE, steps=20, pairs_count=4, batch_size=4, lr=3e-3, warmup=2, workers=workers, log_every=2,
        ema=0.5, pairs=PairSettings(photo=0), windows=(256, 160) if distilled else (),
    )  # fmt: skip
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()

    def trainer(folder: str) -> Trainer:
        fabric.seed_everything(recipe.seed, verbose=False)
        student = _network(LITE)
        teacher = None
        if distilled:
            network = _network(SMALL)
            inherit(student, network, torch.randn(2, 3, 128, 128))
            teacher = Teacher(network, CPU)
        source = PairSource(Library(scene_clips, CPU), recipe.pairs, recipe.seed)
        cache = tmp_path / f"cache {folder}" if distilled else None
        objective = LightTrackObjective(student, recipe)
        return Trainer(fabric, objective, Supply(source, teacher, cache, recipe.pairs_count), recipe, tmp_path / folder)

    trainer("whole").run()
    trainer("halves").run(until=5)
    second = trainer("halves")
    assert second.step == 5
    second.run()
    whole, halves = (torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "halves"))
    for part in ("objective", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, halves[part][name]), name

    with (tmp_path / "whole/curves.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 10
    assert losses[-1] < 0.85 * losses[0]

    folder = import_checkpoint(tmp_path / "whole/student.pt", "tiny", LITE, tmp_path, "a test", "none")
    assert load_model(folder).search_graph.is_file()
    load_checkpoint(tmp_path / "whole/student.pt", Architecture.parse(LITE))


def test_a_window_holds_what_the_crop_holds_there() -> None:
    """Of a map of cell numbers, and of pixels that tell their place: box, pixels and map stay together."""
    n, side, count = 16, 160, 64
    at = torch.arange(256, dtype=torch.uint8)
    search = torch.stack(torch.broadcast_tensors(at[None, :], at[:, None], at.new_tensor(0))).repeat(count, 1, 1, 1)
    centre = torch.linspace(20, 236, count)
    box = torch.stack([centre - 10, 256 - centre - 30, centre + 10, 256 - centre + 30], 1)
    present = (torch.arange(count) % 4 > 0).float()
    batch = Batch(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), search, box, present, present)
    cells = torch.arange(n * n, dtype=torch.float32).view(1, 1, n, n).repeat(count, 1, 1, 1)
    targets = Targets(torch.zeros(count, 64, 3), cells.expand(-1, 5, -1, -1), cells, cells.expand(-1, 4, -1, -1))
    cut, shown = cut_windows(batch, targets, side, 16, torch.Generator().manual_seed(1))
    left, top = cut.search[:, 0, 0, 0].long(), cut.search[:, 1, 0, 0].long()
    assert cut.search.shape == (count, 3, side, side)
    assert ((left % 16 == 0) & (top % 16 == 0)).all()
    torch.testing.assert_close(cut.box, box - torch.stack([left, top, left, top], 1))
    torch.testing.assert_close(shown.logits[:, 0, 0, 0], (top // 16 * n + left // 16).float())
    assert shown.search.shape == (count, 5, 10, 10)
    assert shown.template is targets.template
    middle = (cut.box[:, :2] + cut.box[:, 2:]) / 2 - side / 2
    inside = ((box[:, :2] > 80) & (box[:, 2:] < 176)).all(1) & (present > 0)
    assert inside.any()
    assert (middle[inside].abs() <= 0.3 * side + 8).all(), "near the middle where the crop allows it"
    assert len(set(left.tolist())) > 3
    again, _ = cut_windows(batch, None, side, 16, torch.Generator().manual_seed(1))
    assert torch.equal(again.search, cut.search)


def test_a_student_goes_on_from_a_model_folder(model: Path) -> None:
    """The weights that were read back give what the graphs give."""
    folder = load_model(model)
    recipe = Recipe(architecture=folder.architecture, steps=1, start=str(model), windows=(160, 256))
    network = read_graphs(folder)
    crop = random_crop(160)
    template = network.template_features(normalised(random_crop(128)))
    logits, distances = network(template, normalised(crop))
    compare_graph(
        folder.search_graph,
        {"crop": crop, "template_features": template.detach()},
        {"logits": logits.detach(), "distances": distances.detach()},
        {"side": 160},
    )
    objective = LightTrackObjective(network, recipe).train()
    assert not network.neck.training, "its statistics stay"
    assert (
        objective.published(network).keys() == LightTrack(Architecture.parse(folder.architecture)).state_dict().keys()
    )


def test_what_cannot_be_gone_on_from_is_named(model: Path) -> None:
    recipe = Recipe(architecture=SMALL, steps=1, start=str(model))
    with pytest.raises(LightTrackError, match=r"start: .* the recipe's is"):
        prepare(recipe, None, CPU)  # type: ignore[arg-type]
    with pytest.raises(LightTrackError, match="windows: 176, expected multiples of 32 up to"):
        prepare(dataclasses.replace(recipe, windows=(176,)), None, CPU)  # type: ignore[arg-type]
    other = dataclasses.replace(load_model(model), tracker="dytrack")
    with pytest.raises(LightTrackError, match="only a LightTrack's weights"):
        read_graphs(other)


def test_a_run_writes_down_what_it_was_made_of(tmp_path: Path) -> None:
    photos, moved = tmp_path / "here/photos", tmp_path / "there/photos"
    for folder in (photos, moved):
        folder.mkdir(parents=True)
        (folder / "boxes.csv").write_text("file,x,y,w,h")
    recipe = Recipe(architecture=SMALL, steps=3, data=DataSettings(photos=str(photos)))
    write_record(recipe, tmp_path / "run.json", step=2)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["recipe"]["architecture"] == SMALL
    assert record["step"] == 2
    assert record["data"] == data_hash([photos]) == data_hash([moved])
    (moved / "boxes.csv").write_text("file,x,y,w,h\n")
    assert data_hash([moved]) != record["data"]
    assert record["commit"] is None or len(record["commit"].removesuffix("-dirty")) == 40


def test_clips_are_decoded_once(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("man", "hand1_win"):
        (folder / name).symlink_to(shared / "training/clips" / name)
    man, *_ = read_clips(folder, tmp_path / "cache", exclude=["hand1_win"], every=4, side=120)
    assert len(man.pictures) == 34
    assert man.pictures[0].pixels.shape == (96, 120, 3)
    first = read_boxes(folder / "man/groundtruth.txt")[0]
    assert man.pictures[0].boxes[0] == pytest.approx(0.5 * first)
    hidden, _ = read_clips(folder, tmp_path / "cache", every=4, side=120)
    assert any(not picture.boxes for picture in hidden.pictures), "the target is away in some frames"
    monkeypatch.setattr("lighttrack_ros.training.data._decode", None)
    again, _ = read_clips(folder, tmp_path / "cache", every=4, side=120)
    np.testing.assert_array_equal(again.pictures[3].pixels, hidden.pictures[3].pixels)
    with pytest.raises(LightTrackError, match="no sequence named nobody"):
        read_clips(folder, tmp_path / "cache", exclude=["nobody"])


def test_a_run_of_another_recipe_is_not_taken_up(tmp_path: Path, scene_clips: list[Clip]) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    supply = Supply(PairSource(Library(scene_clips, CPU), PairSettings(photo=0), 1), None, None, 4)
    recipe = Recipe(architecture=LITE, steps=1, pairs_count=4, batch_size=4, workers=0)
    Trainer(fabric, LightTrackObjective(_network(LITE), recipe), supply, recipe, tmp_path).run()
    other = LightTrackObjective(_network(SMALL), recipe)
    with pytest.raises(LightTrackError, match="another recipe"):
        Trainer(fabric, other, supply, dataclasses.replace(recipe, architecture=SMALL), tmp_path)
    with pytest.raises(LightTrackError, match=r"curves\.csv: cannot be written"):
        Trainer(fabric, other, supply, recipe, tmp_path / "curves.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("steps: 3", "architecture is missing"),
        ("architecture: x\nsteps: many", "steps: is 'many', expected a whole number"),
        ("architecture: x\nsteps: 3\nspeed: 4", "unknown key 'speed' .did you mean 'seed'"),
        ("architecture: x\nsteps: 3\npairs: {blurr: 1}", "pairs: unknown key 'blurr' .did you mean 'blur'"),
        ("architecture: x\nsteps: 0", "steps is 0"),
        ("architecture: x\nsteps: 3\nbatch_size: 9\npairs_count: 4", "pairs_count 4 is under"),
        ("architecture: x\nsteps: 3\ntracker: siamfc", "tracker is 'siamfc'"),
        ("architecture: x\nsteps: 3\nprecision: half", "precision is 'half'"),
        ("architecture: x\nsteps: 3\ndytrack: {stage: heads}", "dytrack: stage is 'heads'"),
        ("architecture: x\nsteps: 3\nstages: {}", "stages is {}, expected a section"),
        ("architecture: x\nstages: {a: {steps: 3}, B: {steps: 3}}", "stages: B: expected a section"),
        ("architecture: x\nstages: {a: {steps: 3}, b: {steps: 3, step: 3}}", "stages: b: unknown key 'step'"),
        ("architecture: x\nsteps: 3\nstages: {a: {start: 'stage:b'}, b: {}}", "a: start is 'stage:b', and no earlier"),
        ("- a", "expected `key: value`"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(LightTrackError, match=message):
        read_stages(path, tmp_path)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.name)
def test_committed_recipes_are_well_formed(path: Path) -> None:
    parsers = {"lighttrack": Architecture, "dytrack": DyTrackArchitecture, "mixformerv2": MixFormerV2Architecture}
    for recipe in read_stages(path, Path("run")).values():
        parsers[recipe.tracker].parse(recipe.architecture)


def test_a_stage_is_the_recipe_with_its_own_changes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "architecture: x\nsteps: 3\npairs: {blur: 0.5, noise: 0.5}\n"
        "stages:\n"
        "  first: {pairs: {blur: 0.25}}\n"
        "  second: {steps: 4, start: 'stage:first', teacher: {checkpoint: 'stage:first', cache: pairs}}\n"
    )
    first, second = read_stages(path, tmp_path / "run").values()
    assert (first.steps, first.pairs.blur, first.pairs.noise, first.start) == (3, 0.25, 0.5, "")
    assert (second.steps, second.pairs.blur, second.teacher.cache) == (4, 0.5, "pairs")
    assert second.start == second.teacher.checkpoint == str(tmp_path / "run/first/student.pt")


def test_training_folders_are_read(shared: Path) -> None:
    clips = read_videos(shared / "training/videos", include=["bolt"])
    assert len(clips[0].pictures) == 50
    assert clips[0].pictures[0].pixels.shape == (288, 512, 3)
    with pytest.raises(LightTrackError, match="has no video nobody"):
        read_videos(shared / "training/videos", exclude=["nobody"])


@pytest.mark.parametrize("name", ["threads", "devices", "machines"])
def test_fewer_than_one_of_what_trains_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    recipe = str(RECIPES / "nano.yaml")
    assert main(["train", recipe, "--output", str(tmp_path), f"--{name}", "0"]) == 1
    assert f"--{name} is 0, expected at least 1" in capsys.readouterr().err


def test_damaged_training_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(LightTrackError, match="no such folder"):
        read_videos(tmp_path / "none")
    with pytest.raises(LightTrackError, match=r"boxes\.csv"):
        read_photos(tmp_path)
    (tmp_path / "boxes.csv").write_text("file,x,y,w\na.jpg,1,2,3\n")
    with pytest.raises(LightTrackError, match="columns"):
        read_photos(tmp_path)
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\na.jpg,1,2,3,4\n")
    with pytest.raises(LightTrackError, match=r"a\.jpg: cannot be read"):
        read_photos(tmp_path)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/boxes.txt").write_text("1,2,3,4\n")
    with pytest.raises(LightTrackError, match="0 frames but 1 boxes"):
        read_videos(tmp_path)


def test_crops_are_normalised_as_the_network_expects() -> None:
    crops = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert normalise(crops)[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229)
