"""What the step alone decides: learning rate and language probabilities (Sections 3 and 4.5)."""

import math

from lib.runs import decay_start


def learning_rate(
    step, max_steps, peak=6e-4, floor=6e-6, warmup_steps=500, shape='cosine', decay_fraction=0.2
):
    """Learning rate of one step: linear warm-up to `peak`, then decay to `floor` at `max_steps`.

    step: 0 <= step < max_steps. shape 'cosine' decays over all steps after the warm-up (Section 3).
    'wsd' (warm-up, stable, decay) stays at the peak and decays linearly over the last
    `decay_fraction` of the run, so that runs of different length share their steps until then."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    start = warmup_steps
    if shape == 'wsd':
        start = max(warmup_steps, decay_start(max_steps, decay_fraction))
    done = min(1.0, max(0.0, (step - start) / max(1, max_steps - start)))
    if shape == 'cosine':
        done = (1 - math.cos(math.pi * done)) / 2
    return peak + (floor - peak) * done


def language_probabilities(step, max_steps, stages):
    """p(language) at a step (tuple of floats). stages: a row for each of equally long stages."""
    stage = min(len(stages) - 1, step * len(stages) // max_steps)
    return tuple(stages[stage])
