"""Claims over several seeds: what is compared, when it counts as shown, and that a cut run goes on."""

import csv
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.claims import Outcome, _paths_of_time, read_claim, try_claim, verdict
from lighttrack_ros.training.data import generate_scenes
from lighttrack_ros.training.pairs import Batch

pytest.importorskip("optuna", reason="needs the extra search")

from lighttrack_ros.training.search.latency import LatencyModel
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.space import layers

CLAIM = """
claim: More steps beat fewer.
compare: [many, few]
measured_pairs: 16
tracker: mixformerv2
architecture: sizes_32_64_channels_64_mlp_64_depth_1_bins_16
steps: 6
pairs_count: 8
batch_size: 8
workers: 0
warmup: 1
data: {{videos: {videos}, held_out: [scene 1, scene 2]}}
pairs: {{template_size: 32, search_size: 64, photo: 0, absent: 0}}
stages:
  many: {{}}
  few: {{steps: 1}}
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for clip in generate_scenes(3, seed=5, side=128):
        (folder / clip.name).mkdir()
        lines = []
        for number, picture in enumerate(clip.pictures[:8]):
            cv2.imwrite(str(folder / clip.name / f"{number:04d}.jpg"), picture.pixels[:, :, ::-1])
            lines.append(",".join(map(str, picture.boxes[0])) if picture.boxes else "nan,nan,nan,nan")
        (folder / clip.name / "boxes.txt").write_text("\n".join(lines))
    return folder


def _outcomes(*differences: float) -> list[Outcome]:
    return [Outcome(seed, 0.5 + value, 0.5, {}) for seed, value in enumerate(differences, 1)]


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ((0.03, 0.02, 0.04), r"difference \+0.0300 \+- 0.0100, ahead in 3 of 3 seeds: shows"),
        ((0.03, 0.02, -0.01), "ahead in 2 of 3 seeds: does not show at this scale"),
        ((0.001, 0.002, 0.09), "ahead in 3 of 3 seeds: does not show"),
        ((0.5,), "ahead in 1 of 1 seeds: does not show"),
    ],
    ids=["all ahead", "one behind", "within the spread", "one seed"],
)
def test_a_claim_shows_if_all_seeds_are_ahead_by_more_than_their_spread(
    differences: tuple[float, ...], words: str
) -> None:
    assert re.search(words, verdict(_outcomes(*differences)))


def test_both_sides_learn_with_each_seed_and_a_cut_run_goes_on(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(CLAIM.format(videos=videos))
    claim = read_claim(path)
    (first,) = try_claim(claim, path, 1, tmp_path / "runs")
    assert first.seed == 1
    assert 0 <= first.second <= 1
    assert first.first != first.second
    trained = tmp_path / "runs/seed_1/many/student.pt"
    before = os.stat(trained).st_mtime_ns
    assert main(["claims", str(path), "--seeds", "2", "--output", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "More steps beat fewer." in said
    assert "of 2 seeds" in said
    assert os.stat(trained).st_mtime_ns == before
    assert try_claim(claim, path, 2, tmp_path / "runs")[0] == first
    (tmp_path / "runs/seed_1/steps.json").unlink()
    assert try_claim(claim, path, 1, tmp_path / "runs")[0] == first, "the students are there"
    assert os.stat(trained).st_mtime_ns == before
    with (tmp_path / "runs/steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1", "2", "mean", "+-"]
    assert float(rows[2]["many"]) == pytest.approx((float(rows[0]["many"]) + float(rows[1]["many"])) / 2, abs=1e-4)


BASE = "back_00000000000000000000+cls_000222222+reg_000222222_ops_20"
SEARCH = """
claim: What is searched beats the rest.
search: {{rival: {rival}, judge: [scene 1], limit_ms: 1.5, side: 160, trials: 6, population: 3, count: 3}}
measured_pairs: 4
architecture: {base}
method: supernet
windows: [160]
steps: 1
pairs_count: 2
batch_size: 2
workers: 0
data: {{videos: {videos}, held_out: [scene 1, scene 2]}}
pairs: {{video: 1, photo: 0, patch: 0, absent: 0}}
teacher: {{architecture: {base}}}
"""


@pytest.mark.parametrize("rival", ["random", "mmacs"])
def test_a_search_is_judged_on_videos_that_it_did_not_see(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, rival: str
) -> None:
    """Time is made up: 0.1 ms a layer."""

    def measured(supernet: Supernet, *_: object) -> LatencyModel:
        names = [*supernet.layers, *(f"{name} @8" for name in supernet.layers)]
        return LatencyModel(dict.fromkeys(names, 0.1), 1.0, 0.0)

    asked: list[int] = []

    def accuracy(supernet: Supernet, path: str, pairs: Batch) -> float:
        asked.append(round(pairs.search.float().sum().item()))
        return len(path) % 7 / 10 + layers(path).count("stem") / 100

    monkeypatch.setattr("lighttrack_ros.training.search.run.measure_latency", measured)
    monkeypatch.setattr("lighttrack_ros.training.search.latency.measure_paths", lambda *_: [1.0, 1.0])
    monkeypatch.setattr("lighttrack_ros.training.search.evolution.accuracy_of", accuracy)
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH.format(rival=rival, base=BASE, videos=videos))
    (outcome,) = try_claim(read_claim(path), path, 1, tmp_path / "runs")
    assert len(set(asked)) == 2, "one set of pairs to search on, another to judge on"
    if rival == "random":
        assert len(outcome.notes["random"]) == 3
        assert outcome.notes["ms"] <= 1.5
    else:
        assert outcome.notes["ms"] == [1.0, 1.0]
    assert (tmp_path / "runs/seed_1/search-ms.journal").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("claim: More steps beat fewer.", ""), "claim is missing"),
        (("[many, few]", "[many, none]"), r"expected two of the stages many, few"),
        (("compare: [many, few]", ""), "expected either compare or search"),
        (("compare: [many, few]", "search: {rival: luck}"), "rival is 'luck'"),
        (("steps: 6", "step: 6"), "unknown key 'step'|steps is missing"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "claim.yaml"
    path.write_text(CLAIM.format(videos="videos").replace(*change))
    with pytest.raises(LightTrackError, match=message):
        read_claim(path)


CLAIMS = sorted(Path(__file__).resolve().parents[2].glob("lighttrack_ros/training/recipes/claims/*.yaml"))


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_committed_claims_are_well_formed(path: Path) -> None:
    claim = read_claim(path)
    assert claim.claim.endswith(".")
    if claim.search is not None:
        assert set(claim.search.judge) < set(claim.stages["data"]["held_out"])


def test_rivals_take_as_long() -> None:
    times = {"a": 1.0, "b": 1.04, "c": 1.2, "d": 0.96}

    def draw(rng: np.random.Generator) -> str:
        return str(rng.choice(list(times)))

    found = _paths_of_time(draw, times.__getitem__, 1.0, 30, np.random.default_rng(0))
    assert set(found) == {"a", "b", "d"}
    with pytest.raises(LightTrackError, match="only 0 of 20000 random paths"):
        _paths_of_time(draw, times.__getitem__, 3.0, 1, np.random.default_rng(0))
