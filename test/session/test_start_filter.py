"""The filter of the start: high where the target is, low beside it, on other frames too."""

import numpy as np
import pytest

from lighttrack_ros.session.start_filter import StartFilter
from lighttrack_ros.trackers.base import unit

SIDE, CHANNELS = 16, 24
MIDDLE = SIDE // 2


def scene(seed):
    """(n, n, channels): a target of 3 x 3 cells in the middle of a ground."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (SIDE, SIDE, CHANNELS)).astype(np.float32)
    target = np.random.default_rng(99).normal(0, 1, (3, 3, CHANNELS))
    features[MIDDLE - 1 : MIDDLE + 2, MIDDLE - 1 : MIDDLE + 2] = target + rng.normal(0, 0.2, target.shape)
    return features


def cells(features, row, column):
    """A candidate's patch, as `Sight` has it: the centre is its third row and column."""
    patch = features[row - 2 : row + 2, column - 2 : column + 2]
    return unit(patch.reshape(1, 16, CHANNELS))


@pytest.fixture(scope="module")
def start_filter():
    maps = [scene(seed).transpose(2, 0, 1) for seed in (0, 1)]
    return StartFilter(np.stack(maps).astype(np.float16))


def test_the_target_answers_and_its_surroundings_do_not_on_another_frame_too(start_filter):
    for seed in (0, 2):
        features = scene(seed)
        target = start_filter.answers(cells(features, MIDDLE, MIDDLE))[0]
        places = [(row, column) for row in (3, 6, 12) for column in (3, 6, 12) if (row, column) != (6, 6)]
        others = start_filter.answers(np.concatenate([cells(features, *place) for place in places]))
        assert target > 0.5
        assert others.max() < target - 0.25


def test_an_answer_is_the_best_of_the_places_at_a_candidates_middle(start_filter):
    features = scene(0)
    away = [start_filter.answers(cells(features, MIDDLE + down, MIDDLE))[0] for down in (-1, 0, 1, 2)]
    assert away[1] == away[2]  # the middle of the target is one of the four places of both
    assert away[1] > max(away[0], away[3]) + 0.2


def test_answers_hold_for_any_lighting(start_filter):
    features = scene(2)
    dark, bright = (start_filter.answers(cells(scale * features, MIDDLE, MIDDLE)) for scale in (1, 5))
    np.testing.assert_allclose(dark, bright, rtol=1e-5)
