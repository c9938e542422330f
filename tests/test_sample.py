"""sample.py: drawing from a model with a cache, and telling which language is spoken."""

import numpy as np
import pytest
import torch
from conftest import refused, script

import sample
from data import build_languages
from model import GPT, GPTConfig

TINY = '--size= --n_layer=2 --n_head=2 --head_dim=8 --n_embd=16 --mlp_dim=32 --block_size=32'
TINY += ' --batch_size=8 --warmup_steps=1 --max_steps=3 --compile=False --eval_interval=0'
TINY += ' --final_windows=2 --corpora=[en,en] --languages=[en1,en2] --device=cpu --out_dir=out/r'


@pytest.fixture(scope='module')
def place(made_once, tmp_path_factory):
    """A folder with a run out/r that has hardly begun: it draws pieces of both languages."""
    folder = tmp_path_factory.mktemp('sample')
    (folder / 'data').symlink_to(made_once / 'data')
    done = script('train', *TINY.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = dict(n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=16)
    model = GPT(GPTConfig(**shape, vocab_size=53)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model


def draw(model, ids, count, **settings):
    for name, value in settings.items():
        setattr(sample, name, value)
    never = torch.zeros(53, dtype=torch.bool)
    never[:4] = True
    return sample.generate(model, ids, count, never, torch.Generator().manual_seed(0))


def test_logits_with_a_cache_equal_those_without(model):
    ids, cache = torch.randint(1, 53, (3, 16)), model.new_cache()
    with torch.no_grad():
        parts = [model(ids[:, :5], cache=cache)]
        parts += [model(ids[:, i : i + 1], cache=cache) for i in range(5, 16)]
        assert torch.allclose(torch.cat(parts, 1), model(ids), atol=1e-5)
        with pytest.raises(
            ValueError, match='a sequence of 17 tokens is longer than block_size 16'
        ):
            model(ids[:, :1], cache=cache)


def test_the_likeliest_entries_follow_also_when_the_window_is_full(model):
    ids = torch.randint(1, 53, (2, 6))
    drawn = draw(model, ids, 40, top_k=1, temperature=1.0)
    assert drawn.shape == (2, 46) and torch.equal(drawn[:, :6], ids)
    for end in range(6, 46):
        begin = max(0, (end - 8) // 9 * 9)  # of a full window 8 tokens stay
        with torch.no_grad():
            logits = model(drawn[:, begin:end])[:, -1]
        logits[:, :4] = -torch.inf
        assert torch.equal(drawn[:, end], logits.argmax(1)), end


def test_temperature_and_top_k_draw_as_they_say(model):
    ids = torch.randint(1, 53, (1, 4)).repeat(20000, 1)
    logits = model(ids[:1])[0, -1].detach()
    logits[:4] = -torch.inf
    for top_k, temperature in ((0, 1.0), (5, 2.0)):
        drawn = draw(model, ids, 1, top_k=top_k, temperature=temperature)[:, -1]
        kept = logits.topk(top_k or 49).indices
        expected = torch.zeros(53).index_add(0, kept, (logits[kept] / temperature).softmax(0))
        shares = torch.bincount(drawn, minlength=53) / 20000
        assert (shares - expected).abs().max() < 0.015 and not shares[expected == 0].any()


def test_a_shared_entry_counts_for_the_language_that_is_spoken(workplace):
    en1, en2 = build_languages(
        ['en', 'en'], ['en1', 'en2'], cloned_fraction=0.5, root=workplace / 'data'
    )[0]
    pieces = en1.corpus.load_tokenizer()
    cloned = np.flatnonzero(en1.table != en2.table)
    words = [t for t in range(260, 500) if pieces.id_to_piece(t).startswith('\u2581')]
    own, shared = [t for t in words if t in cloned][0], [t for t in words if t not in cloned][0]
    ids = [en1.table[own], en1.table[shared], en2.table[own], en2.table[shared], en1.table[own]]
    pairs = sample.spoken([int(i) for i in ids], [en1, en2], 0)
    assert pairs == [(0, own), (0, shared), (1, own), (1, shared), (0, own)]
    a, b = (pieces.id_to_piece(t)[1:] for t in (own, shared))
    names, both = ['en1', 'en2'], [pieces, pieces]
    assert sample.marked(pairs, names, both, 0, False) == f'{a} {b} [en2: {a} {b}] {a}'
    assert sample.marked(pairs, names, both, 1, False) == f'[en1: {a} {b}] {a} {b} [en1: {a}]'
    assert sample.marked(pairs, names, both, 0, True) == f'{a} {b} \033[32m{a} {b}\033[0m {a}'
    ended = [(0, own), (0, 2), (1, own)]
    assert sample.marked(ended, names, both, 0, False) == f'{a}\n\n [en2: {a}]'


def test_a_text_is_continued_the_same_for_the_same_seed_and_marked(place):
    args = ['--out_dir=out/r', '--language=en2', '--num_samples=2', '--max_new_tokens=70']
    args += ['--device=cpu', '--temperature=1.5', '--top_k=0']
    (place / 'prompt.txt').write_text('Papa\n')
    texts = []
    for more in (['--prompt=Papa'], ['--start=prompt.txt'], ['--prompt=Papa', '--seed=1']):
        done = script('sample', *args, *more, cwd=place)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1] != texts[2]
    first, second, shares = texts[0].split('-' * 20 + '\n')
    assert first != second and first.startswith('Papa') and second.startswith('Papa')
    assert '[en1: ' in first and '[en2: ' not in first and '\033' not in first
    counted = [float(word.rstrip('%,\n')) for word in shares.split(' ') if '%' in word]
    assert shares.startswith('languages of the 140 new tokens: en1 ')
    assert sum(counted) == pytest.approx(100, abs=0.2) and min(counted) > 10


@pytest.mark.parametrize(
    'args, words',
    [
        (['--prompt= '], ['the prompt has 0 tokens', '1 to 32']),
        (['--prompt=' + 'word ' * 40], ['the prompt has', '1 to 32']),
        ([], ['--prompt=TEXT']),
        (['--start=nowhere.txt'], ['nowhere.txt']),
        (['--prompt=Papa', '--language=fr'], ["no language 'fr'", 'en1, en2']),
        (['--prompt=Papa', '--out_dir=out/none'], ['no run in out/none', 'python train.py CONFIG']),
        (['--prompt=Papa', '--temperature=0'], ['temperature']),
    ],
)
def test_what_cannot_be_continued_is_refused(place, args, words):
    refused(script('sample', '--out_dir=out/r', '--device=cpu', *args, cwd=place), *words)
