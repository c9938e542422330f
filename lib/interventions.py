"""Interventions that bring languages together or keep them apart; train.py has their settings.

loss_weights change the share of a language in the gradient, init_embeddings where its embeddings
start, and train_only freezes all but them. Control runs ignore all of these.
"""

from lib.configurator import require

import numpy as np
import torch

from lib.tokenizer import PAD, UNKNOWN

EMBEDDINGS = ('wte.weight', 'head.weight')  # parameters with a row for each token id of the model


def scaled_loss_weights(loss_weights, stages, languages):
    """The weight of each language's loss, (languages,) float32; None without loss_weights.

    They are scaled so that the expected weight of a sequence (by the shares in `stages`) is 1.
    Weights change the gradient as shares change the data (Xin et al. 2022, Choi et al. 2023).
    Raises ConfigError."""
    if not loss_weights:
        return None
    valid = all(isinstance(weight, (int, float)) and weight >= 0 for weight in loss_weights)
    valid = valid and len(loss_weights) == len(languages)
    mean = np.dot(np.mean(stages, axis=0), loss_weights) if valid else 0
    text = f'one for each of the {len(languages)} languages, one that is drawn above 0'
    require(mean, f'loss_weights must be numbers of at least 0, {text}, not {loss_weights}')
    return np.float32(loss_weights) / np.float32(mean)


def own_rows(languages, name):
    """The embedding rows of a language that no other language uses, without padding: (n,) int32."""
    (own,) = (language.table for language in languages if language.name == name)
    others = [language.table for language in languages if language.name != name]
    return np.setdiff1d(own, np.concatenate([[PAD], *others]))


def freeze_body(model, languages, name):
    """Freezes all but the own embeddings of a language. Returns a function to call after each step,
    which undoes what the optimiser did to frozen rows."""
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key in EMBEDDINGS)
    weights = [model.get_parameter(key) for key in EMBEDDINGS]
    frozen = torch.ones(len(weights[0]), dtype=torch.bool, device=weights[0].device)
    own = own_rows(languages, name)
    require(len(own), f'train_only={name}: it has no embeddings of its own')
    frozen[own] = False
    before = [weight.detach()[frozen] for weight in weights]

    @torch.no_grad()
    def restore():
        for weight, rows in zip(weights, before):
            weight[frozen] = rows

    return restore


def row_pairs(languages, train_only=''):
    """Pairs (row, source row) for initialising embeddings: (n, 2) int; of train_only its own rows.

    Every token of a later language is paired with the token of the first language that is spelled
    the same (as FOCUS does, Dobler and de Melo 2023); for a clone these are all of its tokens. Rows
    that the first language shares are left out. Raises ConfigError when there is no pair."""
    first, *later = (
        dict([*zip(lang.corpus.load_tokenizer().spellings(), lang.table.tolist())][UNKNOWN + 1 :])
        for lang in languages
    )
    pairs = {}
    for rows in later:
        for spelling in (spelling for spelling in first if spelling in rows):
            pairs.setdefault(rows[spelling], first[spelling])
    own = set(own_rows(languages, train_only) if train_only else pairs) - {*languages[0].table}
    pairs = [pair for pair in pairs.items() if pair[0] in own]
    reason = 'no token of a later language is spelled as one of the first and has a row of its own'
    require(pairs, f'init_embeddings: {reason}')
    return np.array(pairs)


def init_embeddings(model, pairs, noise):
    """Copies the source row of each pair, plus Gaussian noise: `noise` times the standard deviation
    of the copied rows in each dimension."""
    for name in EMBEDDINGS:
        weight = model.state_dict()[name]
        rows = weight[pairs[:, 1]]
        weight[pairs[:, 0]] = rows + noise * rows.std(0, correction=0) * torch.randn(rows.shape)


def copy_known(model, languages, train_only, source, source_languages, folder):
    """Copies the body, and the embeddings of the languages known there, from the run in `folder`.

    Returns the names of these languages. Raises ConfigError unless they are all of `languages`
    except train_only, and the bodies have the same shape."""

    def key(language):
        return language.name, language.corpus.tokenizer_hash, language.order

    known = {key(language): language.table for language in source_languages}
    tables = {language.name: known.get(key(language)) for language in languages}
    copied = [lang for lang in languages if tables[lang.name] is not None]
    missing = ', '.join(name for name in tables if tables[name] is None and name != train_only)
    text = f'{folder} has no language {missing} with this tokeniser and order'
    require(not missing, f'{text}: only train_only={train_only} may be new')
    same = vars(source.config) | dict(vocab_size=0) == vars(model.config) | dict(vocab_size=0)
    require(same, f'the model in {folder} has another shape: {vars(source.config)}')
    weights = source.state_dict()
    for name in EMBEDDINGS:
        rows, weights[name] = weights[name], model.state_dict()[name]
        for language in copied:
            weights[name][language.table] = rows[tables[language.name]]
    model.load_state_dict(weights)
    return [language.name for language in copied]
