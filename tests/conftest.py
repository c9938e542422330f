"""What the tests share: scripts run as a user runs them, on text that is made up here."""
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

REPO = Path(__file__).resolve().parent.parent
REFERENCE = REPO.parent / 'shared' / 'reference' / 'languini_gpt.npz'
sys.path.insert(0, str(REPO))

from model import GPT, GPTConfig  # noqa: E402


def script(name, *args, cwd, env=None, timeout=300):
    """Runs `python REPO/NAME.py ARGS` in the folder `cwd`; returns the CompletedProcess with text output."""
    return subprocess.run([sys.executable, str(REPO / f'{name}.py'), *map(str, args)], cwd=cwd, text=True,
                          capture_output=True, timeout=timeout, env=environment(**(env or {})))


def environment(**more):
    """os.environ for a script that shall use one core of a machine that others use too."""
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO), **more}


def refused(done, *words):
    """A script said one sentence that holds `words`, without a traceback, and failed. Returns the sentence."""
    assert done.returncode != 0, done.stdout
    assert 'Traceback' not in done.stderr, done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert str(word) in sentence, (word, sentence)
    return sentence


def invented_words(seed, count=300):
    """A vocabulary of different words of two to four syllables, the same for the same seed."""
    rng, words = random.Random(seed), {}
    while len(words) < count:
        syllables = (rng.choice('bdfgklmnprstvz') + rng.choice('aeiou') for _ in range(rng.randint(2, 4)))
        words[''.join(syllables)] = True
    return list(words)


def pseudo_text(words, length, rng):
    """About `length` words in sentences and lines; word number r comes with a probability of 1 / (r + 1) (Zipf)."""
    weights = [1 / (rank + 1) for rank in range(len(words))]
    drawn, text = rng.choices(words, weights, k=length), []
    while drawn:
        size = rng.randint(5, 15)
        sentence, drawn = drawn[:size], drawn[size:]
        text.append(' '.join(sentence).capitalize() + rng.choice(['. ', '. ', '.\n']))
    return ''.join(text).strip() + '\n'


def write_documents(folder, count, length=300, words=None, seed=0):
    """Writes `count` documents of pseudo-text as folder/0000.txt, ... ; the first ones do not depend on `count`."""
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
    """A folder with data/en and data/fr, made by prepare.py with 500 pieces each; about 70,000 tokens, half of the words
    are the same. To be read only, see `workplace`."""
    root = tmp_path_factory.mktemp('corpora')
    english, french = invented_words(1), invented_words(2)
    for name, words in dict(en=english, fr=english[0::2] + french[1::2]).items():
        text = write_documents(root / f'text_{name}', 100, words=words, seed=name)
        done = script('prepare', f'--corpus={name}', f'--source={text}', '--vocab_size=500', cwd=root)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def workplace(made_once, tmp_path):
    """A folder of one's own to run scripts in, with data/en and data/fr."""
    shutil.copytree(made_once / 'data', tmp_path / 'data')
    return tmp_path


@pytest.fixture(scope='session')
def reference():
    """The arrays of a random model of the paper's own code and what that code computes with it."""
    if not REFERENCE.exists():
        pytest.skip(f'{REFERENCE} is not there')
    return np.load(REFERENCE)


def languini_name(name):
    """The name that the paper's code gives to one of our tensors."""
    for ours, theirs in (('wte', 'input_embedding'), ('wpe', 'position_embedding'), ('blocks', 'layers'),
                         ('attn.q', 'attn.linear_Q'), ('attn.k', 'attn.linear_K'), ('attn.v', 'attn.linear_V'),
                         ('attn.o', 'attn.linear_O'), ('mlp.fc', 'mlp.c_fc'), ('mlp.proj', 'mlp.c_proj'),
                         ('head', 'linear')):
        name = name.replace(ours, theirs)
    return name


@pytest.fixture(scope='session')
def reference_model(reference):
    shape = json.loads(str(reference['config']))
    shape.pop('base_vocab_size')
    weights = {'module._orig_mod.' + languini_name(name[2:]): torch.from_numpy(reference[name])
               for name in reference.files if name.startswith('w/')}
    return GPT(GPTConfig(**shape)).load_languini(weights)
