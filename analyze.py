"""Similarity and matching studies of the runs of train.py (Sections 4.2 and 5.2, Appendices C, F and G).

    python analyze.py --out_dir=out/RUN                      # all studies
    python analyze.py --out_dir=out/RUN --study=hidden --parallel=[europarl.en,europarl.fr]
    python analyze.py --out_dirs=[out/50_50,out/90_10] --study=gradients       # side by side, with the difference
    python analyze.py --out_dir=out/RUN --study=matching --sentence_1='I agree.' --sentence_2="Je suis d'accord."

embeddings: Figure 6, frequency: Figure 7, hidden: Tables 2 and 4, gradients: Figures 11-13, matching: Figure 14,
word2vec: Figure 6 right and a question of Appendix A. Each prints its table and writes STUDY.json and STUDY.png into the
run's folder; of several runs the picture, and the difference of two, go into the folder of the first. Every mean comes
with a 90% bootstrap interval over the pairs compared; tables show half its width.
"""
import functools
import re
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import pictures
from checkpoint import load_run, write_json
from configurator import ConfigError, run
from device import memory_advice, pick_device
from similarity import Estimate, difference, plain, rows_text, side_by_side, with_difference
from data import LanguageMix
from model import PAD
from data import sequence_pairs
from schedule import language_probabilities
from similarity import (cka, compare_states, compare_vectors, gradient_similarity, hidden_similarity,  # noqa: F401
                        match_tokens, token_cosines)
from word2vec import VERSIONS, require_gensim, word_vectors

out_dir = ''  # folder of a run of train.py, for example out/demo
out_dirs = []  # instead: several runs, side by side
study = 'all'  # embeddings, frequency, hidden, gradients, matching, word2vec, several with commas, or all of them
language_1 = ''  # the pair of languages that is compared; empty: the run's first two
language_2 = ''
parallel = []  # two files aligned line by line (or hf:DATASET:COLUMN), of language_1 and language_2, whose lines are
               # joined to sequences; clones use the first alone, or without any sequences of their test set
pairs = 500  # pairs of sequences that are compared
max_tokens = 512  # of a sequence, at most block_size
min_tokens = 0  # pairs with a shorter side are dropped; 0: a quarter of max_tokens, 128 of 512 in the paper
sentence_1 = ''  # matching: a sentence in language_1; empty: the first pair of sequences
sentence_2 = ''  # and its translation; clones need none
shown = [0, 24]  # matching: first token that is drawn, and the one after the last
word2vec = ['gensim', 'none', 'linear', 'mlp']  # Gensim, and the same objective without or with a shared layer
word2vec_dim = 768  # dimensions of the vectors
word2vec_steps = 0  # so many steps of the run's text; 0: all that the run has read
seed = 0  # of random pairs and of word2vec
device = 'auto'  # auto, cpu, cuda, cuda:1, mps


# --- a run and its pair of languages ----------------------------------------------------------------------------------

