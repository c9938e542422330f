"""Similarity and matching studies of the runs of train.py (Sections 4.2, 5.2; App. C, F, G).

    python analyze.py --out_dir=out/RUN                      # all studies
    python analyze.py --out_dir=out/RUN --study=hidden --parallel=[europarl.en,europarl.fr]
    python analyze.py --out_dirs=[out/50_50,out/90_10]       # side by side, with the difference
    python analyze.py --out_dir=out/RUN --study=matching --sentence_1='Yes.' --sentence_2='Oui.'
    python analyze.py --out_dir=out/RUN --study=embeddings,lens --steps=all    # over training

embeddings: Figure 6, frequency: Figure 7, hidden: Tables 2 and 4, gradients: Figures 11 to 13,
lens: what each block would say, and in which language, switch: what a context in one language does
for a text in another, matching: Figure 14, word2vec: Figure 6 right. Each prints its tables and
writes STUDY.json and STUDY.png into the run's folder; of several runs the picture, and the
difference of two, go into the folder of the first; with --steps the files are STUDY-steps.json and
.png. Every mean has a 90% bootstrap interval: pieces are drawn anew, and test documents with all of
their sequences (of parallel text, which does not mark documents, the pairs). It is the interval of
these models; of several runs that differ in their seed alone the mean is shown, and runs are drawn
anew, too.
"""

import functools
import time
from collections import Counter, namedtuple
from pathlib import Path

from lib.configurator import ConfigError, run

import numpy as np
import torch
from tqdm import tqdm

from data import LanguageMix
from evaluate import load_run
from lib import lens, similarity
from lib import plots as pictures
from lib.checkpoint import checkpoint_paths, read_checkpoint
from lib.files import write_json
from lib.machine import memory_advice, pick_device
from lib.parallel import sequence_pairs, test_sequences
from lib.plots import KINDS
from lib.runs import FREE, full_settings
from lib.similarity import Estimate
from lib.tokenizer import PAD
from model import CHUNK_LOGITS

out_dir = ''  # folder of a run of train.py, for example out/demo
out_dirs = []  # instead: several runs, side by side; those that differ in seed alone are one row
study = 'all'  # or some of embeddings,frequency,hidden,gradients,lens,switch,matching,word2vec
steps = ''  # all, or some with commas: kept checkpoints, over which studies are drawn; '': the last
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


# --- a run and its pair of languages --------------------------------------------------------------


