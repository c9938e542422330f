"""Similarity and matching studies of the runs of train.py (Sections 4.2, 5.2; App. C, F, G).

    python analyze.py --out_dir=out/RUN                      # all studies
    python analyze.py --out_dir=out/RUN --study=hidden --parallel=[europarl.en,europarl.fr]
    python analyze.py --out_dirs=[out/50_50,out/90_10]       # side by side, with the difference
    python analyze.py --out_dir=out/RUN --study=matching --sentence_1='Yes.' --sentence_2='Oui.'

embeddings: Figure 6, frequency: Figure 7, hidden: Tables 2 and 4, gradients: Figures 11 to 13,
matching: Figure 14, word2vec: Figure 6 right. Each prints its tables and writes STUDY.json and
STUDY.png into the run's folder; of several runs the picture, and the difference of two, go into
the folder of the first. Every mean has a 90% bootstrap interval: pieces are drawn anew, and test
documents with all of their sequences (parallel text does not mark documents, so there the pairs).
It is the interval of these models; of several runs that differ in their seed alone the mean is
shown, and runs are drawn anew, too.
"""

import contextlib
import functools
import itertools
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from tqdm import tqdm

import similarity
from checkpoint import load_run, write_json
from configurator import ConfigError, run
from data import LanguageMix, sequence_pairs
from device import memory_advice, pick_device
from figures import DPI, GREY, OTHERS, STYLE
from model import PAD
from similarity import Estimate
from train import FREE

out_dir = ''  # folder of a run of train.py, for example out/demo
out_dirs = []  # instead: several runs, side by side; those that differ in seed alone are one row
study = 'all'  # all, or some with commas: embeddings,frequency,hidden,gradients,matching,word2vec
language_1 = ''  # the pair of languages that is compared; empty: the run's first two
language_2 = ''  # the other one
parallel = []  # files of language_1 and language_2 (or hf:DATASET:COLUMN), aligned line by line
pairs = 500  # pairs of sequences that are compared
max_tokens = 512  # of a sequence, at most block_size
min_tokens = 0  # shorter pairs are dropped; 0: a quarter of max_tokens, 128 of 512 in the paper
matching_threshold = 0.0  # cosine that a match exceeds (slow from 200 tokens on); 0: full matching
sentence_1 = ''  # matching: a sentence in language_1; empty: the first pair of sequences
sentence_2 = ''  # matching: its translation; clones need none
shown = [0, 24]  # matching: the first token that is drawn, and the one after the last
word2vec_dim = 768  # word2vec: dimensions of a vector
word2vec_steps = 0  # word2vec: read so many steps of the run's text; 0: all that the run has read
seed = 0  # of random pairs and of word2vec
device = 'auto'  # auto, cpu, cuda, cuda:1, mps

NO_PIECES = 'no pieces that are pairs, since those spelled alike are one and the same entry'
KINDS = ('input', 'output')  # of embeddings and of word vectors


# --- a run and its pair of languages --------------------------------------------------------------