class Run:
    """A run of train.py and the pair of its languages that is compared."""

    def __init__(self, folder):
        self.folder, self.name = Path(folder), Path(folder).name
        self.model, languages, state = load_run(folder)
        self.device = pick_device(device)
        self.model.to(self.device)
        settings, self.steps = state['settings'], state['step']
        self.max_steps = settings['max_steps']
        named = {language.name: language for language in languages}
        if len(languages) < 2:
            raise ConfigError(f'{folder} has one language, {languages[0].name}: a similarity needs a run with two')
        names = [language_1, language_2]
        for name in filter(None, names):
            if name not in named:
                raise ConfigError(f'{folder} has no language {name!r}; its languages are {", ".join(named)}')
        for i, name in enumerate(names):
            names[i] = name or next(other for other in named if other not in names)
        if names[0] == names[1]:
            raise ConfigError(f'language_1 and language_2 are both {names[0]!r}: choose two languages')
        self.first, self.second = (named[name] for name in names)
        self.clones = self.first.corpus is self.second.corpus
        self.mix = LanguageMix(languages, lambda step: language_probabilities(
            step, settings['max_steps'], settings['stages']), settings['batch_size'], settings['block_size'],
            settings['seed'])
        seen = dict(zip(named, self.mix.sequences_before(self.steps)))
        self.share, self.share_2 = (seen[name] / max(1, sum(seen.values())) for name in names)  # of what it has read

    def label(self):
        begun = f', step {self.steps:,} of {self.max_steps:,}' if self.steps < self.max_steps else ''
        return f'{self.name} ({self.share:.0%}/{self.share_2:.0%}{begun})'

    @functools.cached_property
    def sequences(self):
        """Pairs of sequences: ids of the two corpora."""
        most = min(max_tokens, self.model.config.block_size)
        least = min_tokens or max(4, most // 4)
        if not 4 <= least <= most:
            raise ConfigError(f'min_tokens must lie between 4 and {most} (max_tokens and block_size), not {least}')
        return sequence_pairs(self.first, self.second, [str(where) for where in parallel], pairs, most, least)

    def pairs_of_sequences(self, what):
        """The pairs in ids of the model, with a progress bar."""
        for one, other in tqdm(self.sequences, desc=f'{self.name}: {what}', unit=' pairs', leave=False):
            yield self.first.table[one], self.second.table[other]

    @functools.cached_property
    def sentences(self):
        """The pair of sentences that is matched: ids of the two corpora."""
        if not sentence_1:
            sides = [side[:shown[1]] for side in self.sequences[0]]
        else:
            if not (sentence_2 or self.clones):
                raise ConfigError(f'{self.first.name} and {self.second.name} are no clones: give --sentence_2 as well')
            texts, block_size = (sentence_1, sentence_2 or sentence_1), self.model.config.block_size
            sides = [language.corpus.load_tokenizer().encode(text) for language, text in
                     zip((self.first, self.second), texts)]
            for text, side in zip(texts, sides):
                if not 0 < len(side) <= block_size:
                    raise ConfigError(f'a sentence must have 1 to {block_size} tokens (block_size), and {text[:40]!r} has '
                                      f'{len(side)}')
        if shown[0] >= min(map(len, sides)):
            raise ConfigError(f'shown begins at token {shown[0]}, and a sentence has {min(map(len, sides))}')
        return [np.array(side) for side in sides]

    @functools.cached_property
    def pieces(self):
        """Pieces that can be compared: (2, n) token ids of the two corpora. Those of clones, and those of other
        languages that are spelled alike, unless they are one entry of the vocabulary."""
        found = np.arange(self.first.corpus.vocab_size)[None].repeat(2, 0)
        if not self.clones:
            one, other = (language.corpus.load_tokenizer() for language in (self.first, self.second))
            id_of = {other.id_to_piece(i): i for i in range(len(other))}
            alike = [(i, id_of[one.id_to_piece(i)]) for i in range(len(one)) if one.id_to_piece(i) in id_of]
            found = np.array(alike, dtype=int).reshape(-1, 2).T
        one, other = self.first.table[found[0]], self.second.table[found[1]]
        return found[:, (one != other) & (one != PAD)]

    def entries(self, chosen=slice(None)):
        """The entries of the vocabulary of (some of) these pieces: (2, n) ids of the model."""
        return np.stack([self.first.table[self.pieces[0, chosen]], self.second.table[self.pieces[1, chosen]]])

    @property
    def kind(self):
        return 'clones' if self.clones else 'pieces spelled alike'

    def weights(self):
        """The weights whose rows are compared: {kind: (entries, width)}."""
        return dict(input=self.model.wte.weight.detach().cpu(), output=self.model.head.weight.detach().cpu())


def training_counts(mix, steps):
    """How often each language's tokens were read in a mix's first `steps` steps: list of (vocab_size,) int64.

    Exact: the chunks that each language has read are known from the seed, and their tokens are counted."""
    drawn, T = np.concatenate([mix.draw(step) for step in range(steps)]), mix.block_size
    counts = [np.zeros(language.corpus.vocab_size, np.int64) for language in mix.languages]
    for index, corpus in enumerate(mix.corpora):
        readers = drawn[mix.corpus_of[drawn] == index]
        chunks = mix.chunk(index, np.arange(len(readers)))
        for language in np.unique(readers):
            times = np.bincount(chunks[readers == language], minlength=mix.chunks[index])
            for start in range(0, len(times), 4096):  # the shard may be larger than memory
                part = times[start:start + 4096]
                tokens = corpus.train[start * T:(start + len(part)) * T].reshape(-1, T)[part > 0]
                counts[language] += np.bincount(tokens.ravel(), np.repeat(part[part > 0], T),
                                                len(counts[language])).astype(np.int64)
    return counts


# --- the studies: {name: Estimate or plain value} of a run ------------------------------------------------------------

def study_embeddings(run):
    """Cosine of corresponding pieces' input and output embeddings, and its controls (Figure 6)."""
    paired = run.pieces.size > 0
    rows = run.entries() if paired else [np.setdiff1d(one.table, PAD) for one in (run.first, run.second)]
    compared = f'{len(rows[0]):,} {run.kind}' if paired else NO_PIECES
    return dict(compared=compared, **{kind: compare_vectors(weight[rows[0]], weight[rows[1]], paired, seed)
                                      for kind, weight in run.weights().items()})


NO_PIECES = 'no pieces that are pairs, since those spelled alike are one and the same entry of this vocabulary'


def study_frequency(run):
    """The same by how often the rarer of the two pieces was read in training, in half decades (Figure 7)."""
    names = [language.name for language in run.mix.languages]
    counts, bins = dict(zip(names, training_counts(run.mix, run.steps))), {}
    edges = [0, *np.ceil(10 ** (np.arange(22) / 2)).astype(int)]
    count = np.minimum(counts[run.first.name][run.pieces[0]], counts[run.second.name][run.pieces[1]])
    for low, high in zip(edges, edges[1:]):
        chosen = (count >= low) & (count < high)
        if chosen.sum() > 1:
            bins[int(low)] = entry = dict(low=int(low), high=int(high) - 1, pieces=int(chosen.sum()))
            for kind, weight in run.weights().items():
                cosines = compare_vectors(*weight[run.entries(chosen)], seed=seed)
                entry[kind] = {name: cosines[name] for name in ('pairs', 'random')}
    return dict(compared=f'{run.pieces.shape[1]:,} {run.kind}' if bins else NO_PIECES, bins=bins)


def study_hidden(run):
    """Hidden states of corresponding tokens (Tables 2 and 4), linear CKA and retrieval; see similarity.py."""
    found = [compare_states(run.model, *pair, run.clones) for pair in run.pairs_of_sequences('hidden states')]
    means = {name: Estimate.of([one[name] for one in found]) for name in found[0] if name != 'hsic'}
    return dict(compared=f'{len(found):,} pairs of sequences', **means, cka=Estimate.of([one['hsic'] for one in found], cka))


def study_gradients(run):
    """Cosine of the gradients of the two sides, kinds of tensors x blocks, and their macro average (Figures 11-13)."""
    found = [gradient_similarity(run.model, *pair) for pair in run.pairs_of_sequences('gradients')]
    blocks = range(run.model.config.n_layer)
    kinds = [name.removeprefix('blocks.0.') for name in found[0] if name.startswith('blocks.0.')]
    values = np.array([[[one[f'blocks.{layer}.{kind}'] for layer in blocks] for kind in kinds] for one in found])
    others = [name for name in found[0] if not name.startswith('blocks.')]
    return dict(compared=f'{len(found):,} pairs of sequences', kinds=kinds, similarity=Estimate.of(values),
                macro=Estimate.of(values.mean((1, 2))), others={name: Estimate.of([one[name] for one in found]) for name in others})


def study_matching(run):
    """The matching of one pair of sentences and the mean cosine over the blocks of each matched pair (Figure 14)."""
    languages = run.first, run.second
    similarity = token_cosines(run.model, *(one.table[side] for one, side in zip(languages, run.sentences))).mean(0)
    rows, columns = match_tokens(similarity)
    tokenizers = [language.corpus.load_tokenizer() for language in languages]
    texts = [[spelling(pieces, int(token)) for token in side] for pieces, side in zip(tokenizers, run.sentences)]
    return dict(compared='one pair', names=[run.first.name, run.second.name], tokens_1=texts[0], tokens_2=texts[1],
                matches=[[int(i), int(j), float(similarity[i, j])] for i, j in zip(rows, columns)])


def spelling(pieces, token):
    """A piece as text for a picture; a byte as its character where it has one."""
    byte = re.fullmatch('<0x([0-9A-F]{2})>', pieces.id_to_piece(token))
    if byte:
        return {'0A': '\\n', '09': '\\t'}.get(byte[1], chr(int(byte[1], 16)) if '20' < byte[1] < '7F' else byte[1])
    return pieces.id_to_piece(token)


def study_word2vec(run):
    """Alignment of word vectors trained on the run's text, by Gensim and with or without a shared layer (Figure 6
    right, Appendix A). Compared are pieces that both languages have at least five times, as Gensim needs them."""
    steps = word2vec_steps or run.steps
    entries = np.zeros(run.model.config.vocab_size, np.int64)
    for language, counts in zip(run.mix.languages, training_counts(run.mix, steps)):
        np.add.at(entries, language.table, counts)
    rows = run.entries()[:, (entries[run.entries()] >= 5).all(0)]
    found = dict(compared=f'{rows.shape[1]:,} {run.kind} read five times' if run.pieces.size else NO_PIECES, versions={})
    for version in word2vec if rows.shape[1] > 1 else ():
        with tqdm(total=int(entries.sum()), desc=f'{run.name}: word2vec {version}', unit=' tokens', unit_scale=True,
                  leave=False) as progress:
            vectors, loss = word_vectors(version, run.mix, steps, entries, word2vec_dim, seed, run.device, progress)
        found['versions'][version] = dict(loss=loss, **{kind: compare_vectors(*weight[rows], seed=seed)
                                                        for kind, weight in vectors.items()})
    return found


# --- what is shown ----------------------------------------------------------------------------------------------------

MEASURES = dict(pairs='corresponding', retrieval='retrieval', random='random', any='all pairs')


def table_of_vectors(title, labels, found):
    """What compare_vectors found for each run."""
    measures = [name for name in MEASURES if any(name in one for one in found)]
    return rows_text(title, [MEASURES[name] for name in measures],
                     with_difference(labels, [side_by_side([one.get(name) for name in measures]) for one in found]))


def show_embeddings(labels, shares, found, what, path):
    for kind in ('input', 'output'):
        print(table_of_vectors(f'cosine of {kind} embeddings, {what}', labels, [one[kind] for one in found]))
    pictures.alignment({f'{kind} embeddings': [one[kind] for one in found] for kind in ('input', 'output')},
                       labels, shares, f'Embeddings, {what}', path)


def show_frequency(labels, shares, found, what, path):
    chosen = {f'{kind}, {MEASURES[name]}': (kind, name) for kind in ('input', 'output') for name in ('pairs', 'random')}
    for label, one in zip(labels, found):
        if one['bins']:
            print(rows_text(f'{label}: cosine of embeddings by how often the rarer piece was read (pieces), {what}', chosen, {
                f'{b["low"]:,}{"+" * (b["low"] > 0)} ({b["pieces"]:,})': side_by_side([b[kind][name] for kind, name in chosen.values()])
                for b in one['bins'].values()}))
    if any(one['bins'] for one in found):
        pictures.frequency(labels, found, f'Embeddings by frequency, {what}', path)


def show_hidden(labels, shares, found, what, path):
    for measure, name in pictures.HIDDEN.items():
        ours = [(label, one[measure]) for label, one in zip(labels, found) if measure in one]
        if ours:
            blocks = max(len(estimate.value) for _, estimate in ours)
            print(rows_text(f'hidden states after each block: {name}, {what}', [str(i + 1) for i in range(blocks)],
                            with_difference(*zip(*ours))))
    pictures.hidden(labels, found, f'Hidden states, {what}', path)


def show_gradients(labels, shares, found, what, path):
    rows = with_difference(labels, [one['similarity'] for one in found])
    for label, similarity in rows.items():
        print(rows_text(f'{label}: cosine of gradients, {what}', [str(i + 1) for i in range(similarity.value.shape[1])],
                        {kind: Estimate(similarity.value[i], similarity.draws[:, i])
                         for i, kind in enumerate(found[0]['kinds'])}))
    print('The gradient of a key bias is 0, since the softmax does not see it; it counts as a cosine of 0.\n')
    names = ['macro', *found[0]['others']]
    print(rows_text('macro average of the blocks, and the other tensors', names, with_difference(
        labels, [side_by_side([one['macro'], *one['others'].values()]) for one in found])))
    pictures.gradients(labels, found, f'Gradients, {what}', path)


def show_matching(labels, shares, found, what, path):
    for label, one in zip(labels, found):
        print(f'{label}: matched tokens, {what}, and their mean cosine over the blocks')
        for i, j, value in one['matches']:
            if shown[0] <= i < shown[1]:
                print(f'  {one["tokens_1"][i]:>16}  {one["tokens_2"][j]:<16}{value:>7.3f}')
    pictures.matching(labels, found, shown, f'Matched tokens, {what}', path)


def show_word2vec(labels, shares, found, what, path):
    panels = {}
    for kind in ('input', 'output'):
        for version in word2vec:
            vectors = [one['versions'].get(version, {}).get(kind, {}) for one in found]
            if any(vectors):
                print(table_of_vectors(f'cosine of {kind} word vectors, {version}, {what}', labels, vectors))
                if any(one['random'].value > 0.9 for one in vectors if 'random' in one):
                    print('all vectors still point the same way: this takes more text, see word2vec_steps\n')
                panels[f'{version}: {kind} vectors'] = vectors
    if panels:
        pictures.alignment(panels, labels, shares, f'Word vectors, {what}', path)


STUDIES = dict(embeddings=(study_embeddings, show_embeddings), frequency=(study_frequency, show_frequency),
               hidden=(study_hidden, show_hidden), gradients=(study_gradients, show_gradients),
               matching=(study_matching, show_matching), word2vec=(study_word2vec, show_word2vec))


def about(run):
    """What is written beside a run's findings."""
    return dict(run=run.name, step=run.steps, language_1=run.first.name, language_2=run.second.name, share_1=run.share,
                parallel=parallel)


def check_word2vec():
    """Raises ConfigError for unknown versions, and for Gensim where it is not installed, unless all studies are made:
    then it is left out."""
    unknown = [version for version in word2vec if version not in VERSIONS]
    if unknown or not word2vec:
        raise ConfigError(f'word2vec must be a list of some of {", ".join(VERSIONS)}, not {word2vec}')
    if 'gensim' in word2vec:
        try:
            require_gensim()
        except ConfigError as error:
            if study != 'all':
                raise
            print(f'{error}; it is left out')
            word2vec.remove('gensim')


def main():
    folders = [str(folder) for folder in out_dirs] or [out_dir]
    if not out_dir and not out_dirs:
        raise ConfigError('say what to analyze: --out_dir=out/RUN, or --out_dirs=[out/A,out/B]')
    if out_dir and out_dirs:
        raise ConfigError('give one of out_dir and out_dirs, not both')
    if sentence_2 and not sentence_1:
        raise ConfigError('sentence_2 is the translation of sentence_1: give both')
    chosen = list(STUDIES) if study == 'all' else [name.strip() for name in study.split(',')]
    if not set(chosen) <= set(STUDIES):
        raise ConfigError(f'study must be some of {", ".join(STUDIES)}, or all, not {study!r}')
    if pairs < 1 or max_tokens < 4 or word2vec_dim < 1 or word2vec_steps < 0:
        raise ConfigError('pairs and word2vec_dim must be at least 1, max_tokens 4 and word2vec_steps 0, not '
                          f'{pairs}, {word2vec_dim}, {max_tokens} and {word2vec_steps}')
    if len(shown) != 2 or not all(isinstance(end, int) for end in shown) or not 0 <= shown[0] < shown[1]:
        raise ConfigError(f'shown must be the first token and the one after the last, as in [0,24], not {shown}')
    if 'word2vec' in chosen:
        check_word2vec()
    runs = [Run(folder) for folder in folders]
    labels, shares = [run.label() for run in runs], [run.share for run in runs]
    if len({(run.first.name, run.second.name) for run in runs}) > 1:
        labels = [f'{label} {run.first.name}-{run.second.name}' for label, run in zip(labels, runs)]
    if len(set(labels)) < len(runs):
        raise ConfigError(f'the runs need folders of different names, not {", ".join(folders)}')
    for run in runs:  # what is wrong with the text shall be known before hours of work
        if {'hidden', 'gradients'} & set(chosen):
            run.sequences
        if 'matching' in chosen:
            run.sentences
    for name in chosen:
        compute, show = STUDIES[name]
        found, seconds = [], []
        for run in runs:
            start = time.perf_counter()
            with memory_advice('lower max_tokens, or use --device=cpu'):
                found.append(compute(run))
            seconds.append(time.perf_counter() - start)
            write_json(run.folder / f'{name}.json', plain(about(run) | dict(seconds=seconds[-1]) | found[-1]))
        where = runs[0].folder / f'{"-".join([name] + [run.name for run in runs if len(runs) > 1])}.png'
        if len(runs) == 2 and difference(*found):
            write_json(where.with_suffix('.json'), plain(dict(runs=labels, difference=difference(*found))))
        what = '; '.join(dict.fromkeys(f'{run.first.name} and {run.second.name}' for run in runs))
        compared = [one['compared'] for one in found]
        if len(set(compared)) > 1 or NO_PIECES in compared:
            print('\n'.join(f'{label}: {text}' for label, text in zip(labels, compared)) + '\n')
        else:
            what += f', {compared[0]}'
        show(labels, shares, found, what, where)
        print('wrote ' + ', '.join(f'{run.folder}/{name}.json ({s:.0f} s)' for run, s in zip(runs, seconds))
              + f' and {where}' * where.exists() + '\n')


if __name__ == '__main__':
    run(globals(), main)
