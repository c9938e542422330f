"""Similarity and matching studies of the runs of train.py (Sections 4.2, 5.2; App. C, F, G).

    python analyze.py --out_dir=out/RUN                      # all studies
    python analyze.py --out_dir=out/RUN --study=hidden --parallel=[europarl.en,europarl.fr]
    python analyze.py --out_dirs=[out/50_50,out/90_10]       # side by side, with the difference
    python analyze.py --out_dirs=[out/RUN,out/RUN-only_en2] --study=position   # its control run
    python analyze.py --out_dir=out/RUN --study=matching --sentence_1='Yes.' --sentence_2='Oui.'
    python analyze.py --out_dir=out/RUN --study=embeddings,lens --steps=all    # over training

embeddings: Figure 6, frequency: Figure 7, hidden: Tables 2 and 4, gradients: Figures 11 to 13,
lens: the logit lens by language, position: loss by position in the sequence, switch: loss after a
code switch, matching: Figure 14, word2vec: Figure 6 right. Each prints tables and writes STUDY.json
and STUDY.png into the run's folder; names of several runs, and -steps, are added to the names.
Intervals are 90% bootstrap intervals: they resample pieces, or test documents with all of their
sequences (pairs of parallel text, which does not mark documents). They hold for these models; runs
that differ in their seed alone are pooled, and resampled, too.
"""

import functools
import itertools
import re
from collections import namedtuple
from pathlib import Path

from lib.configurator import ConfigError, require
from lib.configurator import run as run_script

import numpy as np
from tqdm import tqdm

from data import LanguageMix
from evaluate import load_run
from lib import lens, plots, similarity
from lib.checkpoint import checkpoint_paths, read_checkpoint
from lib.estimate import Estimate, as_json, difference, measured, over_seeds, over_training, tables
from lib.files import write_json
from lib.machine import memory_advice, pick_device
from lib.parallel import sequence_pairs, test_sequences
from lib.runs import FREE, SEED, differing, full_settings
from lib.tokenizer import PAD
from model import CHUNK_LOGITS

out_dir = ''  # folder of a run of train.py, for example out/demo
out_dirs = []  # instead: several runs, side by side; those that differ in seed alone are pooled
study = 'all'  # or embeddings,frequency,hidden,gradients,lens,position,switch,matching,word2vec
steps = ''  # all, or some as in 100,200: kept checkpoints for studies over training; '': the last
language_1 = ''  # the pair of languages that is compared; empty: the run's first two
language_2 = ''  # the other one
parallel = []  # files of language_1 and language_2 (or hf:DATASET:COLUMN), aligned line by line
pairs = 500  # pairs of sequences that are compared
max_tokens = 512  # of a sequence, at most block_size
min_tokens = 0  # shorter pairs are dropped (4 or more); 0: a quarter of max_tokens, as in the paper
least_read = 1  # embedding rows that a language read less often are left out
matching_threshold = 0.0  # cosine that a match exceeds; 0: full matching
sentence_1 = ''  # matching: a sentence in language_1; empty: the first pair of sequences
sentence_2 = ''  # matching: its translation; clones need none
shown = 24  # matching: so many tokens of a sentence are drawn
word2vec_dim = 768  # word2vec: dimensions of a vector
word2vec_steps = 0  # word2vec: read so many steps of the run's text; 0: all that the run has read
seed = 0  # of random pairs and of word2vec
data_dir = 'data'  # folder of the corpora
device = 'auto'  # auto, cpu, cuda, cuda:1, mps

# compared: what, in words; panels: {heading: {line: {place: Estimate}}}; more: for a drawing
Result = namedtuple('Result', 'compared panels more', defaults=[{}])


class Missing(ConfigError):
    """What a study needs is not given; the others can be made."""


# --- a run and its languages ----------------------------------------------------------------------


