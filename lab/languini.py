"""Turns a checkpoint of the paper's own code into a run's folder, which every script opens.

    python -m lab.languini --checkpoint=FILE CONFIG --out_dir=out/THEIRS --head_dim=64

The config names the languages; the weights tell the shape but for head_dim (64 by default).
"""

import re
import sys
from pathlib import Path

from lib.configurator import ConfigError, require, run

import train
from data import build_languages
from evaluate import corpora_identity
from lib.checkpoint import checkpoint_paths, read_checkpoint, save_checkpoint
from model import GPT, GPTConfig

NAMES = dict(input_embedding='wte', position_embedding='wpe', layers='blocks', linear='head')


def renamed(state_dict):
    """The weights under our names, without a prefix such as `module._orig_mod.` and the masks."""
    first, tensors = r'^.*?\b(?=(\w+_embedding|layers|ln_f|linear)\.)', {}
    for name, tensor in state_dict.items():
        if not name.endswith('mask'):  # linear_Q is q, c_fc is fc
            parts = re.sub(r'\b(linear|c)_', '', re.sub(first, '', name)).lower().split('.')
            tensors['.'.join(NAMES.get(part, part) for part in parts)] = tensor
    return tensors


def load_languini(model, state_dict):
    """Loads a checkpoint of the paper's code into `model` and returns it. Raises ValueError when a
    tensor is missing, unknown or of another shape."""
    try:
        model.load_state_dict(renamed(state_dict))
        return model
    except RuntimeError as error:
        raise ValueError(' '.join(str(error).split())) from None


def main():
    out, width = train.out_dir, train.head_dim or 64
    require(out and not checkpoint_paths(out), f'out_dir must be a new folder, not {out!r}')
    stored = read_checkpoint(checkpoint)
    stored = stored.get('model', stored)
    try:
        shapes = {name: tuple(tensor.shape) for name, tensor in renamed(stored).items()}
        (V, C), (T, _) = shapes['wte.weight'], shapes['wpe.weight']
        Q, M = (shapes[f'blocks.0.{name}.weight'][0] for name in ('attn.q', 'mlp.fc'))
        config = GPTConfig(sum('ln1.w' in n for n in shapes), Q // width, width, C, M, T, V)
        model = load_languini(GPT(config), stored)
    except (AttributeError, LookupError, ValueError) as error:
        raise ConfigError(f'{checkpoint} does not fit the code of the paper: {error}') from None
    settings = {name: vars(config).get(name, getattr(train, name)) for name in train.SETTINGS}
    names = 'corpora', 'languages', 'vocabulary', 'cloned_fraction', 'seed', 'orders'
    languages, rows = build_languages(*(settings[name] for name in names), train.data_dir)
    require(rows == V, f'{checkpoint} has {V:,} embedding rows, these languages have {rows:,}')
    about = dict(settings=settings | dict(size=''), step=train.max_steps, model=model.state_dict())
    about |= dict(model_config=vars(config), corpora=corpora_identity(languages))
    Path(out).mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, about)


if __name__ == '__main__':
    given = [argument for argument in sys.argv if argument.startswith('--checkpoint=')]
    sys.argv, checkpoint = [a for a in sys.argv if a not in given], ''.join(given)[13:]
    run(vars(train), main)
