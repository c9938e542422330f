"""Perplexity, from the scores of single tokens up to the script; opening a finished run."""

import json
import math
import shutil

from lib.configurator import ConfigError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, in_process, new_run, refused, tiny_model, works

from data import build_languages
from evaluate import load_run, perplexity, table, window_losses
from lib.tokenizer import DOCUMENT_END
from model import GPTConfig


@pytest.fixture
def clones(made_once):
    """A model, and the second of two clones."""
    languages, rows = build_languages(['en', 'en'], ['en1', 'en2'], root=made_once / 'data')
    return tiny_model(rows), languages[1]


def losses_one_by_one(model, language, last_n):
    """[(loss, document)] of every scored token, each position by hand."""
    test = np.asarray(language.corpus.test).astype(int)
    ids, T, scored = language.table[test], model.config.block_size, []
    for start in range(0, len(ids) - T, last_n):
        with torch.no_grad():
            logits = model(torch.from_numpy(ids[start : start + T].astype(np.int64))[None])[0]
        for position in range(T - last_n, T):
            target = start + position + 1
            loss = F.cross_entropy(logits[position], torch.tensor(int(ids[target])))
            scored.append((loss.item(), (test[:target] == DOCUMENT_END).sum()))
    return scored


def test_perplexity_bits_and_error_are_those_of_the_tokens_one_by_one(clones):
    model, language = clones
    scored, score = losses_one_by_one(model, language, 4), perplexity(model, language)
    assert score['windows'] == (len(language.corpus.test) - 1 - 16) // 4 + 1
    losses, documents = (np.array(column) for column in zip(*scored))
    assert score['scored_tokens'] == len(losses) and score['documents'] == len(set(documents))
    assert score['loss'] == pytest.approx(losses.mean(), rel=1e-5)
    assert score['ppl'] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    per_byte = language.corpus.info['test']['tokens'] / language.corpus.info['test']['bytes']
    assert score['bits_per_byte'] == pytest.approx(losses.mean() / math.log(2) * per_byte, 1e-5)
    rng, of = np.random.default_rng(0), [losses[documents == d] for d in np.unique(documents)]
    resampled = []  # the standard error against a bootstrap over documents
    for _ in range(2000):
        chosen = [of[number] for number in rng.integers(len(of), size=len(of))]
        resampled.append(np.concatenate(chosen).mean())
    error = pytest.approx(np.std(resampled), rel=0.35)  # of few documents a bootstrap is low
    assert score['loss_se'] == error and score['ppl_se'] == score['ppl'] * score['loss_se']
    shown = table({'en2': score | dict(ppl_se=None)}).splitlines()[-1].split()
    assert shown[:3] == ['en2', f'{score["ppl"]:.2f}', '-']


def test_fewer_windows_are_spread_over_the_whole_test_set(clones):
    whole, part = perplexity(*clones), perplexity(*clones, max_windows=40)
    assert part['scored_tokens'] == 40 * 4
    assert part['documents'] > 1 and abs(part['loss'] - whole['loss']) < 0.3


@pytest.mark.parametrize('order', ['', 'reversed', 'shuffled_4', 'scrambled_4'])
def test_a_token_is_scored_once_and_for_the_document_that_it_is_in(made_once, order):
    root = made_once / 'data'
    (language,), rows = build_languages(['en'], ['en'], orders=[order], root=root)
    model, test = tiny_model(rows), np.asarray(language.corpus.test)
    losses, starts = window_losses(model, language.ids(test), 4)
    place = language.positions(len(test))[starts[:, None] + 13 + np.arange(4)]
    assert len(np.unique(place)) == place.size > len(test) - 20
    document = (np.cumsum(test == DOCUMENT_END) - (test == DOCUMENT_END))[place.ravel()]
    score, count = perplexity(model, language), np.bincount(document)
    assert score['document_tokens'] == count[count > 0].tolist()
    total = np.bincount(document, losses.ravel())[count > 0]
    assert score['document_loss'] == pytest.approx(total, abs=1e-2)


