"""What the tests share: scripts run as a user runs them, on text that is made up here."""

import contextlib
import importlib
import io
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from lib.configurator import defaults_of, read_settings, run

import numpy as np
import pytest
import torch

import train
from data import build_languages
from evaluate import corpora_identity
from lab.languini import load_languini
from lib.checkpoint import save_checkpoint
from lib.machine import Processes
from lib.runs import full_settings
from model import GPT, GPTConfig

# Arguments of train.py for a run of a moment, of two clones; later ones of the same name win.
TINY = (
    '--size= --n_layer=2 --n_head=2 --head_dim=8 --n_embd=16 --mlp_dim=32 --block_size=32 '
    '--batch_size=8 --learning_rate=1e-2 --warmup_steps=4 --compile=False --eval_interval=0 '
    '--corpora=[en,en] --languages=[en1,en2] --device=cpu'
).split()
TINY_CONFIG = ''.join(  # the same as a config file
    f'{name} = {value!r}\n' for name, value in read_settings(train.__file__, TINY)[2].items()
)


def script(name, *args, cwd='.', env=None):
    """The CompletedProcess of `python REPO/NAME.py ARGS`, or `python -m lab.NAME ARGS`."""
    called = ['-m', name] if str(name).startswith('lab.') else [str(REPO / f'{name}.py')]
    command = [sys.executable, *called, *map(str, args)]
    how = dict(cwd=cwd, env=environment(**(env or {})), timeout=300)
    return subprocess.run(command, text=True, capture_output=True, **how)


def in_process(name, *args, cwd='.', **settings):
    """As `script`, in this process, which has imported torch: seconds quicker. settings: further
    arguments, --name=value."""
    module, out, err, code = importlib.import_module(name), io.StringIO(), io.StringIO(), 0
    args += tuple(f'--{key}={value}' for key, value in settings.items())
    before = {key: vars(module)[key] for key in defaults_of(module.__file__)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    argv = mock.patch.object(sys, 'argv', [f'{name}.py', *map(str, args)])
    with argv, contextlib.chdir(cwd):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run(vars(module), module.main)
            except SystemExit as stop:
                code = stop.code
            finally:
                vars(module).update(before)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def works(name, *args, **more):
    """As `in_process`, of a script that has to succeed."""
    done = in_process(name, *args, **more)
    assert done.returncode == 0, done.stderr
    return done


def environment(**more):
    """os.environ for a script that shall use one core of a machine that others use too."""
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO), **more}


def refused(done, *words):
    """A script failed with one sentence that has `words` in it, no traceback; returns it."""
    assert done.returncode == 1, done.stdout
    assert 'Traceback' not in done.stderr, done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert str(word) in sentence, (word, sentence)
    return sentence


def invented_words(seed, count=300):
    """A vocabulary of different words of two to four syllables, the same for the same seed."""
    rng, words = random.Random(seed), {}
    while len(words) < count:
        length = range(rng.randint(2, 4))
        syllables = (rng.choice('bdfgklmnprstvz') + rng.choice('aeiou') for _ in length)
        words[''.join(syllables)] = True
    return list(words)


def pseudo_text(words, length, rng):
    """About `length` words in sentences and lines; word r has probability 1 / (r + 1) (Zipf)."""
    weights = [1 / (rank + 1) for rank in range(len(words))]
    drawn, text = rng.choices(words, weights, k=length), []
    while drawn:
        size = rng.randint(5, 15)
        sentence, drawn = drawn[:size], drawn[size:]
        text.append(' '.join(sentence).capitalize() + rng.choice(['. ', '. ', '.\n']))
    return ''.join(text).strip() + '\n'


def write_documents(folder, count, length=300, words=None, seed=0):
    """Writes `count` documents of pseudo-text, folder/0000.txt and on; the first do not depend on
    `count`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = words or invented_words(0)
    for number in range(count):
        text = pseudo_text(words, length, random.Random(f'{seed} {number}'))
        (folder / f'{number:04}.txt').write_text(text, encoding='utf-8')
    return folder


@pytest.fixture(autouse=True)
def one_core():
    """Models this small are slower on several cores, and far slower on cores that are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def made_once(tmp_path_factory):
    """A folder with data/en and data/fr, made by prepare.py with 500 pieces each.

    Each has about 70,000 tokens; half of the words are the same. To be read only, see
    `workplace`."""
    root = tmp_path_factory.mktemp('corpora')
    english, french = invented_words(1), invented_words(2)
    for name, words in dict(en=english, fr=english[0::2] + french[1::2]).items():
        text = write_documents(root / f'text_{name}', 100, words=words, seed=name)
        works('prepare', f'--corpus={name}', f'--source={text}', '--vocab_size=500', cwd=root)
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder of one's own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def workplace(made_once, here):
    """A folder of one's own to run scripts in, with data/en and data/fr; the current one."""
    shutil.copytree(made_once / 'data', here / 'data')
    return here


SMALL = dict(n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072)  # Section 3
SMALL |= dict(block_size=512, vocab_size=32768)


