"""lab/: checkpoints of the paper's own code become runs; the figures of a training step."""

import re

from lib.configurator import ConfigError

import pytest
import torch
from conftest import in_process, languini_name, refused, script

import train
from evaluate import load_run
from lab import languini
from model import GPT, SIZES, GPTConfig

SHAPE = dict(n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=16)
ARGUMENTS = ['--corpora=[en,en]', '--languages=[en1,en2]', '--out_dir=out/a', '--size=']
ARGUMENTS += [f'--{name}={value}' for name, value in SHAPE.items()]


@pytest.fixture
def theirs(workplace, monkeypatch):
    """{our name: weights} of a model of two clones, which model.pt has as the paper's code does."""
    weights = GPT(GPTConfig(**SHAPE, vocab_size=1000)).state_dict()
    named = {f'module._orig_mod.{languini_name(name)}': w for name, w in weights.items()}
    torch.save(dict(model=named | {'layers.0.attn.mask': torch.ones(3)}), 'model.pt')
    return weights


def test_a_checkpoint_of_the_papers_code_becomes_a_run(theirs, workplace):
    done = script('lab.languini', '--checkpoint=model.pt', *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    model, languages, state = load_run('out/a')
    assert [language.name for language in languages] == ['en1', 'en2']
    assert vars(model.config) == SHAPE | dict(vocab_size=1000, positions='learned')
    assert state['settings']['n_embd'] == 20 and theirs.keys() == model.state_dict().keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in model.state_dict().items())


def test_what_does_not_fit_is_refused(theirs, workplace, monkeypatch):
    monkeypatch.setattr(train, 'main', languini.main)
    stored = torch.load('model.pt')['model']
    for wrong, name in (
        ({k: v for k, v in stored.items() if 'ln_f.bias' not in k}, 'ln_f.bias'),
        (stored | {'layers.0.attn.linear_X.weight': torch.ones(1)}, 'attn.x'),
        (stored | {'layers.7.ln1.weight': torch.ones(20)}, 'blocks.7.ln1'),
    ):
        with pytest.raises(ConfigError, match=name):
            languini.load_languini(GPT(GPTConfig(**SHAPE, vocab_size=1000)), wrong)
    one = ['--corpora=[en]', '--languages=[en]', '--stages=[[1.0]]']
    for name, path, *more in (
        ('wte.weight', 'model.pt', *one),
        ('wpe.weight', 'model.pt', '--block_size=32'),
        ('nowhere', 'nowhere'),
        ('n_layer', 'model.pt', '--n_layer=0'),
        ('out_dir', 'model.pt', '--out_dir='),
    ):
        monkeypatch.setattr(languini, 'checkpoint', path, raising=False)
        refused(in_process('train', *ARGUMENTS, *more), name)


def test_the_benchmark_measures_a_training_step(here):
    small = dict(vocab_size=512, block_size=32, micro_batch_size=1, seconds=0.1, compile=False)
    done = in_process('lab.bench', '--device=cpu', **small)
    names = ' tokens/s', ' GiB', ' of', ' GFLOP/s'
    found = [re.search(rf'([\d,.]+){name}', done.stdout)[1] for name in names]
    speed, memory, mfu, peak = (float(number.replace(',', '')) for number in found)
    flops = GPTConfig(**SIZES['mini'], block_size=32, vocab_size=512).flops_per_token()
    assert mfu == pytest.approx(speed * flops / peak / 1e9, rel=0.05, abs=1e-4)
    assert 0 < mfu < 1 and memory > 0.05
    refused(in_process('lab.bench', '--size=huge'), 'size')