class StudiedRun:
    """A run of train.py and its languages that are compared: two, or the only one."""

    def __init__(self, folder):
        self.folder, self.name = Path(folder), Path(folder).name
        self.model, self.all_languages, state = load_run(folder, data_dir)
        self.model.to(pick_device(device))
        self.settings, self.step = full_settings(state['settings']), state['step']
        self.languages = chosen_languages({lang.name: lang for lang in self.all_languages}, folder)
        self.names = ' and '.join(language.name for language in self.languages)
        self.clones = self.languages[0].corpus is self.languages[-1].corpus
        self.longest = min(max_tokens, self.model.config.block_size)  # of a sequence, tokens
        self.vectors = dict(input=self.model.wte.weight, output=self.model.head.weight)
        self.counted = {0: np.zeros(self.model.config.vocab_size, int)}  # see `times_read`

    @property
    def pair(self):
        if len(self.languages) == 1:
            raise Missing(f'{self.folder} has one language, two are compared')
        return self.languages

    @functools.cached_property
    def mix(self):
        keys = 'stages', 'max_steps', 'batch_size', 'block_size', 'seed'
        return LanguageMix(self.all_languages, *(self.settings[key] for key in keys))

    @functools.cached_property
    def shares(self):
        """Shares of the two languages in the sequences that the run has read, as text."""
        if len(self.languages) == 1:
            return ''
        read = self.mix.before[self.step]
        numbers = [self.all_languages.index(language) for language in self.languages]
        return '/'.join(f'{read[number] / max(1, read.sum()):.0%}' for number in numbers)

    def rows(self, sides):
        """What the model reads for two texts of the corpora: two arrays of embedding rows."""
        return [language.ids(side) for language, side in zip(self.pair, sides)]

    @functools.cached_property
    def sequences(self):
        """List of (side_1, side_2, document): two arrays of ids of the corpora, and a number."""
        if self.pair and not (self.clones or parallel):
            needed = '--parallel=[FILE.en,FILE.fr], for the matching --sentence_1 and --sentence_2'
            raise Missing(f'{self.names} are no clones: give {needed}')
        files, shortest = list(map(str, parallel)), max(4, min_tokens or self.longest // 4)
        return sequence_pairs(*self.pair, files, pairs, self.longest, shortest)

    @functools.cached_property
    def contexts(self):
        """Texts of the sequences after contexts, see lens.contexts_of, as embedding rows."""
        follow = bool(parallel) or not self.clones
        found = lens.contexts_of(self.sequences, self.longest, follow)
        if len(found) < 2:
            raise Missing('more pairs of sequences are needed, some of them of unrelated text')
        return [(*map(self.rows, parts), number) for *parts, number in found]

    @functools.cached_property
    def sentences(self):
        """The two sentences that are matched: ids of the two corpora."""
        if sentence_1:
            require(sentence_2 or self.clones, f'{self.names} are no clones: give sentence_2, too')
            texts = zip(self.pair, (sentence_1, sentence_2 or sentence_1))
            sides = [language.corpus.load_tokenizer().encode(text) for language, text in texts]
        else:
            sides = [side[:shown] for side in self.sequences[0][:2]]
        lengths, most = sorted(map(len, sides)), self.model.config.block_size
        valid = lengths[0] and lengths[1] <= most
        require(valid, f'sentence_1 and sentence_2 need 1 to {most} (block_size) tokens')
        return [np.array(side) for side in sides]

    @functools.cached_property
    def word2vec(self):
        """Gensim's class of that name."""
        try:
            from gensim.models import Word2Vec
        except ImportError:
            raise Missing('the package gensim is not installed: pip install gensim') from None
        return self.pair and Word2Vec

    def corresponding(self, least, until):
        """Embedding rows of pieces that are spelled alike, as all pieces of clones are, (2, n); how
        often each row was read in the first `until` steps, (V,); and what they are, in words.

        Rows that both languages share, or that were read less than `least` times, are left out;
        what a run with train_only has from another run counts as read."""
        first, second = (dict(zip(pieces_of(lang), lang.table)) for lang in self.pair)
        rows = [(first[piece], second[piece]) for piece in first if piece in second]
        rows = np.array([(a, b) for a, b in rows if a != b and a != PAD], int).reshape(-1, 2).T
        times, learning = self.times_read(until), self.settings['train_only']
        known = [[learning not in ('', language.name)] for language in self.pair]
        often = ((times[rows] >= least) | known).all(0)
        words = f'{often.sum():,} {"clones" if self.clones else "pieces spelled alike"}'
        words += '' if rows.size else ' that do not share a row'
        if not often.all():
            words += f', without {(~often).sum():,} that a language read less than {least} times'
        rows = rows[:, often]
        return rows if often.sum() > 3 else rows[:, :0], times, words  # two halves of two pieces

    def times_read(self, until):
        """How often each embedding row was read in the first `until` steps of the run: (V,)."""
        first = max(step for step in self.counted if step <= until)
        times = self.counted[first].copy()
        for step in tqdm(range(first, until), f'{self.name}: counts', unit=' steps', leave=False):
            times += np.bincount(self.mix.batch(step)[0].ravel(), minlength=len(times))
        self.counted[until] = times
        return times

    def at(self, step):
        """This run, with the weights of its checkpoint of a step."""
        if step != self.step:
            state = read_checkpoint(checkpoint_paths(self.folder)[step])
            self.model.load_state_dict(state['model'])
            self.step = step
        return self


def chosen_languages(languages, folder):
    """Of the languages of a run, {name: Language}, those that the settings name, else the first
    two; the only one of a control run."""
    named = [name for name in (language_1, language_2) if name]
    known = [name for name in named if name in languages]
    valid = known == named or len(languages) == 1 and known
    require(valid, f'{folder} has no {" or no ".join(named)}, only {", ".join(languages)}')
    others = (name for name in languages if name not in named)
    names = language_1 or next(others, ''), language_2 or next(others, '')
    return [languages[name] for name in names if name in languages]


def pieces_of(language):
    """What identifies each piece of a language: its spelling. Bytes and control pieces stand for no
    text of their own, so they correspond in clones only."""
    tokenizer, name = language.corpus.load_tokenizer(), language.corpus.name
    spelled = enumerate(tokenizer.spellings())
    return [(name, token) if tokenizer.is_fallback(token) else text for token, text in spelled]


# --- the studies: what each measures of a run -----------------------------------------------------


def words_of(sequences):
    """How many sequences are compared, in words."""
    documents = len({number for *_, number in sequences})
    of = f' of {documents:,} documents' if documents < len(sequences) else ''
    return f'{len(sequences):,} sequences{of}'


def over_test_sets(run, length, measure, **statistics):
    """measure(rows) of sequences of each language's test set: ({language: {name: Estimate}}, how
    many, in words)."""
    found, words = {}, {}
    for language in run.languages:
        sequences = test_sequences(language.corpus, pairs, length)
        words[words_of(sequences)] = True
        sides = [(language.ids(side), number) for side, _, number in sequences]
        title = f'{run.name}: {language.name}'
        found[language.name] = measured(sides, measure, title, **statistics)
    return found, ', '.join(words)


def study_embeddings(run):
    """Cosine of corresponding pieces' input and output embeddings, its controls (Figure 6), and
    the geometry of both languages."""
    rows, times, words = run.corresponding(least_read, run.step)
    return Result(words, vector_panels(run.vectors, rows, times))


def vector_panels(vectors, rows, times):
    """Panels of vectors, {kind: (V, C)}, of corresponding rows (2, n). times: how often each row
    was read, (V,)."""
    panels = {}
    for kind, weight in vectors.items() if rows.size else ():
        retrieval = {'cosine': {}, 'CSLS': {}}
        for name, sides in similarity.transformed(*weight[rows], seed).items():
            found = similarity.compare_vectors(*sides, times[rows[1]], seed)
            chance = {'': {'chance': found.pop('chance')}}
            for measure, cells in retrieval.items():
                cells[name] = found.pop(measure)
            panels[f'cosine of {kind} vectors, {name}'] = {'': found}
        panels[f'retrieval, {kind} vectors'] = retrieval | chance
    return panels


def study_frequency(run):
    """Cosines by how often the less frequent piece was read, in half decades (Figure 7)."""
    rows, times, words = run.corresponding(least_read, run.step)
    rarer, counts, panels = times[rows].min(0), {}, {}
    edges = [0, *np.ceil(10 ** (np.arange(22) / 2)).astype(int).tolist()]
    for low, high in zip(edges, edges[1:]):
        part = rows[:, (rarer >= low) & (rarer < high)]
        counts |= {low: part.shape[1]} if part.size else {}
        for kind, weight in run.vectors.items() if part.shape[1] > 1 else ():
            found = similarity.compare_vectors(*weight[part], times[part[1]], seed)
            lines = panels.setdefault(f'cosine of {kind} vectors', {})
            for name in ('corresponding', 'random'):
                lines.setdefault(name, {})[low] = found[name]
    words += f' ({", ".join(map(str, counts.values()))} in the bins)' if counts else ''
    return Result(words, panels, dict(pieces=counts))


def study_hidden(run):
    """Hidden states of corresponding tokens, retrieval and linear CKA (Tables 2 and 4)."""

    def measure(*sides):
        places = []
        for language, side, rows in zip(run.pair, sides, run.rows(sides)):
            order = language.positions(len(side))
            same = np.array_equal(rows, language.table[side[order]])
            require(same, f'the order of {language.name} depends on its tokens: no positions')
            places.append(np.argsort(order))
        how = places if run.clones else None, matching_threshold
        return similarity.compare_states(run.model, *run.rows(sides), *how)

    how = {'linear CKA': similarity.cka}
    found = measured(run.sequences, measure, f'{run.name}: hidden states', **how)
    panels = {'cosine of hidden states': {}}
    for name, estimate in found.items():
        if name in ('same position', 'matched', 'all pairs'):
            panels['cosine of hidden states'][name] = estimate.over()
        else:
            panels[name] = {'': estimate.over()}
    return Result(words_of(run.sequences), panels)


def study_gradients(run):
    """Cosine of the gradients of the two sides, kinds of tensors x blocks (Figures 11 to 13)."""

    def measure(*sides):
        cosines, kinds = similarity.gradient_similarity(run.model, *run.rows(sides)), {}
        for name in [name for name in cosines if name.startswith('blocks.')]:
            kinds.setdefault(name.split('.', 2)[2], []).append(cosines.pop(name))
        mean = np.mean(list(kinds.values()), axis=0)
        return kinds | {'mean': mean, 'macro average': mean.mean()} | cosines

    found = measured(run.sequences, measure, f'{run.name}: gradients')
    mean = found.pop('mean').over()
    kinds = {name: found.pop(name).over() for name in list(found) if found[name].value.ndim}
    panels = {'cosine of gradients (0 for the key bias, which has none)': kinds}
    panels |= {'cosine of gradients, mean of the kinds of tensors': {'': mean}}
    panels |= {'cosine of gradients, other tensors': {'': found}}
    return Result(words_of(run.sequences), panels)


def study_lens(run):
    """The logit lens by language: what the model would predict after each block in each language's
    test set, see lens.lens."""
    tables, size = [language.table for language in run.all_languages], run.model.config.vocab_size
    groups = lens.groups_of(run.languages[0], run.languages[-1], size)
    alike = lens.rows_alike(tables, map(pieces_of, run.all_languages), size)
    several = int((alike[:, 1:] >= 0).any(1).sum())
    how = np.stack([*groups.values()]), alike, CHUNK_LOGITS
    found, words = over_test_sets(run, run.longest, lambda rows: lens.lens(run.model, rows, *how))
    mass, losses, saved = {}, {}, {}
    for language, of in found.items():
        mass[f'mass on rows, {language} read'] = {
            name: estimate.over()
            for (name, rows), estimate in zip(groups.items(), of['mass'])
            if rows.sum() > (name == 'others') * len(tables)  # not padding alone
        }
        losses[language] = of['loss'].over()
        if several:
            losses[f'{language}, any language'] = of['alike'].over()
            saved[language] = (of['loss'] - of['alike']).over()
    panels = (mass if run.languages[1:] else {}) | {'loss on the next piece, nats': losses}
    panels |= {'saved if any language counts, nats': saved}
    return Result(f'{words}, {several:,} of {len(alike):,} rows spelled like another', panels)


def study_position(run):
    """Loss by position in the sequence, for each language: a gain from the use of context grows
    with the position."""
    length = run.model.config.block_size
    bins = lens.bins_of(length)

    def measure(rows):
        return dict(loss=lens.losses_by_bin(lens.losses_after(run.model, [[]], rows), bins)[0])

    found, words = over_test_sets(run, length, measure, loss=lens.mean_loss)
    lines = {language: of['loss'].over(bins) for language, of in found.items()}
    return Result(words, {'loss by position, nats': lines})


def study_switch(run):
    """Losses on texts in one language after contexts in the other and in their own, by position in
    the text, see lens.CONTEXTS."""
    bins, panels = lens.bins_of(max(len(side) for _, text, *_ in run.contexts for side in text)), {}
    for own, other in ((1, 0), (0, 1)):

        def measure(before, text, unrelated, own=own, other=other):
            contexts = [text[own][:0], before[own], before[other], text[other]]
            contexts += [unrelated[other], unrelated[own]]
            losses = lens.losses_after(run.model, contexts, text[own])
            return dict.fromkeys(('loss', 'gain'), lens.losses_by_bin(losses, bins))

        name, how = run.pair[own].name, dict(loss=lens.mean_loss, gain=lens.context_gain)
        found = measured(run.contexts, measure, f'{run.name}: switch to {name}', **how)
        for kind, contexts in dict(loss=lens.CONTEXTS, gain=lens.CONTEXTS[1:4]).items():
            lines = {context: part.over(bins) for context, part in zip(contexts, found[kind])}
            panels[f'{kind} on {name} after a context, nats'] = lines
    return Result(words_of(run.contexts), panels)


def study_matching(run):
    """The matching of one pair of sentences by the mean cosine over the blocks (Figure 14)."""
    states = [similarity.hidden_states(run.model, rows) for rows in run.rows(run.sentences)]
    cosines = similarity.token_cosines(*states).mean(0)
    spelled = [language.corpus.load_tokenizer().spellings() for language in run.pair]
    tokens = [[pieces[token] for token in side] for pieces, side in zip(spelled, run.sentences)]
    found = similarity.match_tokens(cosines, matching_threshold).T.tolist()
    matches = [[i, j, float(cosines[i, j])] for i, j in found]
    lines = {
        f'{i:>3} {tokens[0][i]}  {j:>3} {tokens[1][j]}': {'cosine': Estimate.exact(cosine)}
        for i, j, cosine in matches
        if i < shown
    }
    share = 2 * len(matches) / sum(cosines.shape)
    more = dict(names=[language.name for language in run.pair], tokens=tokens, matches=matches)
    words = f'one pair, {share:.0%} of the tokens matched'
    return Result(words, {'matched tokens': lines}, more | dict(share=share, shown=[0, shown]))


def study_word2vec(run):
    """Gensim's Word2Vec on the run's text, whose vectors share no parameter between the languages
    (Appendix C, Figure 6 right), of pieces that both languages have read five times."""
    until = min(word2vec_steps or run.step, run.settings['max_steps'])
    rows, times, words = run.corresponding(max(5, least_read), until)

    class Sentences:
        def __iter__(self):
            for step in tqdm(range(until), f'{run.name}: word2vec', unit=' steps', leave=False):
                yield from (ids.astype(str).tolist() for ids in run.mix.batch(step)[0])

    how = run.word2vec, Sentences(), len(times), word2vec_dim, seed
    vectors = similarity.word_vectors(*how) if rows.size else {}
    return Result(words, vector_panels(vectors, rows, times))


# needs: what of a StudiedRun is read before hours of work, since it raises Missing or ConfigError;
# axis: what numbered places are called; draw: draws the first heading, which has no steps then
Study = namedtuple('Study', 'measure needs axis draw', defaults=['block', None])
STUDIES = dict(
    embeddings=Study(study_embeddings, 'pair'),
    frequency=Study(study_frequency, 'pair', 'times read, at least'),
    hidden=Study(study_hidden, 'sequences'),
    gradients=Study(study_gradients, 'sequences', draw=plots.draw_gradients),
    lens=Study(study_lens, 'languages'),
    position=Study(study_position, 'languages', 'tokens read'),
    switch=Study(study_switch, 'contexts', 'pieces of the text read'),
    matching=Study(study_matching, 'sentences', draw=plots.draw_matching),
    word2vec=Study(study_word2vec, 'word2vec'),
)

# --- the runs side by side ------------------------------------------------------------------------


def check_settings():
    """The names of the studies. Raises ConfigError for settings that contradict each other."""
    names = list(STUDIES) if study == 'all' else [name.strip() for name in study.split(',')]
    several = set(names) <= set(STUDIES)
    for valid, text in (
        (bool(out_dir) != bool(out_dirs), 'give --out_dir=out/RUN or --out_dirs=[out/A,out/B]'),
        (not language_1 or language_1 != language_2, f'both languages are {language_1!r}'),
        (sentence_1 or not sentence_2, 'sentence_2 is the translation of sentence_1: give both'),
        (0 <= matching_threshold < 1, f'matching_threshold {matching_threshold} is not below 1'),
        (
            pairs > 0 and shown > 0 and word2vec_dim > 0,
            'pairs, shown and word2vec_dim are 1 or more',
        ),
        (max_tokens > 3, f'max_tokens must be at least 4, not {max_tokens}'),
        (least_read >= 0 <= word2vec_steps, 'least_read and word2vec_steps must not be negative'),
        (several, f'study must be some of {", ".join(STUDIES)}, not {study!r}'),
        (
            re.fullmatch(r'(all|[\d, ]+)?', steps),
            f'steps must be all, or as in 100,200, not {steps!r}',
        ),
    ):
        require(valid, text)
    return names


def possible(names, runs):
    """The studies that can be made of the runs; a line says why others are left out. Raises
    ConfigError where none is left, and for mistakes."""
    missing = {}  # why -> studies
    for name, run in itertools.product(names, runs):
        try:
            getattr(run, STUDIES[name].needs)
            if steps and name in ('matching', 'word2vec'):
                raise Missing('this is not made over training')
        except Missing as error:
            missing.setdefault(str(error), {})[name] = True
    left_out = set(itertools.chain(*missing.values()))
    for error, studies in missing.items():
        text = f'{", ".join(studies)}: {error}'
        require(left_out < set(names), text)
        print(f'left out: {text}')
    return [name for name in names if name not in left_out]


def replicates(runs, alone):
    """The runs that differ in their seed alone, or each run alone: {what tables and pictures call
    them: list}."""
    groups = []
    for run in runs:
        for first, *more in [] if alone else groups:
            same = (first.step, first.names) == (run.step, run.names)
            same &= not differing(first.settings, run.settings, FREE | SEED | {'init_from'})
            seeds = [one.settings['seed'] for one in (first, *more)]
            if same and run.settings['seed'] not in seeds:  # a copy is not another seed
                groups[groups.index([first, *more])].append(run)
                break
        else:
            groups.append([run])
    labelled, several = {}, len({run.names for run in runs}) > 1
    for first, *more in groups:
        label = f'{first.name} and {len(more)} more' if more else first.name
        label += f' ({first.shares})' if first.shares else ''
        labelled[label + f', {first.names}' * several] = [first, *more]
    return labelled


def chosen_steps(run):
    """The steps of `steps` that a run has checkpoints of; without --steps the last one."""
    kept = list(checkpoint_paths(run.folder))
    chosen = sorted(set(map(int, re.findall(r'\d+', steps)))) or (kept if steps else [run.step])
    missing = [f'{step:,}' for step in chosen if step not in kept]
    there = f'{", ".join(map(str, kept))}; --keep_checkpoints of train.py keeps more'
    require(not missing, f'{run.folder} has no checkpoint of step {", ".join(missing)}: {there}')
    return chosen


def pooled(study, group, number):
    """The Result of runs that differ in their seed alone, the `number`-th group of them; with
    --steps over training."""
    first, over = group[0], {}
    common = sorted(set.intersection(*(set(chosen_steps(run)) for run in group)))
    for step in tqdm(common, 'over training', leave=False, disable=not steps):
        found = [study.measure(run.at(step)) for run in group]
        panels = over_seeds([result.panels for result in found], number)
        over[step] = dict(list(panels.items())[bool(steps and study.draw) :])
    about = dict(runs=[run.name for run in group], step=first.step, languages=first.names)
    about |= dict(shares=first.shares, parallel=parallel)
    panels = over_training(over, study.axis) if steps else panels
    return Result(found[0].compared, panels, about | found[0].more)


def analyze(name, runs):
    """Makes one study of the runs: measures, prints the tables, writes the files."""
    study, groups = STUDIES[name], replicates(runs, alone=name == 'matching')  # which has no mean
    numbered = enumerate(groups.items())
    results = {label: pooled(study, group, number) for number, (label, group) in numbered}
    compared = list(dict.fromkeys(result.compared for result in results.values()))
    about = [f'{name}{" over training" if steps else ""}: {"; ".join({r.names: 0 for r in runs})}']
    about += [compared[0]] if len(compared) == 1 else []
    title = ', '.join([*about, f'of these {len(runs)} models' if runs[1:] else 'of this model'])
    print(f'{title} (±: half of the 90% interval)\n')
    for label, result in results.items() if compared[1:] else ():
        print(f'{label}: {result.compared}')
    if len(results) == 2:
        change = difference(*(result.panels for result in results.values()))
        results['difference'] = Result('second less first', change)
    panels = {label: result.panels for label, result in results.items()}
    print(*tables(panels), sep='\n')
    names = [f'{name}-steps' if steps else name, *(run.name for run in runs if runs[1:])]
    path = runs[0].folder / '-'.join(names)
    stored = {label: dict(compared=r.compared) | r.more | r.panels for label, r in results.items()}
    write_json(
        f'{path}.json', as_json(stored if steps or runs[1:] else next(iter(stored.values())))
    )
    print(f'wrote {path}.json')
    if any(panels.values()):  # some vocabularies leave a study without pieces
        if study.draw and not steps:
            study.draw(f'{path}.png', title, results)
        else:
            axis = 'training steps' if steps else study.axis
            plots.draw_study(f'{path}.png', title, panels, axis)
        print(f'wrote {path}.png\n')


def main():
    names = check_settings()
    runs = [StudiedRun(folder) for folder in out_dirs or [out_dir]]
    text = f'the runs need folders of different names, not {", ".join(out_dirs)}'
    require(len({run.name for run in runs}) == len(runs), text)
    for run in runs:
        chosen_steps(run)
    with memory_advice('lower max_tokens, or use --device=cpu'):
        for name in possible(names, runs):
            analyze(name, runs)


if __name__ == '__main__':
    run_script(globals(), main)
