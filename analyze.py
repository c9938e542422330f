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
.png. pictures.py draws. Every mean has a 90% bootstrap interval: pieces are drawn anew, and test
documents with all of their sequences (parallel text does not mark documents, so there the pairs).
It is the interval of these models; of several runs that differ in their seed alone the mean is
shown, and runs are drawn anew, too.
"""

import functools
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import lens
import pictures
import similarity
from checkpoint import checkpoint_paths, load_run, read_checkpoint, write_json
from configurator import ConfigError, run
from data import LanguageMix, sequence_pairs, test_sequences
from device import memory_advice, pick_device
from model import PAD
from pictures import KINDS
from similarity import Estimate
from train import FREE

out_dir = ''  # folder of a run of train.py, for example out/demo
out_dirs = []  # instead: several runs, side by side; those that differ in seed alone are one row
study = 'all'  # all, or some with commas: embeddings,frequency,hidden,gradients,lens,switch,
# matching,word2vec
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

NO_PIECES = 'no pieces that are pairs, since those spelled alike are one and the same entry'


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
        self.pair = ' and '.join(language.name for language in self.languages)
        self.counted = {0: 0}  # step -> how often each entry was read before it

    def go_to(self, step):
        """Takes the model of the checkpoint of a step."""
        state = read_checkpoint(checkpoint_paths(self.folder)[step])
        self.model.load_state_dict(state['model'])
        self.steps = step

    @property
    def shares(self):
        """Shares of the two languages in the sequences that the run has read."""
        read = self.mix.before[self.steps]
        numbers = [self.mix.languages.index(language) for language in self.languages]
        return [float(read[number] / max(1, read.sum())) for number in numbers]

    def of_sequences(self, measure, title):
        """measure(model, ids_1, ids_2) of every pair of sequences: (list, their documents, what was
        compared in words)."""
        measured, documents = [], []
        for *sides, number in tqdm(self.sequences, f'{self.name}: {title}', leave=False):
            ids = [ids_of(language, side) for language, side in zip(self.languages, sides)]
            measured.append(measure(self.model, *ids))
            documents.append(number)
        return measured, documents, self.counted_pairs('pairs of sequences', documents)

    def counted_pairs(self, kind, documents):
        """How many were compared, in words."""
        of = f' of {len(set(documents)):,} documents' if self.clones and not parallel else ''
        return f'{len(documents):,} {kind}{of}'

    @property
    def longest(self):
        """Tokens of the longest sequence."""
        return min(max_tokens, self.model.config.block_size)

    def read_sequences(self):
        """Makes `sequences`: list of (side_1, side_2, document), two arrays of ids of the corpora
        and a number."""
        shortest = min_tokens or max(4, self.longest // 4)
        if not 4 <= shortest <= self.longest:
            raise ConfigError(
                f'min_tokens must lie between 4 and {self.longest} (max_tokens and block_size), '
                f'not {shortest}'
            )
        files = [str(path) for path in parallel]
        self.sequences = sequence_pairs(*self.languages, files, pairs, self.longest, shortest)

    def read_contexts(self):
        """Makes `contexts`: list of (context_1, context_2, text_1, text_2, document), where the
        text follows the context and side 2 says the same as side 1.

        Of the test set of clones they are the halves of a sequence, of parallel text two sequences
        that follow each other. Raises ConfigError for less than two."""
        self.read_sequences()
        half = self.longest // 2
        if self.clones and not parallel:
            halves = [(side[:half], side[half:], number) for side, _, number in self.sequences]
            self.contexts = [(one, one, two, two, number) for one, two, number in halves]
        else:
            self.contexts = [
                (before[0][-half:], before[1][-half:], after[0][:half], after[1][:half], after[2])
                for before, after in zip(self.sequences, self.sequences[1:])
            ]
        if len(self.contexts) < 2:
            raise ConfigError(
                'switch compares texts with unrelated ones: it needs more pairs of sequences'
            )

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
        first = max(step for step in self.counted if step <= steps)
        times = np.zeros(self.model.config.vocab_size, np.int64) + self.counted[first]
        for step in tqdm(range(first, steps), f'{self.name}: counts', unit=' steps', leave=False):
            times += np.bincount(self.mix.batch(step)[0].ravel(), minlength=len(times))
        self.counted[steps] = times
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


def ids_of(language, side):
    """What the model reads for a text of the language's corpus: (T,) entries, in its order."""
    return language.ids(side)


