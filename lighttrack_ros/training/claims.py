"""Try whether a claim of the papers shows: the same comparison over several seeds, with its spread."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from lighttrack_ros import config
from lighttrack_ros.config import at_least, one_of
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.held_out import held_out_pairs, overlaps, student_boxes
from lighttrack_ros.training.recipe import Recipe, stages_of
from lighttrack_ros.training.train import train_stages

Count = Annotated[int, at_least(1)]


@dataclass(frozen=True)
class SearchSettings:
    """Of a claim about a search over the supernet that the stages train."""

    # "random": paths of the searched one's time; "mmacs": the path found under the multiplications that it takes
    rival: Annotated[str, one_of("random", "mmacs")]
    judge: tuple[str, ...]  # held-out videos on which paths are judged; on the other ones they are searched
    limit_ms: float  # of the searched path; of rival mmacs, the time at which both are compared
    side: Count = 160  # of the search crop
    trials: Count = 64  # paths that a search tries
    population: Count = 16
    count: Count = 10  # random paths
    rounds: Count = 20  # runs of what is timed


@dataclass(frozen=True)
class Claim:
    """What is claimed: that the first of two beats the second.

    Attributes:
        stages: the recipe's raw entries; see `recipe.stages_of`.
    """

    claim: str
    stages: dict[str, Any]
    compare: tuple[str, ...] = ()  # names of two stages whose students are compared
    search: SearchSettings | None = None  # instead of `compare`
    measured_pairs: Count = 384  # held-out ones, on which overlaps are taken


@dataclass(frozen=True)
class Outcome:
    """Of one seed: mean overlap of the first and of the second, and what else was measured."""

    seed: int
    first: float
    second: float
    notes: dict[str, Any]


def read_claim(path: Path) -> Claim:
    """Read a claim's file: a recipe with the entries `claim`, and `compare` or `search`.

    Raises:
        LightTrackError: an entry is missing or wrong.
    """
    data = config.load(path)
    own = {key: data.pop(key) for key in ("claim", "compare", "search", "measured_pairs") if key in data}
    claim = config.check(Claim, own, path, stages=data)
    if (claim.search is None) == (not claim.compare):
        raise LightTrackError(f"{path}: expected either compare or search")
    names = list(stages_of(data, path, Path()))
    if claim.compare and (len(claim.compare) != 2 or not set(claim.compare) <= set(names)):
        raise LightTrackError(f"{path}: compare is {claim.compare}, expected two of the stages {', '.join(names)}")
    return claim


def try_claim(claim: Claim, path: Path, seeds: int, output: Path, threads: int = 1) -> list[Outcome]:
    """Train and measure with seeds 1, 2, ...; a seed whose outcome is in `output` is not done again.

    Claims with stages in common share them if they share the folder.

    Args:
        path: of the claim's file; names its outcomes.

    Raises:
        LightTrackError: see `train.train_stages`.
    """
    outcomes = []
    for seed in range(1, seeds + 1):
        folder = output / f"seed_{seed}"
        kept = folder / f"{path.stem}.json"
        if kept.is_file():
            outcomes.append(Outcome(**json.loads(kept.read_text(encoding="utf-8"))))
            continue
        stages = {
            name: _in_folder(dataclasses.replace(recipe, seed=seed), folder)
            for name, recipe in stages_of(claim.stages, path, folder).items()
        }
        measure = _compared if claim.search is None else _searched
        outcome = measure(claim, stages, folder, seed, threads)
        kept.write_text(json.dumps(dataclasses.asdict(outcome), indent=1) + "\n", encoding="utf-8")
        outcomes.append(outcome)
    return outcomes


def verdict(outcomes: list[Outcome]) -> str:
    """Mean and standard deviation of the seeds' differences, and whether they show the claim."""
    differences = [outcome.first - outcome.second for outcome in outcomes]
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    ahead = sum(value > 0 for value in differences)
    mean = statistics.fmean(differences)
    shows = ahead == len(differences) > 1 and mean > spread
    words = "shows" if shows else "does not show at this scale"
    return f"difference {mean:+.4f} +- {spread:.4f}, ahead in {ahead} of {len(differences)} seeds: {words}"


