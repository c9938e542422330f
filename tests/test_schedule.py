"""Learning rate and language probabilities, step by step."""

import math

import pytest

from schedule import decay_start, language_probabilities, learning_rate


def test_the_learning_rate_warms_up_linearly_and_falls_along_a_cosine():
    for step, rate in ((0, 6e-4 / 500), (249, 3e-4), (500, 6e-4), (18264, 6e-6)):
        assert learning_rate(step, 18265) == pytest.approx(rate, rel=1e-3)
    for part in (1 / 2, 1 / 4):
        height = (1 + math.cos(math.pi * part)) / 2
        step, rate = 500 + (18265 - 500) * part, 6e-6 + (6e-4 - 6e-6) * height
        assert learning_rate(step, 18265) == pytest.approx(rate)
    assert learning_rate(99, 100) == pytest.approx(6e-4 / 5)  # a run within the warm-up


def test_runs_of_a_constant_rate_are_the_same_until_they_fall():
    short, long = (
        [learning_rate(s, n, shape='wsd', warmup_steps=10) for s in range(n)] for n in (100, 200)
    )
    assert short[:80] == long[:80] and short[80] == 6e-4 and short[81] < 6e-4
    assert decay_start(100) == 80 and short[99] == pytest.approx(6e-6 + (6e-4 - 6e-6) / 20)


def test_stages_are_equally_long_and_switch_at_once():
    stages = [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]
    seen = [language_probabilities(step, 18265, stages) for step in range(18265)]
    for stage, row in enumerate(stages[:2]):
        assert seen.count(tuple(row)) in (4566, 4567)
        assert seen.index(tuple(row)) == math.ceil(stage * 18265 / 4)
    two = [[1.0, 0.0], [0.0, 1.0]]
    assert [language_probabilities(step, 10, two) for step in (4, 5)] == [*map(tuple, two)]