class Run:
    """A run of train.py and the pair of its languages that is compared."""

    def __init__(self, folder):
        self.folder, self.name = Path(folder), Path(folder).name
        self.model, languages, state = load_run(folder)
        self.model.to(pick_device(device))
        self.settings, self.steps = full_settings(state['settings']), state['step']
        keys = 'stages', 'max_steps', 'batch_size', 'block_size', 'seed'
        self.mix = LanguageMix(languages, *(self.settings[key] for key in keys))
        self.languages = pair_of_languages({lang.name: lang for lang in languages}, folder)
        self.clones = self.languages[0].corpus is self.languages[1].corpus
        self.pair = ' and '.join(language.name for language in self.languages)
        self.longest = min(max_tokens, self.model.config.block_size)  # tokens of a sequence
        self.counted = {0: 0}  # step -> how often each entry was read before it

    @property
    def shares(self):
        """Shares of the two languages in the sequences that the run has read."""
        read = self.mix.before[self.steps]
        numbers = [self.mix.languages.index(language) for language in self.languages]
        return [float(read[number] / max(1, read.sum())) for number in numbers]

    def ids(self, sides):
        """What the model reads for two texts of the corpora: two arrays of entries."""
        return [language.ids(side) for language, side in zip(self.languages, sides)]

    def compared(self, documents, kind):
        """How many were compared, in words."""
        of = f' of {len(set(documents)):,} documents' if self.clones and not parallel else ''
        return f'{len(documents):,} {kind}{of}'

    @functools.cached_property
    def sequences(self):
        """List of (side_1, side_2, document): two arrays of ids of the corpora, and a number."""
        shortest = min_tokens or max(4, self.longest // 4)
        if not 4 <= shortest <= self.longest:
            limits = f'4 and {self.longest} (max_tokens and block_size)'
            raise ConfigError(f'min_tokens must lie between {limits}, not {shortest}')
        files = [str(path) for path in parallel]
        return sequence_pairs(*self.languages, files, pairs, self.longest, shortest)

    @functools.cached_property
    def contexts(self):
        """List of (before, text, unrelated, document): a text, what stands before it and what
        stands before another one, each as entries in both languages, and a number.

        Of the test set of clones they are the halves of a sequence, of parallel text two sequences
        that follow each other. Raises ConfigError for less than two."""
        half = self.longest // 2
        if self.clones and not parallel:
            parts = [([a[:half], b[:half]], [a[half:], b[half:]], n) for a, b, n in self.sequences]
        else:
            both = zip(self.sequences, self.sequences[1:])
            both = [(a[-half:], b[-half:], c[:half], d[:half], n) for (a, b, _), (c, d, n) in both]
            parts = [(sides[:2], sides[2:], n) for *sides, n in both]
        if len(parts) < 2:
            raise ConfigError('switch needs more pairs of sequences, some of unrelated text')
        parts = [(self.ids(before), self.ids(text), number) for before, text, number in parts]
        others = parts[len(parts) // 2 :] + parts[: len(parts) // 2]
        return [(*texts, other[0], number) for (*texts, number), other in zip(parts, others)]

    @functools.cached_property
    def sentences(self):
        """The two sentences that are matched: ids of the two corpora."""
        if sentence_1 and not (sentence_2 or self.clones):
            raise ConfigError(f'{self.pair} are no clones: give --sentence_2 as well')
        if sentence_1:
            texts = zip(self.languages, (sentence_1, sentence_2 or sentence_1))
            sides = [language.corpus.load_tokenizer().encode(text) for language, text in texts]
        else:
            sides = [side[: shown[1]] for side in self.sequences[0][:2]]
        least, most = shown[0] + 1, self.model.config.block_size
        for length in map(len, sides):
            if not least <= length <= most:
                limits = f'{least} (shown) to {most} (block_size)'
                raise ConfigError(f'a sentence must have {limits} tokens, and one has {length}')
        return [np.array(side) for side in sides]

    @functools.cached_property
    def entries(self):
        """Vocabulary entries of the pieces that are compared: (2, n) ids of the model.

        They are spelled alike, as all pieces of clones are; those that are one entry do not
        count."""
        spellings, others = map(spellings_of, self.languages)
        id_of = {spelling: i for i, spelling in enumerate(others)}
        alike = [(i, id_of[text]) for i, text in enumerate(spellings) if text in id_of]
        ids = np.array(alike, dtype=int).reshape(-1, 2).T
        entries = np.stack([lang.table[side] for lang, side in zip(self.languages, ids)])
        return entries[:, (entries[0] != entries[1]) & (entries[0] != PAD)]

    def pieces(self, entries, addition=''):
        """What was compared, in words."""
        kind = 'clones' if self.clones else 'pieces spelled alike'
        none = 'no pieces that are pairs, since those spelled alike are one and the same entry'
        return f'{entries.shape[1]:,} {kind}{addition}' if self.entries.size else none

    def embeddings(self):
        """{kind: (entries, width)}"""
        weights = self.model.wte.weight, self.model.head.weight
        return {kind: weight.detach().cpu() for kind, weight in zip(KINDS, weights)}

    def times_read(self, steps):
        """How often each entry was read in the first `steps` steps of the run: (vocab_size,)."""
        first = max(step for step in self.counted if step <= steps)
        times = np.zeros(self.model.config.vocab_size, np.int64) + self.counted[first]
        for step in tqdm(range(first, steps), f'{self.name}: counts', unit=' steps', leave=False):
            times += np.bincount(self.mix.batch(step)[0].ravel(), minlength=len(times))
        self.counted[steps] = times
        return times


def pair_of_languages(languages, folder):
    """The two languages that the settings name, else the first two of {name: Language}."""
    for name in (language_1, language_2):
        if name and name not in languages:
            raise ConfigError(f'{folder} has no language {name!r}, only {", ".join(languages)}')
    if len(languages) < 2:
        raise ConfigError(f'{folder} has one language: a similarity needs a run with two')
    others = (name for name in languages if name not in (language_1, language_2))
    first, second = language_1 or next(others), language_2 or next(others)
    if first == second:
        raise ConfigError(f'both languages are {first!r}: choose two languages')
    return languages[first], languages[second]


def spellings_of(language):
    """The pieces of a language's tokeniser as text."""
    return language.corpus.load_tokenizer().spellings()


# --- the studies: what each measures of a run -----------------------------------------------------

# A study returns a dict. `compared` says in words what was compared, and similarity.tables shows
# the figures: an Estimate (L,) of each block, a dict of Estimates, or a dict of such.


def over_sequences(sequences, measure, title):
    """measure(*sides), a dict, of each of `sequences`, which end with the number of a document:
    ({name: list of n}, list of the n numbers)."""
    measured = [measure(*sides) for *sides, _ in tqdm(sequences, title, leave=False)]
    values = {name: [one[name] for one in measured] for name in measured[0]}
    return values, [number for *_, number in sequences]


def estimates(values, documents):
    return {name: Estimate.of(measured, documents) for name, measured in values.items()}


def study_embeddings(run):
    """Cosine of corresponding pieces' input and output embeddings, its controls (Figure 6), and
    their geometry."""
    values = dict(compared=run.pieces(run.entries))
    if run.entries.size:
        return values | vector_values(run.embeddings(), run.entries, run.times_read(run.steps))
    rows = [np.setdiff1d(language.table, PAD) for language in run.languages]
    for kind, weight in run.embeddings().items():
        values[kind] = similarity.compare_vectors(weight[rows[0]], weight[rows[1]], False, seed)
    return values


def vector_values(vectors, entries, times):
    """What is measured of each kind of vectors, {kind: (V, C)}, of corresponding entries (2, n);
    times: how often each entry was read, (V,)."""
    values, times = {}, times[entries[1]]
    for kind, weight in vectors.items():
        sides = weight[entries]
        values[kind] = similarity.compare_vectors(*sides, seed=seed, times=times)
        if entries.shape[1] > 3:  # two halves of two pieces
            values[f'{kind}_geometry'] = similarity.compare_geometry(*sides, seed, times)
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
                values[kind][name] = {key: cosines[key] for key in ('pairs', 'random')}
    return values


def study_hidden(run):
    """Hidden states of corresponding tokens, retrieval and linear CKA (Tables 2 and 4)."""

    def measure(*sides):
        places = [np.argsort(language.positions(len(sides[0]))) for language in run.languages]
        settings = run.clones, matching_threshold, places if run.clones else None
        return similarity.compare_states(run.model, *run.ids(sides), *settings)

    values, documents = over_sequences(run.sequences, measure, f'{run.name}: hidden states')
    cka = Estimate.of(values.pop('hsic'), documents, similarity.cka)
    compared = run.compared(documents, 'pairs of sequences')
    return dict(compared=compared, **estimates(values, documents), cka=cka)


def study_gradients(run):
    """Cosine of the gradients of the two sides, kinds of tensors x blocks (Figures 11 to 13)."""

    def measure(*sides):
        return similarity.gradient_similarity(run.model, *run.ids(sides))

    values, documents = over_sequences(run.sequences, measure, f'{run.name}: gradients')
    kinds = {}  # of tensors: (n, L)
    for name in [name for name in values if name.startswith('blocks.')]:
        kinds.setdefault(name.split('.', 2)[2], []).append(values.pop(name))
    macro = Estimate.of(np.mean(list(kinds.values()), axis=(0, 1)), documents)
    kinds = {kind: np.transpose(blocks) for kind, blocks in kinds.items()}
    return dict(
        compared=run.compared(documents, 'pairs of sequences'),
        gradients=estimates(kinds, documents),
        tensors={'macro average': macro} | estimates(values, documents),
    )


def study_lens(run):
    """The logit lens by language: what the model would say after each block of each language's
    test set, see lens.lens."""
    vocab_size, languages = run.model.config.vocab_size, run.mix.languages
    groups = lens.groups_of(*run.languages, vocab_size)
    tables = [language.table for language in languages]
    alike = lens.entries_alike(tables, map(spellings_of, languages), vocab_size)
    names = [language.name for language in run.languages] + ['shared', 'others']
    mass, losses, compared = {}, {}, []
    for language in run.languages:

        def measure(side, _, language=language):
            return lens.lens(run.model, language.ids(side), groups, alike, CHUNK_LOGITS)

        sequences = test_sequences(language.corpus, pairs, run.longest)
        values = over_sequences(sequences, measure, f'{run.name}: lens, {language.name}')
        compared.append(f'{len(sequences):,} sequences of {len(set(values[1]))} documents')
        of = estimates(*values)
        for group, name in enumerate(names[: groups.max() + 1]):
            if (groups == group).sum() > (group == 3) * len(tables):  # not padding alone
                mass[f'{language.name}: {name}'] = of['mass'][:, group]
        losses[f'{language.name}: next piece'] = of['loss']
        losses[f'{language.name}: any language'] = of['alike']
        losses[f'{language.name}: difference'] = of['loss'] - of['alike']
    several = int((alike[:, 1:] >= 0).any(1).sum())
    compared.append(f'{several:,} of {len(alike):,} entries spelled like another')
    return dict(compared=', '.join(dict.fromkeys(compared)), mass=mass, lens=losses)


def study_switch(run):
    """Losses on texts in one language after contexts in the other and in their own, by position in
    the text, see lens.CONTEXTS."""
    bins = lens.bins_of(max(len(side) for _, text, *_ in run.contexts for side in text))
    kinds = dict(switch=(lens.mean_loss, lens.CONTEXTS), told=(lens.told, lens.CONTEXTS[1:4]))
    values = {kind: {} for kind in kinds}
    for own, other in ((1, 0), (0, 1)):

        def measure(before, text, unrelated, own=own, other=other):
            contexts = [text[own][:0], before[own], before[other], text[other]]
            contexts += [unrelated[other], unrelated[own]]
            losses = lens.losses_after(run.model, contexts, text[own])
            return dict(sums=lens.losses_by_bin(losses, bins))

        name = run.languages[own].name
        measured, documents = over_sequences(run.contexts, measure, f'{run.name}: switch to {name}')
        for kind, (statistic, contexts) in kinds.items():
            means = Estimate.of(measured['sums'], documents, statistic)
            for row, context in enumerate(contexts):
                cells = {label: means[row, column] for column, label in enumerate(bins)}
                values[kind][f'{name}: {context}'] = cells
    return dict(compared=run.compared(documents, 'texts')) | values


def study_matching(run):
    """The matching of one pair of sentences by the mean cosine over the blocks (Figure 14)."""
    sides = run.sentences
    cosines = similarity.token_cosines(run.model, *run.ids(sides)).mean(0)
    rows, columns = similarity.match_tokens(cosines, matching_threshold)
    spellings = [spellings_of(language) for language in run.languages]
    return dict(
        compared='one pair',
        share=2 * len(rows) / sum(cosines.shape),
        names=[language.name for language in run.languages],
        tokens=[[spelled[token] for token in side] for spelled, side in zip(spellings, sides)],
        matches=[[int(i), int(j), float(cosines[i, j])] for i, j in zip(rows, columns)],
        shown=shown,
    )


def list_matches(labels, results):
    """The matched tokens of each run as text: generator."""
    for label, values in zip(labels, results):
        lines = [f'{label}: {values["share"]:.0%} of the tokens matched, with a mean cosine of']
        for i, j, cosine in values['matches']:
            if shown[0] <= i < shown[1]:
                first, second = values['tokens'][0][i], values['tokens'][1][j]
                lines.append(f'  {first:>16}  {second:<16}{cosine:>7.3f}')
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
        values |= vector_values(dict(zip(KINDS, vectors)), entries, times)
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


# --- the runs side by side ------------------------------------------------------------------------

# what measures a run, draws it, is drawn of it over training steps, and makes its tables
Study = namedtuple('Study', 'measure draw figures tables', defaults=[None, similarity.tables])
STUDIES = dict(
    embeddings=Study(study_embeddings, pictures.draw_vectors, pictures.figures_of_vectors),
    frequency=Study(study_frequency, pictures.draw_frequency, pictures.figures_of_frequency),
    hidden=Study(study_hidden, pictures.draw_blocks, pictures.figures_of_hidden),
    gradients=Study(study_gradients, pictures.draw_gradients, pictures.figures_of_gradients),
    lens=Study(study_lens, pictures.draw_blocks, pictures.figures_of_lens),
    switch=Study(study_switch, pictures.draw_switch, pictures.figures_of_switch),
    matching=Study(study_matching, pictures.draw_matching, tables=list_matches),
    word2vec=Study(study_word2vec, pictures.draw_vectors),
)
# what of a Run some studies need, and raises ConfigError for a mistake in the settings
READS = dict(hidden='sequences', gradients='sequences', switch='contexts', matching='sentences')


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
    alone = [name for name in names if steps and not STUDIES[name].figures]
    if alone and study != 'all':
        raise ConfigError(f'{" and ".join(alone)}: not drawn over steps, leave out --steps')
    return [name for name in names if name not in alone]


def grouped(runs, alone=False):
    """The runs that differ in their seed alone, or each run alone: {what tables and pictures call
    them: list}."""
    groups, seen, labelled = {}, Counter(), {}
    for trained in runs:
        same = {k: v for k, v in trained.settings.items() if k not in {*FREE, 'init_from', 'seed'}}
        key = repr((sorted(same.items()), trained.steps, trained.pair, alone and trained.name))
        seen[key, trained.settings['seed']] += 1  # a copy is not another seed
        groups.setdefault((key, seen[key, trained.settings['seed']]), []).append(trained)
    for first, *more in groups.values():
        label = first.name
        label += f' and {len(more)} more seed{"s" if more[1:] else ""}' if more else ''
        label += f' ({first.shares[0]:.0%}/{first.shares[1]:.0%}'
        if first.steps < first.settings['max_steps'] and not steps:
            label += f', step {first.steps:,} of {first.settings["max_steps"]:,}'
        label += f'), {first.pair}' if len({trained.pair for trained in runs}) > 1 else ')'
        labelled[label] = [first, *more]
    return labelled


def path_of(runs, name):
    """Where the picture of some runs is written, in the folder of the first."""
    return runs[0].folder / f'{"-".join([name, *(run.name for run in runs if runs[1:])])}.png'


def measured(name, run):
    """What a study says of a run; also written to its folder."""
    start = time.perf_counter()
    with memory_advice('lower max_tokens, or use --device=cpu'):
        values = STUDIES[name].measure(run)
    about = dict(run=run.name, step=run.steps, share_1=run.shares[0], parallel=parallel)
    about |= {f'language_{i}': language.name for i, language in enumerate(run.languages, 1)}
    about['seconds'] = time.perf_counter() - start
    write_json(run.folder / f'{name}.json', similarity.plain(about | values))
    print(f'wrote {run.folder}/{name}.json ({about["seconds"]:.0f} s)')
    return values


def analyze(name, runs, groups):
    """Makes one study of the runs: measures, prints the tables, writes the files."""
    _, draw, _, tables = STUDIES[name]
    results = [[measured(name, run) for run in group] for group in groups.values()]
    results = [similarity.over_seeds(values, number) for number, values in enumerate(results)]
    compared = [values['compared'] for values in results]
    same = len(set(compared)) == 1
    title = f'{name}: {"; ".join(dict.fromkeys(run.pair for run in runs))}'
    title += f', {compared[0]}' if same else ''
    models = {1: 'this model', 2: 'these two models'}
    title += f', of {models.get(len(groups), f"these {len(groups)} models")}'
    title += ' and their seeds' if len(groups) < len(runs) else ''
    print(title if name == 'matching' else f'{title} (±: half of the 90% interval)', end='\n\n')
    for label, text in () if same else zip(groups, compared):
        print(f'{label}: {text}')
    texts = list(tables(groups, results))
    print(*texts, sep='\n')
    path = path_of(runs, name)
    change = similarity.difference(*results) if len(groups) == 2 else None
    if change or len(groups) < len(runs):
        together = dict(runs=list(groups), values=results, difference=change)
        write_json(path.with_suffix('.json'), similarity.plain(together))
    if texts:  # an anchored vocabulary leaves some studies without pieces
        shares = [run.shares[0] for run, *_ in groups.values()]
        draw([pictures.Row(*row) for row in zip(groups, shares, results)], title, path)
        print(f'wrote {path}\n')


def chosen_steps(run):
    """The steps of `steps` that a run has checkpoints of."""
    kept = list(checkpoint_paths(run.folder))
    try:
        chosen = kept if steps == 'all' else sorted({int(s) for s in steps.strip('[]').split(',')})
    except ValueError:
        raise ConfigError(f'steps must be all, or steps as in 100,200, not {steps!r}') from None
    for step in set(chosen) - set(kept):
        there = f'{", ".join(map(str, kept))}; --keep_checkpoints of train.py keeps more'
        raise ConfigError(f'{run.folder} has no checkpoint of step {step:,}, only of {there}')
    return chosen


def analyze_steps(name, runs, groups):
    """Makes one study of checkpoints of the runs: prints tables, writes files of its main figures
    over training steps."""
    series, title = {}, f'{name} over training: {"; ".join(dict.fromkeys(r.pair for r in runs))}'
    for number, (label, group) in enumerate(groups.items()):
        chosen, series[label] = set.intersection(*(set(chosen_steps(run)) for run in group)), {}
        for step in tqdm(sorted(chosen), f'{label}: {name}', unit=' checkpoints', leave=False):
            for trained in group:
                state = read_checkpoint(checkpoint_paths(trained.folder)[step])
                trained.model.load_state_dict(state['model'])
                trained.steps = step
            values = similarity.over_seeds([STUDIES[name].measure(run) for run in group], number)
            series[label][step] = STUDIES[name].figures(values)
    print(f'{title} (±: half of the 90% interval)\n')
    lines = {label: pictures.joined(figures.values()) for label, figures in series.items()}
    for label, panels in lines.items():
        for heading, rows in panels.items():
            columns = [f'{step:,}' for step in series[label]]
            print(similarity.table_text(f'{label}: {heading}', rows, columns))
    path = path_of(runs, f'{name}-steps')
    written = {label: dict(steps=list(series[label]), figures=lines[label]) for label in series}
    write_json(path.with_suffix('.json'), similarity.plain(written))
    if any(lines.values()):
        pictures.draw_steps(series, title, path)
        print(f'wrote {path}\n')


def main():
    names = check_settings()
    runs = [Run(folder) for folder in out_dirs or [out_dir]]
    if len({trained.name for trained in runs}) < len(runs):
        raise ConfigError(f'the runs need folders of different names, not {", ".join(out_dirs)}')
    for name in list(names):  # a mistake in the text is known before hours of work
        try:
            for trained in runs:
                getattr(trained, READS.get(name, 'pair'))
            if name == 'word2vec':
                load_gensim()
        except ConfigError as error:
            if study != 'all' or name not in ('switch', 'word2vec'):
                raise
            print(f'{error}; this study is left out')
            names.remove(name)
    for trained in runs if steps else ():
        chosen_steps(trained)
    pooled, single = grouped(runs), grouped(runs, alone=True)
    for name in names:
        groups = single if name == 'matching' else pooled  # a matching has no mean
        (analyze_steps if steps else analyze)(name, runs, groups)


if __name__ == '__main__':
    run(globals(), main)