def spellings_of(language):
    """The pieces of a language's tokeniser as text."""
    pieces = language.corpus.load_tokenizer()
    return [pieces.id_to_piece(token) for token in range(len(pieces))]


# --- the studies: what each measures of a run -----------------------------------------------------

# A study returns a dict. `compared` says in words what was compared, and similarity.tables shows
# the figures: an Estimate (L,) of each block, a dict of Estimates, or a dict of such.


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
                values[kind][name] = dict(pairs=cosines['pairs'], random=cosines['random'])
    return values


def study_hidden(run):
    """Hidden states of corresponding tokens, retrieval and linear CKA (Tables 2 and 4)."""

    def compare(model, *ids):
        orders = [np.argsort(lang.positions(len(ids[0]))) for lang in run.languages]
        places = orders if run.clones else None
        return similarity.compare_states(model, *ids, run.clones, matching_threshold, places)

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


def study_lens(run):
    """The logit lens by language: what the model would say after each block of each language's
    test set, see lens.lens."""
    first, second = run.languages
    vocab_size = run.model.config.vocab_size
    groups = lens.groups_of(first, second, vocab_size)
    spellings = [spellings_of(language) for language in run.mix.languages]
    tables = [language.table for language in run.mix.languages]
    alike = lens.entries_alike(tables, spellings, vocab_size)
    names, mass, losses, compared = [first.name, second.name, 'shared', 'others'], {}, {}, []
    for language in run.languages:
        sequences = test_sequences(language.corpus, pairs, run.longest)
        measured = [
            lens.lens(run.model, ids_of(language, side), groups, alike)
            for side, *_ in tqdm(sequences, f'{run.name}: lens, {language.name}', leave=False)
        ]
        documents = [number for *_, number in sequences]
        compared.append(f'{len(documents):,} sequences of {len(set(documents))} documents')
        of = {key: Estimate.of([m[key] for m in measured], documents) for key in measured[0]}
        for group, name in enumerate(names[: of['mass'].value.shape[1]]):
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
    bins = lens.bins_of(
        max(len(text) for *_, one, other, _ in run.contexts for text in (one, other))
    )
    values, documents = dict(switch={}, told={}), [number for *_, number in run.contexts]
    for own, other in ((1, 0), (0, 1)):
        text_language, other_language = run.languages[own], run.languages[other]
        sums = []
        title = f'{run.name}: switch to {text_language.name}'
        for number, (*sides, _) in enumerate(tqdm(run.contexts, title, leave=False)):
            unrelated = run.contexts[(number + len(run.contexts) // 2) % len(run.contexts)]
            contexts = [
                np.array([], int),
                ids_of(text_language, sides[own]),
                ids_of(other_language, sides[other]),
                ids_of(other_language, sides[2 + other]),
                ids_of(other_language, unrelated[other]),
                ids_of(text_language, unrelated[own]),
            ]
            text = ids_of(text_language, sides[2 + own])
            sums.append(lens.losses_by_bin(lens.losses_after(run.model, contexts, text), bins))
        kinds = dict(switch=(lens.mean_loss, lens.CONTEXTS), told=(lens.told, lens.CONTEXTS[1:4]))
        for kind, (statistic, contexts) in kinds.items():
            means = Estimate.of(sums, documents, statistic)
            for row, context in enumerate(contexts):
                cells = {name: means[row, column] for column, name in enumerate(bins)}
                values[kind][f'{text_language.name}: {context}'] = cells
    return dict(compared=run.counted_pairs('texts', documents)) | values


def study_matching(run):
    """The matching of one pair of sentences by the mean cosine over the blocks (Figure 14)."""
    sides = list(zip(run.languages, run.sentences))
    cosines = similarity.token_cosines(run.model, *(ids_of(*side) for side in sides)).mean(0)
    rows, columns = similarity.match_tokens(cosines, matching_threshold)
    texts = []
    for language, ids in sides:
        spellings = spellings_of(language)
        texts.append([spellings[token] for token in ids])
    matches = [[int(i), int(j), float(cosines[i, j])] for i, j in zip(rows, columns)]
    share = 2 * len(matches) / sum(cosines.shape)
    names = [language.name for language in run.languages]
    values = dict(compared='one pair', share=share, names=names, tokens=texts, matches=matches)
    return values | dict(shown=shown)


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

# what measures a run, makes its tables, draws it, and what is drawn of it over training steps
STUDIES = dict(
    embeddings=(
        study_embeddings,
        similarity.tables,
        pictures.draw_vectors,
        pictures.figures_of_vectors,
    ),
    frequency=(
        study_frequency,
        similarity.tables,
        pictures.draw_frequency,
        pictures.figures_of_frequency,
    ),
    hidden=(study_hidden, similarity.tables, pictures.draw_blocks, pictures.figures_of_hidden),
    gradients=(
        study_gradients,
        similarity.tables,
        pictures.draw_gradients,
        pictures.figures_of_gradients,
    ),
    lens=(study_lens, similarity.tables, pictures.draw_blocks, pictures.figures_of_lens),
    switch=(study_switch, similarity.tables, pictures.draw_switch, pictures.figures_of_switch),
    matching=(study_matching, list_matches, pictures.draw_matching, None),
    word2vec=(study_word2vec, similarity.tables, pictures.draw_vectors, None),
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
    if steps:
        names = [name for name in names if STUDIES[name][-1] or study != 'all']
        alone = [name for name in names if not STUDIES[name][-1]]
        if alone:
            raise ConfigError(f'{" and ".join(alone)}: not drawn over steps, leave out --steps')
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
    if run.steps < run.settings['max_steps'] and not steps:
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
    _, tables_of, draw, _ = STUDIES[name]
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
        draw([pictures.Row(*row) for row in zip(labels, shares, results)], title, path)
        print(f'wrote {path}\n')


def chosen_steps(run):
    """The steps of `steps` that a run has checkpoints of."""
    kept = list(checkpoint_paths(run.folder))
    if steps == 'all':
        return kept
    try:
        wanted = sorted({int(step) for step in steps.strip('[]').split(',')})
    except ValueError:
        raise ConfigError(f'steps must be all, or steps as in 100,200, not {steps!r}') from None
    missing = [step for step in wanted if step not in kept]
    if missing:
        raise ConfigError(
            f'{run.folder} has no checkpoint of step {missing[0]:,}, only of '
            f'{", ".join(map(str, kept))}; --keep_checkpoints of train.py keeps more'
        )
    return wanted


def analyze_steps(name, runs):
    """Makes one study of checkpoints of the runs: prints tables, writes files of its main figures
    over training steps."""
    study_run, _, _, figures_of = STUDIES[name]
    series, last = {}, [run.steps for run in runs]
    for number, group in enumerate(grouped(runs)):
        label, figures = label_of(*group), []
        chosen = sorted(set.intersection(*(set(chosen_steps(run)) for run in group)))
        for step in tqdm(chosen, f'{group[0].name}: {name}', unit=' checkpoints', leave=False):
            values = []
            for trained in group:
                trained.go_to(step)
                values.append(study_run(trained))
            figures.append(figures_of(similarity.over_seeds(values, number)))
        series[label] = chosen, pictures.joined(figures)
    for trained, step in zip(runs, last):
        trained.go_to(step)
    title = f'{name} over training: {"; ".join(dict.fromkeys(run.pair for run in runs))}'
    print(f'{title} (±: half of the 90% interval)\n')
    for label, (chosen, panels) in series.items():
        for heading, lines in panels.items():
            print(similarity.table_text(f'{label}: {heading}', lines, [f'{x:,}' for x in chosen]))
    stem = '-'.join([name, 'steps'] + [run.name for run in runs if len(runs) > 1])
    path = runs[0].folder / f'{stem}.png'
    figures = {
        label: dict(steps=chosen, figures=panels) for label, (chosen, panels) in series.items()
    }
    write_json(path.with_suffix('.json'), similarity.plain(figures))
    if any(panels for _, panels in series.values()):
        pictures.draw_steps(series, title, path)
        print(f'wrote {path}\n')


def main():
    names = check_settings()
    runs = [Run(folder) for folder in out_dirs or [out_dir]]
    if len({trained.name for trained in runs}) < len(runs):
        raise ConfigError(f'the runs need folders of different names, not {", ".join(out_dirs)}')
    for trained in runs:  # a mistake in the text is known before hours of work
        if steps:
            chosen_steps(trained)
        if {'hidden', 'gradients'} & set(names):
            trained.read_sequences()
        if 'switch' in names:
            try:
                trained.read_contexts()
            except ConfigError as error:
                if study != 'all':
                    raise
                print(f'{error}; this study is left out')
                names.remove('switch')
        if 'matching' in names:
            trained.read_sentences()
    for name in names:
        (analyze_steps if steps else analyze)(name, runs)


if __name__ == '__main__':
    run(globals(), main)
