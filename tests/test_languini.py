"""lab/languini.py: checkpoints of the paper's own code become runs."""

import pytest
import torch
from conftest import in_process, languini_name, refused, script

import train
from evaluate import load_run
from lab import languini
from model import GPT, GPTConfig

SHAPE = dict(n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=16)
ARGUMENTS = ['--corpora=[en,en]', '--languages=[en1,en2]', '--head_dim=8', '--out_dir=out/a']


@pytest.fixture
def theirs(workplace, monkeypatch):
    """{our name: weights} of a model of two clones, which model.pt has as the paper's code does."""
    monkeypatch.chdir(workplace)
    weights = GPT(GPTConfig(**SHAPE, vocab_size=1000)).state_dict()
    named = {f'module._orig_mod.{languini_name(name)}': w for name, w in weights.items()}
    torch.save(dict(model=named | {'layers.0.attn.mask': torch.ones(3)}), 'model.pt')
    return weights


def test_a_checkpoint_of_the_papers_code_becomes_a_run(theirs, workplace):
    done = script('lab.languini', '--checkpoint=model.pt', *ARGUMENTS, cwd=workplace)
    assert done.returncode == 0, done.stderr
    model, languages, state = load_run('out/a')
    assert [language.name for language in languages] == ['en1', 'en2']
    assert vars(model.config) == SHAPE | dict(vocab_size=1000)
    assert state['settings']['n_embd'] == 20 and theirs.keys() == model.state_dict().keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in model.state_dict().items())


def test_what_does_not_fit_is_refused(theirs, workplace, monkeypatch):
    monkeypatch.setattr(train, 'main', languini.main)
    torch.save({k: v for k, v in torch.load('model.pt')['model'].items() if 'ln_f' not in k}, 'cut')
    one = ['--corpora=[en]', '--languages=[en]']
    for file, name, *more in (
        ('none.pt', 'none.pt'),
        ('cut', 'ln_f'),
        ('model.pt', 'embedding rows', *one),
        ('model.pt', 'size mismatch', '--head_dim=5'),
        ('model.pt', 'out_dir', '--out_dir='),
    ):
        monkeypatch.setattr(languini, 'checkpoint', file, raising=False)
        refused(in_process('train', *ARGUMENTS, *more, cwd=workplace), name)


def test_a_tensor_that_is_missing_unknown_or_of_another_shape_is_named():
    model = GPT(GPTConfig(**SHAPE, vocab_size=53))
    weights = {languini_name(name): p.detach() for name, p in model.named_parameters()}
    without = {name: tensor for name, tensor in weights.items() if name != 'ln_f.bias'}
    for wrong, name in (
        (without, 'ln_f.bias'),
        (weights | {'layers.0.attn.linear_X.weight': torch.ones(1)}, 'attn.x'),
        (weights | {'linear.weight': torch.ones(3, 3)}, 'head.weight'),
        (weights | {'layers.7.ln1.weight': torch.ones(20)}, 'blocks.7.ln1'),
    ):
        with pytest.raises(ValueError, match=name):
            languini.load_languini(model, wrong)