class Run:
    """A run of train.py and the pair of its languages that is compared."""

    def __init__(self, folder):
        self.folder, self.name = Path(folder), Path(folder).name
        self.model, languages, state = load_run(folder)
        self.device = pick_device(device)
        self.model.to(self.device)
        self.settings, self.steps = state['settings'], state['step']
        keys = 'stages', 'max_steps', 'batch_size', 'block_size', 'seed'
        settings = [self.settings[key] for key in keys]
        parallel_epochs = self.settings.get('parallel_epochs', False)  # older runs lack it
        self.mix = LanguageMix(languages, *settings, parallel_epochs)
        self.languages = pair_of_languages(languages, folder)
        self.clones = self.languages[0].corpus is self.languages[1].corpus
        read = self.mix.before[self.steps]  # sequences of each language
        shares = [
            read[languages.index(language)] / max(1, sum(read)) for language in self.languages
        ]
        self.shares = [float(share) for share in shares]  # of what the run has read
        self.pair = ' and '.join(language.name for language in self.languages)

    def of_sequences(self, measure, title):
        """measure(model, ids_1, ids_2) of every pair of sequences: (list, their documents, what was
        compared in words)."""
        measured, documents = [], []
        for *sides, number in tqdm(self.sequences, f'{self.name}: {title}', leave=False):
            ids = [language.table[side] for language, side in zip(self.languages, sides)]
            measured.append(measure(self.model, *ids))
            documents.append(number)
        compared = f'{len(documents):,} pairs of sequences'
        if self.clones and not parallel:
            compared += f' of {len(set(documents)):,} documents'
        return measured, documents, compared

    def read_sequences(self):
        """Makes `sequences`: list of (side_1, side_2, document), two arrays of ids of the corpora
        and a number."""
        longest = min(max_tokens, self.model.config.block_size)
        shortest = min_tokens or max(4, longest // 4)
        if not 4 <= shortest <= longest:
            raise ConfigError(
                f'min_tokens must lie between 4 and {longest} (max_tokens and block_size), not '
                f'{shortest}'
            )
        files = [str(path) for path in parallel]
        self.sequences = sequence_pairs(*self.languages, files, pairs, longest, shortest)

    def read_sentences(self):
        """Makes `sentences`, the two that are matched: ids of the two corpora."""
        texts, block_size = (sentence_1, sentence_2 or sentence_1), self.model.config.block_size
        if sentence_1 and not sentence_2 and not self.clones:
            raise ConfigError(f'{self.pair} are no clones: give --sentence_2 as well')
        if sentence_1:
            tokenizers = [language.corpus.load_tokenizer() for language in self.languages]
            sides = [pieces.encode(text) for pieces, text in zip(tokenizers, texts)]
        else:
            self.read_sequences()
            sides = [side[: shown[1]] for side in self.sequences[0][:2]]
        for side in sides:
            if not shown[0] < len(side) <= block_size:
                raise ConfigError(
                    f'a sentence must have {shown[0] + 1} (shown) to {block_size} (block_size) '
                    f'tokens, and one has {len(side)}'
                )
        self.sentences = [np.array(side) for side in sides]

    @functools.cached_property
    def entries(self):
        """Vocabulary entries of the pieces that are compared: (2, n) ids of the model.

        Pieces of clones, or those of two languages that are spelled alike, unless they are one
        entry."""
        ids = np.arange(self.languages[0].corpus.vocab_size)[None].repeat(2, 0)
        if not self.clones:
            spellings = [spellings_of(language) for language in self.languages]
            id_of = {spelling: i for i, spelling in enumerate(spellings[1])}
            alike = [(i, id_of[text]) for i, text in enumerate(spellings[0]) if text in id_of]
            ids = np.array(alike, dtype=int).reshape(-1, 2).T
        entries = np.stack([lang.table[side] for lang, side in zip(self.languages, ids)])
        return entries[:, (entries[0] != entries[1]) & (entries[0] != PAD)]

    def pieces(self, entries, addition=''):
        """What was compared, in words."""
        kind = 'clones' if self.clones else 'pieces spelled alike'
        return f'{entries.shape[1]:,} {kind}{addition}' if self.entries.size else NO_PIECES

    def embeddings(self):
        """{kind: (entries, width)}"""
        weights = self.model.wte.weight, self.model.head.weight
        return {kind: weight.detach().cpu() for kind, weight in zip(KINDS, weights)}

    def times_read(self, steps):
        """How often each entry was read in the first `steps` steps of the run: (vocab_size,)."""
        times = np.zeros(self.model.config.vocab_size, np.int64)
        for step in tqdm(range(steps), f'{self.name}: counts', unit=' steps', leave=False):
            times += np.bincount(self.mix.batch(step)[0].ravel(), minlength=len(times))
        return times


def pair_of_languages(languages, folder):
    """The two languages that the settings name, else the first two."""
    named = {language.name: language for language in languages}
    if len(named) < 2:
        raise ConfigError(f'{folder} has one language: a similarity needs a run with two')
    for name in (language_1, language_2):
        if name and name not in named:
            raise ConfigError(f'{folder} has no language {name!r}, only {", ".join(named)}')
    if language_1 and language_1 == language_2:
        raise ConfigError(f'both languages are {language_1!r}: choose two languages')
    first = language_1 or next(name for name in named if name != language_2)
    second = language_2 or next(name for name in named if name != first)
    return named[first], named[second]


def spellings_of(language):
    """The pieces of a language's tokeniser as text."""
    pieces = language.corpus.load_tokenizer()
    return [pieces.id_to_piece(token) for token in range(len(pieces))]


# --- the studies: what each measures of a run -----------------------------------------------------

# A study returns a dict. `compared` says in words what was compared, and similarity.tables shows
# the figures: an Estimate (L,) of each block, a dict of Estimates, or a dict of such.


def study_embeddings(run):
    """Cosine of corresponding pieces' input and output embeddings, and its controls (Figure 6)."""
    paired = run.entries.size > 0
    rows = run.entries if paired else [np.setdiff1d(lang.table, PAD) for lang in run.languages]
    values = dict(compared=run.pieces(run.entries))
    for kind, weight in run.embeddings().items():
        values[kind] = similarity.compare_vectors(weight[rows[0]], weight[rows[1]], paired, seed)
    return values


def study_frequency(run):
    """The same by how often the rarer piece was read in training, in half decades (Figure 7)."""
    values = dict(compared=run.pieces(run.entries), input={}, output={}, pieces={})
    rarer = run.times_read(run.steps)[run.entries].min(0)
    edges = [0, *np.ceil(10 ** (np.arange(22) / 2)).astype(int)]
    for low, high in zip(edges, edges[1:]):
        entries = run.entries[:, (rarer >= low) & (rarer < high)]
        name = f'{low:,} to {high - 1:,}' if low else '0'
        if entries.shape[1] > 1:
            values['pieces'][name] = entries.shape[1]
            for kind, weight in run.embeddings().items():
                cosines = similarity.compare_vectors(*weight[entries], seed=seed)
                values[kind][name] = dict(pairs=cosines['pairs'], random=cosines['random'])
    return values


def study_hidden(run):
    """Hidden states of corresponding tokens, retrieval and linear CKA (Tables 2 and 4)."""
    compare = functools.partial(
        similarity.compare_states, clones=run.clones, threshold=matching_threshold
    )
    states, documents, compared = run.of_sequences(compare, 'hidden states')
    hsic = Estimate.of([state.pop('hsic') for state in states], documents, similarity.cka)
    means = {name: Estimate.of([s[name] for s in states], documents) for name in states[0]}
    return dict(compared=compared, **means, cka=hsic)


def study_gradients(run):
    """Cosine of the gradients of the two sides, kinds of tensors x blocks (Figures 11 to 13)."""
    cosines, documents, compared = run.of_sequences(similarity.gradient_similarity, 'gradients')
    kinds, tensors = {}, {}
    for name in cosines[0]:
        values = [c[name] for c in cosines]
        if name.startswith('blocks.'):
            kind = name.split('.', 2)[2]
            kinds.setdefault(kind, []).append(values)  # block after block
        else:
            tensors[name] = Estimate.of(values, documents)
    macro = Estimate.of(np.mean(list(kinds.values()), axis=(0, 1)), documents)
    gradients = {kind: Estimate.of(np.transpose(c), documents) for kind, c in kinds.items()}
    return dict(compared=compared, gradients=gradients, tensors={'macro average': macro} | tensors)


def study_matching(run):
    """The matching of one pair of sentences by the mean cosine over the blocks (Figure 14)."""
    sides = list(zip(run.languages, run.sentences))
    cosines = similarity.token_cosines(run.model, *(lang.table[ids] for lang, ids in sides)).mean(0)
    rows, columns = similarity.match_tokens(cosines, matching_threshold)
    texts = []
    for language, ids in sides:
        spellings = spellings_of(language)
        texts.append([spellings[token] for token in ids])
    matches = [[int(i), int(j), float(cosines[i, j])] for i, j in zip(rows, columns)]
    share = 2 * len(matches) / sum(cosines.shape)
    names = [language.name for language in run.languages]
    return dict(compared='one pair', share=share, names=names, tokens=texts, matches=matches)


def list_matches(labels, results):
    """The matched tokens of each run as text: generator."""
    for label, values in zip(labels, results):
        lines = [f'{label}: {values["share"]:.0%} of the tokens matched, with a mean cosine of']
        for i, j, cosine in values['matches']:
            if shown[0] <= i < shown[1]:
                tokens = values['tokens'][0][i], values['tokens'][1][j]
                lines.append(f'  {tokens[0]:>16}  {tokens[1]:<16}{cosine:>7.3f}')
        yield '\n'.join([*lines, ''])


def study_word2vec(run):
    """Gensim's Word2Vec on the run's text, whose vectors share no parameter between the languages
    (Appendix C, Figure 6 right). Compared are pieces that both languages have read five times."""
    steps = min(word2vec_steps or run.steps, run.settings['max_steps'])
    times = run.times_read(steps)
    entries = run.entries[:, (times[run.entries] >= 5).all(0)]
    values = dict(compared=run.pieces(entries, ', read five times'))
    if entries.shape[1] > 1:
        vectors = word_vectors(run.mix, steps, len(times), word2vec_dim, seed)
        for kind, rows in zip(KINDS, vectors):
            values[kind] = similarity.compare_vectors(*rows[entries], seed=seed)
    return values


def word_vectors(mix, steps, entries, dim, seed=0):
    """Input and output vectors, (2, entries, dim), of Gensim's Word2Vec on a mix's first steps.

    As in the paper: continuous bag of words, 5 on each side, 20 noise words, one epoch. Entries
    that occur less than five times get zeros. One thread: the result of several depends on their
    race."""

    class Sentences:  # read twice: for the vocabulary, then for the vectors
        def __iter__(self):
            for step in tqdm(range(steps), 'word2vec', unit=' steps', leave=False):
                yield from (ids.astype(str).tolist() for ids in mix.batch(step)[0])

    settings = dict(vector_size=dim, window=5, negative=20, epochs=1, seed=seed + 1, workers=1)
    model = load_gensim()(Sentences(), **settings)
    vectors, known = torch.zeros(2, entries, dim), [int(word) for word in model.wv.index_to_key]
    vectors[:, known] = torch.from_numpy(np.stack([model.wv.vectors, model.syn1neg]))
    return vectors


def load_gensim():
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise ConfigError('word2vec needs the package gensim: pip install gensim') from None
    return Word2Vec


# --- their pictures -------------------------------------------------------------------------------

Row = namedtuple('Row', 'label share values')  # a run, or the mean of several seeds


@contextlib.contextmanager
def picture(path, title, size, **layout):
    """Axes (rows, columns) of a picture of `size` inches; saves it with title and legend."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size, squeeze=False, layout='constrained', **layout)
        yield axes
        entries = [zip(*ax.get_legend_handles_labels()) for ax in axes.flat]
        handles = {label: handle for handle, label in itertools.chain(*entries)}
        if handles:
            columns = max(1, int(14 * size[0] / (8 + max(map(len, handles)))))
            place = dict(loc='outside lower center', ncols=columns)
            figure.legend(handles.values(), handles, **place)
        figure.suptitle(textwrap.fill(title, int(10 * size[0])), fontsize=11)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def draw_lines(path, title, panels, xlabel, x, ticks):
    """A panel for each title, with lines (label, x, Estimate (n,), color, format).

    Lines stand a little beside each other. Cosines share their axis; shares and CKA go from 0 to
    1. x, ticks: places and texts of the axis."""
    title, apart = f'{title}; bars: 90% intervals', 0.012 * (max(x) - min(x) or 1)
    crowded = dict(rotation=30, ha='right') if len(''.join(map(str, ticks))) > 28 else {}
    with picture(path, title, (1.8 + 3 * len(panels), 4.3), ncols=len(panels)) as axes:
        for ax, (heading, lines) in zip(axes[0], panels.items()):
            for number, (label, places, estimate, color, fmt) in enumerate(lines):
                low, high = estimate.interval()
                bars = np.maximum([estimate.value - low, high - estimate.value], 0)
                places = np.array(places) + apart * (number - (len(lines) - 1) / 2)
                look = dict(label=label, color=color, fmt=fmt, ms=4, capsize=2)
                ax.errorbar(places, estimate.value, bars, **look)
            ax.set(title=heading, xlabel=xlabel)
            ax.set_xticks(x, ticks, **crowded)
            ax.margins(x=0.5 / (len(x) + 1))
        cosines = [ax for ax in axes[0] if ax.get_title().startswith('cosine')]
        limits = [ax.get_ylim() for ax in cosines]
        for ax in axes[0]:
            low, high = np.transpose(limits) if ax in cosines else ([-0.03], [1.03])
            ax.set_ylim(min(low), max(high))


def draw_vectors(rows, title, path):
    """Cosines over the share of the first language; runs of equal shares get a place each."""
    by_share = len({f'{row.share:.2f}' for row in rows}) == len(rows)
    rows = sorted((row for row in rows if row.values.get('input')), key=lambda row: row.share)
    x, ticks, xlabel = range(len(rows)), [textwrap.fill(row.label, 20) for row in rows], ''
    if by_share:
        x, xlabel = [100 * row.share for row in rows], 'share of the first language, %'
        ticks = [f'{value:.0f}' for value in x]
    looks = dict(pairs=(OTHERS[0], 'o-'), random=(GREY, 's:'), any=(OTHERS[1], 'D:'))
    panels = {similarity.TITLES[kind]: [] for kind in KINDS}
    for kind, (measure, look) in itertools.product(KINDS, looks.items()):
        results = [row.values[kind].get(measure) for row in rows]
        if any(results):  # anchored runs have no pairs
            line = similarity.NAMES[measure], x, Estimate.joined(results), *look
            panels[similarity.TITLES[kind]].append(line)
    draw_lines(path, title, panels, xlabel, x, ticks)


def draw_frequency(rows, title, path):
    names = {
        name: int(name.split()[0].replace(',', '')) for row in rows for name in row.values['input']
    }
    bins = sorted(names, key=names.get)
    panels = {similarity.TITLES[kind]: [] for kind in KINDS}
    for kind, (row, color) in itertools.product(KINDS, zip(rows, itertools.cycle(OTHERS))):
        x = [bins.index(name) for name in row.values[kind]]
        for measure, fmt in dict(pairs='o-', random='s:').items():
            cells = [cosines[measure] for cosines in row.values[kind].values()]
            if cells:  # anchored runs have none
                line = f'{row.label}: {similarity.NAMES[measure]}', x, Estimate.joined(cells)
                panels[similarity.TITLES[kind]].append((*line, color, fmt))
    xlabel, ticks = 'times that the rarer piece was read, at least', [f'{names[b]:,}' for b in bins]
    draw_lines(path, title, panels, xlabel, range(len(bins)), ticks)


def draw_hidden(rows, title, path):
    blocks = max(len(row.values['any'].value) for row in rows)
    panels = {}
    for row, color in zip(rows, itertools.cycle(OTHERS)):
        for measure, heading in similarity.TITLES.items():
            if measure in row.values:  # real languages have no positions to compare
                estimate = row.values[measure]
                x = range(1, len(estimate.value) + 1)
                panels.setdefault(heading, []).append((row.label, x, estimate, color, 'o-'))
    x = range(1, blocks + 1, 1 + blocks // 13)
    draw_lines(path, title, panels, 'block', x, x)


def draw_gradients(rows, title, path):
    """Heat maps, kinds of tensors x blocks, of each run and of the difference of two."""
    kinds, panels = list(rows[0].values['gradients']), {}
    for row in rows:
        matrix = np.stack([estimate.value for estimate in row.values['gradients'].values()])
        macro = row.values['tensors']['macro average'].value
        panels[f'{row.label}\nmacro average {macro:.2f}'] = matrix
    if len(rows) == 2 and len({matrix.shape for matrix in panels.values()}) == 1:
        first, second = panels.values()
        panels['difference'] = second - first
    blocks = max(matrix.shape[1] for matrix in panels.values())
    size = 2 + len(panels) * max(3.4, 1 + 0.42 * blocks), 6.2
    with picture(path, title, size, ncols=len(panels), sharey=True) as axes:
        for ax, (heading, matrix) in zip(axes[0], panels.items()):
            image = ax.imshow(matrix, cmap='RdBu_r', vmin=-1, vmax=1, aspect='auto')
            for (row, column), value in np.ndenumerate(matrix):
                look = dict(fontsize=7, color='white' if abs(value) > 0.6 else 'black')
                text = f'{value:.2f}'.replace('-0.00', '0.00')
                ax.text(column, row, text, ha='center', va='center', **look)
            ax.set(title=heading, xlabel='block')
            ax.set_xticks(range(matrix.shape[1]), range(1, matrix.shape[1] + 1))
            ax.set_yticks(range(len(kinds)), kinds)
            ax.grid(False)
        ax.figure.colorbar(image, ax=axes, label='cosine of gradients', shrink=0.6)


def draw_matching(rows, title, path):
    """Two rows of tokens for each run, lines between those that are matched.

    A line that ends at ... leads to a token before or after those that are shown."""
    first, end = shown
    texts = [tokens[first:end] for row in rows for tokens in row.values['tokens']]
    width = max([30] + [sum(len(text) + 1.6 for text in line) for line in texts])  # characters
    cosines = [cosine for row in rows for *_, cosine in row.values['matches']] or [0]
    scale, colors = plt.Normalize(min(cosines), max(cosines)), plt.get_cmap('viridis_r')
    size = 0.088 * width + 2.6, 0.8 + 2.8 * len(rows)
    with picture(path, title, size, nrows=len(rows)) as axes:
        for ax, row in zip(axes[:, 0], rows):
            places = [
                draw_tokens(ax, row.values['tokens'][i], width, y) for i, y in ((0, 1), (1, 0))
            ]
            for *tokens, cosine in row.values['matches']:
                if tokens[0] not in places[0] and tokens[1] not in places[1]:
                    continue
                x, weight = [], float(scale(cosine))
                for place, token, y in zip(places, tokens, (1, 0)):
                    x.append(place.get(token, -3 if token < first else width + 3))
                    if token not in place:
                        ax.text(x[-1], y, '...', ha='center', va='center', family='monospace')
                ax.plot(x, [0.91, 0.09], color=colors(weight), lw=0.6 + 2.4 * weight)
            for name, y in zip(row.values['names'], (1, 0)):
                ax.text(-6, y, name, ha='right', va='center', weight='bold', parse_math=False)
            margin = 7 + 1.3 * max(map(len, row.values['names']))
            ax.set(xlim=(-margin, width + 5), ylim=(-0.15, 1.15))
            ax.set_title(row.label, parse_math=False)
            ax.axis('off')
        mapped = plt.cm.ScalarMappable(scale, colors)
        ax.figure.colorbar(mapped, ax=axes, label='mean cosine over the blocks', shrink=0.9)


def draw_tokens(ax, tokens, width, y):
    """Writes the tokens that are shown in the middle of `width`; returns {position: x}."""
    tokens, places = tokens[slice(*shown)], {}
    x = (width - sum(len(text) + 1.6 for text in tokens)) / 2
    box = dict(boxstyle='square,pad=0.15', fc='0.95', ec='0.6', lw=0.6)
    look = dict(ha='center', va='center', fontsize=10, family='monospace', parse_math=False)
    for position, text in enumerate(tokens, shown[0]):
        places[position] = x + len(text) / 2
        ax.text(places[position], y, text, bbox=box, zorder=5, **look)
        x += len(text) + 1.6
    return places


# --- the runs side by side ------------------------------------------------------------------------

# what measures a run, what makes its tables, what draws it
STUDIES = dict(
    embeddings=(study_embeddings, similarity.tables, draw_vectors),
    frequency=(study_frequency, similarity.tables, draw_frequency),
    hidden=(study_hidden, similarity.tables, draw_hidden),
    gradients=(study_gradients, similarity.tables, draw_gradients),
    matching=(study_matching, list_matches, draw_matching),
    word2vec=(study_word2vec, similarity.tables, draw_vectors),
)


def check_settings():
    """The names of the studies. Raises ConfigError for settings that contradict each other."""
    if bool(out_dir) == bool(out_dirs):
        raise ConfigError('say what to analyze: --out_dir=out/RUN, or --out_dirs=[out/A,out/B]')
    if sentence_2 and not sentence_1:
        raise ConfigError('sentence_2 is the translation of sentence_1: give both')
    for name, least in dict(pairs=1, max_tokens=4, word2vec_dim=1, word2vec_steps=0).items():
        if globals()[name] < least:
            raise ConfigError(f'{name} must be at least {least}, not {globals()[name]}')
    if not 0 <= matching_threshold < 1:
        raise ConfigError(f'matching_threshold must be below 1, not {matching_threshold}')
    if [type(end) for end in shown] != [int, int] or not 0 <= shown[0] < shown[1]:
        raise ConfigError(f'shown must be two positions as in [0,24], not {shown}')
    names = list(STUDIES) if study == 'all' else [name.strip() for name in study.split(',')]
    if not set(names) <= set(STUDIES):
        raise ConfigError(f'study must be some of {", ".join(STUDIES)}, or all, not {study!r}')
    if 'word2vec' in names:
        try:
            load_gensim()
        except ConfigError as error:
            if study != 'all':
                raise
            print(f'{error}; this study is left out')
            names.remove('word2vec')
    return names


def grouped(runs):
    """The runs in groups that differ in their seed alone: list of lists."""
    groups = {}
    for trained in runs:
        settings = trained.settings
        same = {name: settings[name] for name in settings.keys() - FREE - {'init_from', 'seed'}}
        key = repr((sorted(same.items()), trained.steps, trained.pair))
        while any(other.settings['seed'] == settings['seed'] for other in groups.get(key, [])):
            key += ', a copy'  # which is not another seed
        groups.setdefault(key, []).append(trained)
    return list(groups.values())


def label_of(run, *replicates):
    """What a run is called in tables and pictures, or runs that differ in their seed alone."""
    label = run.name
    if replicates:
        label += f' and {len(replicates)} more seed{"s" if replicates[1:] else ""}'
    label += f' ({run.shares[0]:.0%}/{run.shares[1]:.0%}'
    if run.steps < run.settings['max_steps']:
        label += f', step {run.steps:,} of {run.settings["max_steps"]:,}'
    return f'{label})'


def measured(name, run):
    """What a study says of a run; also written to its folder."""
    start = time.perf_counter()
    with memory_advice('lower max_tokens, or use --device=cpu'):
        values = STUDIES[name][0](run)
    about = dict(run=run.name, step=run.steps, share_1=run.shares[0], parallel=parallel)
    about |= {f'language_{i}': language.name for i, language in enumerate(run.languages, 1)}
    about['seconds'] = time.perf_counter() - start
    write_json(run.folder / f'{name}.json', similarity.plain(about | values))
    print(f'wrote {run.folder}/{name}.json ({about["seconds"]:.0f} s)')
    return values


def analyze(name, runs):
    """Makes one study of the runs: measures, prints the tables, writes the files."""
    groups = [[run] for run in runs] if name == 'matching' else grouped(runs)  # it has no mean
    results = [[measured(name, run) for run in group] for group in groups]
    results = [similarity.over_seeds(values, number) for number, values in enumerate(results)]
    labels, languages = [label_of(*group) for group in groups], [run.pair for run, *_ in groups]
    if len(set(languages)) > 1:
        labels = [f'{label}, {pair}' for label, pair in zip(labels, languages)]
    compared = [values['compared'] for values in results]
    title = f'{name}: {"; ".join(dict.fromkeys(languages))}'
    if len(set(compared)) == 1:
        title += f', {compared[0]}'
    models = {1: 'this model', 2: 'these two models'}
    title += f', of {models.get(len(groups), f"these {len(groups)} models")}'
    if any(len(group) > 1 for group in groups):
        title += ' and their seeds'
    print(f'{title} (±: half of the 90% interval)' if name != 'matching' else title, end='\n\n')
    for label, text in zip(labels, compared):
        if len(set(compared)) > 1:
            print(f'{label}: {text}')
    _, tables_of, draw = STUDIES[name]
    texts = list(tables_of(labels, results))
    print(*texts, sep='\n')
    stem = '-'.join([name] + [run.name for run in runs if len(runs) > 1])
    path = runs[0].folder / f'{stem}.png'
    change = similarity.difference(*results) if len(groups) == 2 else None
    if change or len(groups) < len(runs):
        together = dict(runs=labels, values=results, difference=change)
        write_json(path.with_suffix('.json'), similarity.plain(together))
    if texts:  # an anchored vocabulary leaves some studies without pieces
        shares = [run.shares[0] for run, *_ in groups]
        draw([Row(*row) for row in zip(labels, shares, results)], title, path)
        print(f'wrote {path}\n')


def main():
    names = check_settings()
    runs = [Run(folder) for folder in out_dirs or [out_dir]]
    if len({trained.name for trained in runs}) < len(runs):
        raise ConfigError(f'the runs need folders of different names, not {", ".join(out_dirs)}')
    for trained in runs:  # a mistake in the text is known before hours of work
        if {'hidden', 'gradients'} & set(names):
            trained.read_sequences()
        if 'matching' in names:
            trained.read_sentences()
    for name in names:
        analyze(name, runs)


if __name__ == '__main__':
    run(globals(), main)