def write_run(folder, name, stages, ppl, model=SMALL, documents=(), more=None, **settings):
    """Writes folder/NAME/results.json as train.py does; `ppl`: (tokens seen, index) -> perplexity.

    documents: errors of the log perplexity of each document; more: entries of each language; the
    rest are settings of train.py. A control (only=LANGUAGE) has the tokens of its language."""
    defaults = dict(stages=stages, corpora=['books_en', 'books_en'], languages=['en1', 'en2'])
    settings = defaults | dict(max_steps=18265) | settings
    corpora, languages, only = settings['corpora'], settings['languages'], settings.get('only', '')
    results = dict(run=name, settings=settings, model=model, languages={})
    for i, (language, corpus, shares) in enumerate(zip(languages, corpora, zip(*stages))):
        seen = settings['max_steps'] * 128 * 512 * sum(shares) / len(stages)
        if only in ('', language):
            value = float(ppl(seen, i))
            loss = [10 * (math.log(value) + error) for error in documents]
            about = dict(corpus=corpus, tokenizer='abcdef0123', tokens_seen=int(seen), ppl=value)
            about |= dict(tokens_read=int(seen * max(1, settings.get('epochs', 1))))
            about |= dict(ppl_se=0.1, document_loss=loss, document_tokens=[10] * len(loss))
            results['languages'][language] = about | (more or {})
    results |= dict(steps=settings['max_steps'], wall_time_s=5400.0, device='a machine')
    results |= dict(dtype='bfloat16', commit='0123456789ab')
    path = folder / name / 'results.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results))
    return results


@pytest.fixture(scope='session')
def tiny_run(made_once):
    """The folder of a finished run of TINY that kept a checkpoint; to be read only."""
    args = '--max_steps=20', '--keep_checkpoints=[10]', '--out_dir=out/tiny'
    works('train', *TINY, *args, cwd=made_once)
    return made_once / 'out/tiny'


def tiny_model(rows, block_size=16):
    """A GPT with so many embedding rows, and weights that tell them apart."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(2, 3, 8, 20, 44, block_size, rows))
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.eval()


@pytest.fixture
def training_of(monkeypatch, made_once, tmp_path):
    """training_of(setting=value, ...): a Training of TINY in float32, in this process."""
    monkeypatch.chdir(made_once)

    def call(**settings):
        given = [f'--{name}={value}' for name, value in settings.items()]
        args = [*TINY, '--max_steps=30', '--dtype=float32', *given]
        values, *_ = read_settings(train.__file__, args)
        for name, value in values.items():
            monkeypatch.setattr(train, name, value)
        train.check_settings()
        return train.Training(values, tmp_path / 'none', Processes('cpu'))

    return call


@pytest.fixture(scope='session')
def reference():
    """{name: array} of reference.npz: what the paper's own code computes, in float32, with a
    random model of 3 blocks, 122 embedding rows (two clones of 61) and 32 positions.

    weights: of the tensors `names`, flat. x, y (2, 32): their loss, logits and residual stream
    `hidden` after each block, of every fourth position; the norm of the loss's gradient for each
    tensor, and about 128 elements of it (`gradients`). Five sequences in both clones (clone_l1,
    clone_l2) and five pairs of unequal length (match_l1, match_l2): the cosine of hidden states
    (3, 5) and of gradients for each tensor (53, 5). The loss of `stream`, summed over the last
    stream_last_n targets of windows that move by as much."""
    arrays = dict(np.load(Path(__file__).with_name('reference.npz')))
    arrays = {k: a.astype(np.int64) if a.dtype == np.uint8 else a for k, a in arrays.items()}
    for kind in ('clone_grad_sims', 'match_grad_sims'):
        for name, similarities in zip(arrays['names'], arrays[kind]):
            arrays[f'{kind}/{name}'] = similarities
    return arrays


def languini_name(name):
    """The name that the paper's code gives to one of our tensors."""
    name = re.sub(r'attn\.(.)', lambda letter: f'attn.linear_{letter[1].upper()}', name)
    name = name.replace('blocks', 'layers').replace('head', 'linear').replace('mlp.', 'mlp.c_')
    return name.replace('wte', 'input_embedding').replace('wpe', 'position_embedding')


@pytest.fixture(scope='session')
def reference_model(reference):
    shape = json.loads(str(reference['config']))
    shape.pop('base_vocab_size')
    model = GPT(GPTConfig(**shape))
    parameters = [dict(model.named_parameters())[name] for name in reference['names']]
    flat = torch.from_numpy(reference['weights']).split([p.numel() for p in parameters])
    theirs = ('module._orig_mod.' + languini_name(name) for name in reference['names'])
    tensors = (values.view(p.shape) for values, p in zip(flat, parameters))
    return load_languini(model, dict(zip(theirs, tensors)))


def new_run(folder, name, **more):
    """The run folder/out/NAME before its first step, of two clones or as the settings `more` say,
    on the corpora in folder/data. Returns its languages."""
    settings = dict(corpora=['en', 'en'], languages=['en1', 'en2'], out_dir=f'out/{name}') | more
    rare = len(settings['languages']) - 1
    settings = full_settings(dict(stages=[[0.9] + [0.1 / rare] * rare]) | settings)
    names = ('corpora', 'languages', 'vocabulary', 'cloned_fraction', 'seed', 'orders')
    languages, rows = build_languages(*(settings[name] for name in names), folder / 'data')
    shape = dict(n_layer=2, n_head=2, head_dim=8, n_embd=16, mlp_dim=32, block_size=32)
    torch.manual_seed(0)
    config = GPTConfig(**shape | {k: v for k, v in more.items() if k in shape}, vocab_size=rows)
    model = GPT(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)  # no bias is zero
    about = dict(settings=settings, corpora=corpora_identity(languages), model_config=vars(config))
    (folder / 'out' / name).mkdir(parents=True)
    save_checkpoint(folder / 'out' / name, about | dict(step=0, model=model.state_dict()))
    return languages