def _in_folder(recipe: Recipe, folder: Path) -> Recipe:
    """With the cache of its pairs beside the run: other seeds draw other pairs."""
    cache = recipe.teacher.cache and str(folder / Path(recipe.teacher.cache).name)
    return dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, cache=cache))


def _compared(claim: Claim, stages: Mapping[str, Recipe], folder: Path, seed: int, threads: int) -> Outcome:
    train_stages(stages, folder, accelerator="cpu", threads=threads, validating=False)
    found = []
    for name in claim.compare:
        recipe = stages[name]
        pairs = held_out_pairs(recipe, recipe.pairs.search_size, claim.measured_pairs)
        found.append(float(overlaps(student_boxes(folder / name / "student.pt", recipe), pairs).mean()))
    return Outcome(seed, found[0], found[1], {})


def _searched(claim: Claim, stages: Mapping[str, Recipe], folder: Path, seed: int, threads: int) -> Outcome:
    from lighttrack_ros.training.search.evolution import Found, Limits, accuracy_of, evolve
    from lighttrack_ros.training.search.latency import Timing, measure_paths
    from lighttrack_ros.training.search.run import device_latency, path_cost, trained_supernet

    assert claim.search is not None
    settings = claim.search
    supernet, space, recipe, _ = trained_supernet(stages, folder, threads)
    timing = Timing(side=settings.side, rounds=settings.rounds)
    model = device_latency(supernet, space, timing, folder.parent)
    chosen = tuple(name for name in recipe.data.held_out if name not in settings.judge)

    def pairs_of(names: tuple[str, ...]) -> Any:
        data = dataclasses.replace(recipe.data, held_out=names, held_out_clips=())
        return held_out_pairs(dataclasses.replace(recipe, data=data), settings.side, claim.measured_pairs)

    search_pairs, judge_pairs = pairs_of(chosen), pairs_of(settings.judge)
    accuracies: dict[str, float] = {}  # both searches ask for some of the same paths

    def accuracy(path: str) -> float:
        if path not in accuracies:
            accuracies[path] = accuracy_of(supernet, path, search_pairs)
        return accuracies[path]

    def search(limits: Limits, by: str) -> Found:
        found = evolve(
            space, lambda path: path_cost(supernet, model, path, settings.side), accuracy, limits, settings.trials,
            folder / f"search-{by}.journal", settings.population, seed, by,
        )  # fmt: skip
        return max(found, key=lambda item: item.accuracy)

    def judged(path: str) -> float:
        return accuracy_of(supernet, path, judge_pairs)

    if settings.rival == "mmacs":
        # Under as many multiplications as paths of that time have on average; then as fast as what that finds.
        rng = np.random.default_rng(seed)
        near = _paths_of_time(space.random_path, model.predict, settings.limit_ms, settings.count, rng)
        mmacs = statistics.median(path_cost(supernet, model, path, settings.side).mmacs for path in near)
        by_work = search(Limits(mmacs=mmacs), "mmacs")
        by_time = search(Limits(ms=by_work.cost.ms), "ms")
        times = measure_paths(supernet, [by_time.path, by_work.path], timing)
        notes = {
            "ms": times, "mmacs": [by_time.cost.mmacs, by_work.cost.mmacs], "paths": [by_time.path, by_work.path]
        }  # fmt: skip
        return Outcome(seed, judged(by_time.path), judged(by_work.path), notes)
    best = search(Limits(ms=settings.limit_ms), "ms")
    rng = np.random.default_rng(seed)
    others = _paths_of_time(space.random_path, model.predict, best.cost.ms, settings.count, rng)
    values = [judged(path) for path in others]
    notes = {"ms": best.cost.ms, "path": best.path, "random": values}
    return Outcome(seed, judged(best.path), statistics.median(values), notes)


def _paths_of_time(
    draw: Callable[[np.random.Generator], str],
    predict: Callable[[str], float],
    ms: float,
    count: int,
    rng: np.random.Generator,
) -> list[str]:
    """Random paths whose predicted time is within 5 % of `ms`.

    Raises:
        LightTrackError: they are too rare.
    """
    found: list[str] = []
    for _ in range(20_000):
        path = draw(rng)
        if abs(predict(path) / ms - 1) < 0.05:
            found.append(path)
        if len(found) == count:
            return found
    raise LightTrackError(f"search: only {len(found)} of 20000 random paths take about {ms:.2f} ms; change limit_ms")
