"""sample.py: drawing from a model, and showing which language it speaks."""

import numpy as np
import pytest
import torch
from conftest import in_process, new_run, refused, tiny_model

import sample
from data import build_languages


def draw(monkeypatch, model, idx, count, top_k, temperature):
    """New tokens, of which 0 to 3 are not allowed."""
    torch.manual_seed(0)
    for name, value in dict(max_new_tokens=count, top_k=top_k, temperature=temperature).items():
        monkeypatch.setattr(sample, name, value)
    return sample.generate(model, idx, torch.arange(4, 53))


@pytest.mark.parametrize('settings', [(1, 0.8), (0, 0.0)])
def test_the_most_likely_tokens_follow_also_when_the_window_is_full(monkeypatch, settings):
    model, idx = tiny_model(53), torch.randint(1, 53, (2, 6))
    drawn = draw(monkeypatch, model, idx, 30, *settings)
    assert drawn.shape == (2, 36) and torch.equal(drawn[:, :6], idx)
    for end in range(6, 36):
        logits = model(drawn[:, max(0, end - 16) : end])[:, -1]
        assert torch.equal(drawn[:, end], 4 + logits[:, 4:].argmax(1))


@pytest.mark.parametrize('top_k, temperature', [(0, 1.0), (5, 2.0)])
def test_temperature_and_top_k_shape_the_distribution(monkeypatch, top_k, temperature):
    model, idx = tiny_model(53), torch.randint(1, 53, (1, 4)).repeat(20000, 1)
    kept = model(idx[:1])[0, -1, 4:].detach().topk(top_k or 49)
    chances = (kept.values / temperature).softmax(0)
    drawn = draw(monkeypatch, model, idx, 1, top_k, temperature)[:, -1]
    shares = torch.bincount(drawn, minlength=53) / 20000
    assert (shares[4 + kept.indices] - chances).abs().max() < 0.015
    assert shares[4 + kept.indices].sum() == pytest.approx(1)


def test_a_shared_row_counts_as_the_language_that_is_spoken(workplace):
    half = build_languages(['en', 'en'], ['en1', 'en2'], 'disjoint', 0.5, root=workplace / 'data')
    en1, en2 = half[0]
    pieces, cloned = en1.corpus.load_tokenizer(), en1.table != en2.table
    words = [t for t in range(260, 500) if pieces.spelling(t).startswith('\u2581')]
    own, shared = [t for t in words if cloned[t]][0], [t for t in words if not cloned[t]][0]
    idx = [en1.table[own], en1.table[shared], en2.table[own], en2.table[shared], en1.table[own]]
    pairs = list(sample.spoken(map(int, idx), [en1, en2], 0))
    assert pairs == [(0, own), (0, shared), (1, own), (1, shared), (0, own)]
    a, b = (pieces.spelling(t)[1:] for t in (own, shared))
    about = ['en1', 'en2'], [pieces, pieces]
    assert sample.marked(pairs, *about, 0) == f'{a} {b} [en2: {a} {b}] {a}'
    assert sample.marked(pairs, *about, 1) == f'[en1: {a} {b}] {a} {b} [en1: {a}]'
    assert sample.marked([(0, own), (0, 2), (1, own)], *about, 0) == f'{a}\n\n[en2: {a}]'
    tokens = np.random.default_rng(0).integers(259, 500, 300).tolist()  # a space where the text has
    text = sample.marked([(i % 7 // 4, t) for i, t in enumerate(tokens)], *about, 0)
    assert text.replace('[en2: ', '').replace(']', '') == pieces.decode(tokens)


def test_a_text_is_continued_the_same_for_the_same_seed_or_refused(workplace):
    new_run(workplace, 'r')  # not trained: it draws tokens of both languages
    new_run(workplace, 'o', orders=['', 'reversed'])
    given = dict(out_dir='out/r', num_samples=2, max_new_tokens=70, top_k=0, language='en2')
    texts = [in_process('sample', '--prompt=Papa', **given, seed=n).stdout for n in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    first, second, shares = texts[0].split('-' * 20 + '\n')
    assert first != second and first.startswith('Papa') and second.startswith('Papa')
    assert '[en1: ' in first and '[en2: ' not in first and '140 new tokens: en1 ' in shares
    counted = [float(word.rstrip('%,\n')) for word in shares.split(' ') if '%' in word]
    assert sum(counted) == pytest.approx(100, abs=0.2) and min(counted) > 10
    for name, *arguments in (
        ('prompt', '--prompt=' + 'word ' * 40),
        ("language='fr'", '--language=fr'),
        ('out/none', '--out_dir=out/none'),
        ('out_dir', '--out_dir='),
        ('temperature', '--temperature=-1'),
        ('num_samples', '--num_samples=0'),
        ('reversed', '--out_dir=out/o', '--language=en2'),
    ):
        refused(in_process('sample', '--out_dir=out/r', *arguments), name)
