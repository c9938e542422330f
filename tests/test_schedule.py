"""Learning rate and language probabilities, step by step."""

import math

import pytest

from schedule import decay_start, language_probabilities, learning_rate


def test_the_learning_rate_warms_up_linearly_and_falls_along_a_cosine():
    assert learning_rate(0, 18265) == pytest.approx(6e-4 / 500)
    assert learning_rate(249, 18265) == pytest.approx(3e-4)
    assert learning_rate(500, 18265) == pytest.approx(6e-4)
    middle = 500 + (18265 - 500) / 2
    assert learning_rate(middle, 18265) == pytest.approx((6e-4 + 6e-6) / 2)
    quarter = 500 + (18265 - 500) / 4
    assert learning_rate(quarter, 18265) == pytest.approx(
        6e-6 + (6e-4 - 6e-6) * (1 + math.cos(math.pi / 4)) / 2
    )
    assert learning_rate(18264, 18265) == pytest.approx(6e-6, rel=1e-3)


def test_runs_of_a_constant_rate_are_the_same_until_they_fall():
    short, long = (
        [learning_rate(s, n, shape='wsd', warmup_steps=10) for s in range(n)] for n in (100, 200)
    )
    assert short[:80] == long[:80] and short[80] == 6e-4 and short[81] < 6e-4
    assert decay_start(100) == 80 and short[99] == pytest.approx(6e-6 + (6e-4 - 6e-6) / 20)


def test_a_warm_up_longer_than_the_run_is_all_there_is():
    assert learning_rate(99, 100, warmup_steps=500) == pytest.approx(6e-4 / 5)


def test_stages_are_equally_long_and_switch_at_once():
    stages = [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]
    seen = [language_probabilities(step, 18265, stages) for step in range(18265)]
    for stage, row in enumerate(stages[:2]):
        assert seen.count(tuple(row)) in (4566, 4567)
        assert seen.index(tuple(row)) == math.ceil(stage * 18265 / 4)
    assert language_probabilities(5, 10, [[1.0, 0.0], [0.0, 1.0]]) == (0.0, 1.0)
    assert language_probabilities(4, 10, [[1.0, 0.0], [0.0, 1.0]]) == (1.0, 0.0)
