"""Turns a checkpoint of the paper's own code into a run's folder, which every script opens.

    python -m lab.languini --checkpoint=FILE CONFIG --out_dir=out/THEIRS --size=small

CONFIG is what one would give to train.py: it names the languages and the shape of the model.
"""

import re
import sys
from pathlib import Path

from lib.configurator import require, run

import train
from data import build_languages
from evaluate import corpora_identity
from lib.checkpoint import checkpoint_paths, load_state, read_checkpoint, save_checkpoint
from model import GPT, GPTConfig

NAMES = dict(input_embedding='wte', position_embedding='wpe', layers='blocks', linear='head')


def load_languini(model, state_dict):
    """Loads weights of the paper's code into `model`. Raises ConfigError where a tensor misfits."""
    wrapper, tensors = r'^.*?\b(?=(\w+_embedding|layers|ln_f|linear)\.)', {}  # module._orig_mod.
    for name, tensor in state_dict.items():
        if not name.endswith('mask'):  # linear_Q is q, c_fc is fc
            parts = re.sub(r'\b(linear|c)_', '', re.sub(wrapper, '', name)).lower().split('.')
            tensors['.'.join(NAMES.get(part, part) for part in parts)] = tensor
    load_state(model, tensors, 'the checkpoint of the paper')
    return model


def main():
    out = train.out_dir
    require(out and not checkpoint_paths(out), f'out_dir must be a new folder, not {out!r}')
    train.check_settings()
    settings = {name: getattr(train, name) for name in train.SETTINGS}
    names = 'corpora', 'languages', 'vocabulary', 'cloned_fraction', 'seed', 'orders'
    languages, rows = build_languages(*(settings[name] for name in names), train.data_dir)
    config, stored = GPTConfig(**train.model_shape(), vocab_size=rows), read_checkpoint(checkpoint)
    state = dict(settings=settings, model_config=vars(config), step=train.max_steps)
    state |= dict(model=load_languini(GPT(config), stored.get('model', stored)).state_dict())
    Path(out).mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, state | dict(corpora=corpora_identity(languages)))


if __name__ == '__main__':
    given = [argument for argument in sys.argv if argument.startswith('--checkpoint=')]
    sys.argv, checkpoint = [a for a in sys.argv if a not in given], ''.join(given)[13:]
    run(vars(train), main)