def test_flops_are_six_a_parameter_and_the_attention():
    model = tiny_model(100)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    read_only = model.wte.weight.numel() + model.wpe.weight.numel()
    attention = 12 * 2 * 24 * 16  # layers, width, tokens
    assert model.config.flops_per_token() == 6 * (matrices - read_only) + attention


BAD = {'out_dir=': 'out_dir', 'out_dir=out/nothing': 'out/nothing', 'last_n=33': 'last_n'}
BAD |= {'dtype=int8': 'dtype', 'batch_size=-1': 'batch_size'}


@pytest.mark.parametrize('bad, word', BAD.items())
def test_bad_settings_are_one_sentence(made_once, tiny_run, bad, word):
    refused(in_process('evaluate', '--out_dir=out/tiny', f'--{bad}', cwd=made_once), word)


def test_a_short_evaluation_has_its_own_file_and_foreign_files_are_ignored(workplace, tiny_run):
    out = shutil.copytree(tiny_run, workplace / 'out/tiny')
    (out / 'checkpoint_best.pt').write_bytes(b'a file of the user')
    for args in ([], ['--max_windows=5']):
        works('evaluate', '--out_dir=out/tiny', *args)
    found = [json.loads((out / f'evaluation{part}.json').read_text()) for part in ('', '_5')]
    assert [scores['en1']['windows'] for scores in found] == [found[0]['en1']['windows'], 5]


def moved(run, place):
    """A copy of a run and its corpora in another place."""
    shutil.copytree(run.parents[1] / 'data', place / 'data')
    return shutil.copytree(run, place / 'out/tiny')


def test_a_run_opens_from_any_working_directory(tiny_run, tmp_path, monkeypatch):
    out = moved(tiny_run, tmp_path / 'project')
    (tmp_path / 'else').mkdir()
    monkeypatch.chdir(tmp_path / 'else')
    for path in (out, '../project/out/tiny'):
        model, languages, state = load_run(path)
        assert languages[0].corpus.folder == tmp_path / 'project/data/en'
    shutil.move(tmp_path / 'project/data', tmp_path / 'corpora')
    with pytest.raises(ConfigError, match=f'{tmp_path}/project/data.*data_dir'):
        load_run(out)
    assert load_run(out, '../corpora')[0].config == model.config
    assert state['step'] == 20 and not model.training


def test_languages_that_a_run_never_read_come_last(workplace):
    new_run(workplace, 'r', stages=[[0.0, 1.0]])
    _, languages, _ = load_run(workplace / 'out/r', workplace / 'data')
    assert [language.name for language in languages] == ['en2', 'en1']


def test_a_corpus_under_another_name_is_recognised(tiny_run, tmp_path, monkeypatch):
    out = moved(tiny_run, tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.move('data/en', 'data/english')
    for folder in (None, 'data/fr'):  # nothing, or another corpus, has its name
        if folder:
            shutil.copytree(folder, 'data/en')
        with pytest.raises(ConfigError, match=f'{tmp_path}/data/english'):
            load_run('out/tiny')
        (out / 'results.json').unlink(missing_ok=True)
        args = '--max_steps=20', '--out_dir=out/tiny'
        refused(in_process('train', *TINY, *args, cwd=tmp_path), 'data/english')


def test_data_dir_is_where_the_corpora_are(workplace):
    (workplace / 'data').rename(workplace / 'corpora')
    args = [*TINY, '--max_steps=5', '--out_dir=out/r']
    refused(in_process('train', *args), workplace / 'data')
    for script, more in (('train', args), ('evaluate', ['--out_dir=out/r', '--device=cpu'])):
        works(script, *more, '--data_dir=corpora')
    works('evaluate', '--out_dir=out/r', '--device=cpu')  # the run remembers its own


def test_a_model_of_other_code_is_refused(tiny_run, monkeypatch):
    monkeypatch.chdir(tiny_run.parents[1])
    monkeypatch.setattr('evaluate.GPTConfig', lambda **shape: GPTConfig(**shape | dict(n_layer=1)))
    with pytest.raises(ConfigError, match='out/tiny.*blocks.1'):
        load_run('out/tiny')
