"""The evolution over a supernet's paths: NSGA-II on accuracy and time, in a file that machines share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.held_out import overlaps, surest_boxes
from lighttrack_ros.training.pairs import Batch
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.space import Space


@dataclass(frozen=True)
class Limits:
    """What a path may cost; None: no limit. Each is checked before a path's accuracy is measured."""

    ms: float | None = None
    mmacs: float | None = None
    parameters: float | None = None  # millions


@dataclass(frozen=True)
class Cost:
    """Of a path: ms a frame as predicted, millions of multiplications a frame, millions of parameters."""

    ms: float
    mmacs: float
    parameters: float

    def excess(self, limits: Limits) -> dict[str, float]:
        """By what share each limit is passed; not positive where it is kept."""
        given = asdict(limits)
        return {name: value / given[name] - 1 for name, value in asdict(self).items() if given[name] is not None}


@dataclass(frozen=True)
class Found:
    """A path that was tried and keeps the limits.

    Attributes:
        accuracy: see `accuracy_of`.
        front: none that was tried is both cheaper and more accurate.
    """

    path: str
    cost: Cost
    accuracy: float
    front: bool


def accuracy_of(supernet: Supernet, path: str, pairs: Batch) -> float:
    """Mean overlap of the best cell's box with the target's, over pairs whose search crop shows it; 0..1."""
    network = supernet.eval().network(path)
    return float(overlaps(lambda batch: surest_boxes(network, batch), pairs).mean())


def evolve(
    space: Space,
    cost: Callable[[str], Cost],
    accuracy: Callable[[str], float],
    limits: Limits,
    trials: int,
    journal: Path,
    population: int = 32,
    seed: int = 0,
    by: str = "ms",
) -> list[Found]:
    """Try paths until so many have been tried, by all processes that share the journal together.

    Args:
        cost, accuracy: of a path.
        journal: a file; what is in it already counts, and other machines may write it at the same time.
        population: paths a generation.
        by: the cost that is to be small: ms, mmacs or parameters.

    Returns:
        All paths within the limits, the cheapest first.

    Raises:
        LightTrackError: the journal is of another search, or no path that was tried keeps the limits.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    study = optuna.create_study(
        study_name=f"{space.base} {limits} by {by}",
        storage=JournalStorage(JournalFileBackend(str(journal))),
        sampler=optuna.samplers.NSGAIISampler(population_size=population, seed=seed),
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        path = space.path(lambda name, digits: str(trial.suggest_categorical(name, digits)))
        taken = cost(path)
        excess = taken.excess(limits)
        trial.set_user_attr("path", path)
        trial.set_user_attr("cost", [taken.ms, taken.mmacs, taken.parameters])
        for name, share in excess.items():
            trial.set_constraint(name, share)
        keeps = all(share <= 0 for share in excess.values())
        trial.set_user_attr("keeps", keeps)
        return asdict(taken)[by], accuracy(path) if keeps else 0.0

    while (tried := len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))) < trials:
        study.optimize(objective, n_trials=min(population, trials - tried))
    kept = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if trial.user_attrs["keeps"]:
            kept[trial.user_attrs["path"]] = (Cost(*trial.user_attrs["cost"]), trial.values[1])
    if not kept:
        raise LightTrackError(f"none of {tried} paths keeps {limits}: raise the limits or try more")
    best = -np.inf
    found = []
    for path, (taken, value) in sorted(kept.items(), key=lambda item: (asdict(item[1][0])[by], -item[1][1])):
        found.append(Found(path, taken, value, front=value > best))
        best = max(best, value)
    return found
