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
and STUDY.png into the folder of the (first) run; -steps and names of several runs follow STUDY.
Intervals are 90% bootstrap intervals for these models, over pieces, over test documents with all of
their sequences, or over pairs of parallel text. Runs that differ in seed alone are pooled.
"""

import functools
import itertools
import re
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

from lib.configurator import require, run_name
from lib.configurator import run as run_script

import numpy as np
from tqdm import tqdm

from data import LanguageMix
from evaluate import load_run
from lib import lens, plots, similarity
from lib.checkpoint import checkpoint_paths, read_checkpoint
from lib.estimate import Estimate, as_json, difference, over_seeds, over_training, tables
from lib.files import write_json
from lib.machine import memory_advice, pick_device
from lib.parallel import sequence_pairs, test_sequences
from lib.runs import FREE, differing, full_settings
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
matching_threshold = 0.0  # cosine that a match exceeds (slow from 200 tokens on); 0: full matching
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


# --- a run and its languages ----------------------------------------------------------------------


class StudiedRun:
    """A run of train.py and its languages that are compared: two, or the only one."""

    def __init__(self, folder):
        self.folder, self.name = Path(folder), Path(folder).name
        self.model, self.all_languages, state = load_run(folder, data_dir)
        self.model.to(pick_device(device))
        self.settings, self.step = full_settings(state['settings']), state['step']
        self.languages = chosen_languages({lang.name: lang for lang in self.all_languages}, folder)
        self.names = [language.name for language in self.languages]
        self.label = f'{self.name} ({", ".join(self.names)})'
        self.clones = self.languages[0].corpus is self.languages[-1].corpus
        self.longest = min(max_tokens, self.model.config.block_size)  # of a sequence, tokens
        require(self.longest >= 4, f'{folder}: max_tokens and block_size must be at least 4')
        self.steps = chosen_steps(folder, self.step)
        self.vectors = dict(input=self.model.wte.weight, output=self.model.head.weight)
        self.counted = {0: np.zeros(self.model.config.vocab_size, int)}  # see `times_read`

    @functools.cached_property
    def mix(self):
        keys = 'stages', 'max_steps', 'batch_size', 'block_size', 'seed'
        names = self.settings['languages']
        languages = sorted(self.all_languages, key=lambda language: names.index(language.name))
        return LanguageMix(languages, *(self.settings[key] for key in keys))

    def rows(self, sides):
        """What the model reads for two texts of the corpora: two arrays of embedding rows."""
        return [language.ids(side) for language, side in zip(self.languages, sides)]

    @functools.cached_property
    def sequences(self):
        """List of (side_1, side_2, document): two arrays of ids of the corpora, and a number."""
        files, shortest = list(map(str, parallel)), max(4, min_tokens or self.longest // 4)
        return sequence_pairs(*self.languages, files, pairs, self.longest, shortest)

    @functools.cached_property
    def sentences(self):
        """The two sentences that are matched: ids of the two corpora."""
        if sentence_1:
            text = f'{self.label}: the languages are no clones, give sentence_2, too'
            require(sentence_2 or self.clones, text)
            texts = zip(self.languages, (sentence_1, sentence_2 or sentence_1))
            sides = [language.corpus.load_tokenizer().encode(text) for language, text in texts]
        else:
            sides = [side[:shown] for side in self.sequences[0][:2]]
        lengths, most = sorted(map(len, sides)), self.model.config.block_size
        valid = lengths[0] and lengths[1] <= most
        require(valid, f'sentence_1 and sentence_2 need 1 to {most} (block_size) tokens')
        return [np.array(side) for side in sides]

    def corresponding(self, least, until):
        """Embedding rows of pieces that are spelled alike, as all pieces of clones are, (2, n); how
        often each row was read in the first `until` steps, (V,); and what they are, in words. Rows
        that both languages share, or that were read less than `least` times, are left out; what a
        run with train_only has from another run counts as read."""
        first, second = (dict(zip(lens.pieces_of(lang), lang.table)) for lang in self.languages)
        rows = [(first[piece], second[piece]) for piece in first if piece in second]
        rows = np.array([(a, b) for a, b in rows if a != b and a != PAD], int).reshape(-1, 2).T
        times, learning = self.times_read(until).copy(), self.settings['train_only']
        for language in self.languages:
            if learning not in ('', language.name):  # its rows are from another run
                times[language.table] = max(least, times.max())
        often = (times[rows] >= least).all(0)
        kind = 'clones' if self.clones else 'pieces spelled alike that do not share a row'
        words = f'{often.sum():,} of {often.size:,} {kind}, read {least}+ times'
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
    """Of a run's languages, {name: Language}, those of the settings, else the first two or one."""
    named = [name for name in (language_1, language_2) if name]
    known = [name for name in named if name in languages]
    valid = known == named or len(languages) == 1 and known
    require(valid, f'{folder} has no {" or no ".join(named)}, only {", ".join(languages)}')
    others = (name for name in languages if name not in named)
    names = language_1 or next(others, ''), language_2 or next(others, '')
    return [languages[name] for name in names if name in languages]


def chosen_steps(folder, last):
    """The steps of `steps` that a run has checkpoints of; without --steps the last one."""
    kept = list(checkpoint_paths(folder))
    chosen = sorted(set(map(int, re.findall(r'\d+', steps)))) or (kept if steps else [last])
    missing = [f'{step:,}' for step in chosen if step not in kept]
    there = f'{", ".join(map(str, kept))}; --keep_checkpoints of train.py keeps more'
    require(not missing, f'{folder} has no checkpoint of step {", ".join(missing)}: {there}')
    return chosen


# --- the studies: what each measures of a run -----------------------------------------------------


def measured(sequences, measure, title, how=None):
    """Result of measure(*sides), {(heading, line): (places, ...)}, of `sequences`, which end with
    a document's number. how: {heading: (places, statistic)}, see Estimate.of; else by block."""
    found = [measure(*sides) for *sides, _ in tqdm(sequences, title, leave=False)]
    documents, panels = [number for *_, number in sequences], {}
    for heading, line in found[0]:
        places, statistic = (how or {}).get(heading, (None, np.asarray))
        estimates = Estimate.of([one[heading, line] for one in found], documents, statistic)
        panels.setdefault(heading, {})[line] = dict(zip(places or itertools.count(1), estimates))
    count = len(set(documents))
    of = f' of {count:,} documents' if count < len(sequences) else ''
    return Result(f'{len(sequences):,} sequences{of}', panels)


def over_test_sets(run, length, measure, how=None):
    """As `measured`, of measure(language, rows) and sequences of each language's test set."""
    panels, words = {}, {}
    for language in run.languages:
        sequences = test_sequences(language.corpus, pairs, length)
        sides = [(language.name, language.ids(side), number) for side, _, number in sequences]
        found = measured(sides, measure, f'{run.name}: {language.name}', how)
        words[found.compared] = True
        for heading, lines in found.panels.items():
            panels.setdefault(heading, {}).update(lines)
    return Result(', '.join(words), panels)


def compared_vectors(run, vectors_of, least, until):
    """Result of vectors, vectors_of() -> {kind: (V, C)}, of corresponding pieces that were read
    `least` times in `until` steps: cosines, their controls, and the geometry of both languages."""
    rows, times, words = run.corresponding(least, until)
    panels = {}
    for kind, weight in vectors_of().items() if rows.size else ():
        retrieval = {'cosine': {}, 'CSLS': {}}
        for name, sides in similarity.transformed(*weight[rows], seed).items():
            found = similarity.compare_vectors(*sides, times, rows, seed)
            chance = {'': {'chance': found.pop('chance')}}
            for measure, cells in retrieval.items():
                cells[name] = found.pop(measure)
            panels[f'cosine of {kind} vectors, {name}'] = {'': found}
        panels[f'retrieval, {kind} vectors'] = retrieval | chance
    return Result(words, panels)


def study_embeddings(run):
    """Input and output embeddings of corresponding pieces (Figure 6)."""
    return compared_vectors(run, lambda: run.vectors, least_read, run.step)


def study_word2vec(run):
    """Gensim's Word2Vec on the run's text, whose vectors share no parameter between the languages
    (Appendix C, Figure 6 right), of pieces that both languages have read five times."""
    until = min(word2vec_steps or run.step, run.settings['max_steps'])

    class Sentences:
        def __iter__(self):
            for step in tqdm(range(until), f'{run.name}: word2vec', unit=' steps', leave=False):
                yield from (ids.astype(str).tolist() for ids in run.mix.batch(step)[0])

    how = Sentences(), run.model.config.vocab_size, word2vec_dim, seed
    vectors_of = functools.partial(similarity.word_vectors, *how)
    return compared_vectors(run, vectors_of, max(5, least_read), until)


def study_frequency(run):
    """Cosines by how often the rarer piece was read, in half decades of four or more (Figure 7)."""
    rows, times, words = run.corresponding(least_read, run.step)
    rarer, counts, panels = times[rows].min(0), {}, {}
    edges = [0, *np.ceil(10 ** (np.arange(22) / 2)).astype(int).tolist()]
    for low, high in zip(edges, edges[1:]):
        part = rows[:, (rarer >= low) & (rarer < high)]
        counts |= {low: part.shape[1]} if part.size else {}
        for kind, weight in run.vectors.items() if part.shape[1] > 3 else ():
            found = similarity.compare_vectors(*weight[part], times, part, seed)
            lines = panels.setdefault(f'cosine of {kind} vectors', {})
            for name in ('corresponding', 'random'):
                lines.setdefault(name, {})[low] = found[name]
    return Result(words, panels, dict(pieces=counts))


def study_hidden(run):
    """Hidden states of corresponding tokens, retrieval and linear CKA (Tables 2 and 4)."""

    def measure(*sides):
        places = []
        for language, side, rows in zip(run.languages, sides, run.rows(sides)):
            order = language.positions(len(side))
            same = np.array_equal(rows, language.table[side[order]])
            require(same, f'the order of {language.name} depends on its tokens: no positions')
            places.append(np.argsort(order))
        how = places if run.clones else None, matching_threshold
        found = {}
        for name, values in similarity.compare_states(run.model, *run.rows(sides), *how).items():
            cosine = name in ('same position', 'matched', 'all pairs')
            found['cosine of hidden states' if cosine else name, name if cosine else ''] = values
        return found

    how = {'linear CKA': (None, similarity.cka)}
    return measured(run.sequences, measure, f'{run.name}: hidden states', how)


def study_gradients(run):
    """Cosine of the gradients of the two sides, kinds of tensors x blocks (Figures 11 to 13)."""
    title, note = 'cosine of gradients', ' (0 for the key bias, which has none)'
    note *= run.model.config.positions == 'learned'
    others = [name for name, _ in run.model.named_parameters() if not name.startswith('blocks.')]

    def measure(*sides):
        cosines, kinds = similarity.gradient_similarity(run.model, *run.rows(sides)), {}
        rest = [cosines.pop(name) for name in others]
        for name, cosine in cosines.items():
            kinds.setdefault(name.split('.', 2)[2], []).append(cosine)
        mean = np.mean(list(kinds.values()), axis=0)
        found = {(title + note, kind): cosines for kind, cosines in kinds.items()}
        found[f'{title}, mean of the kinds of tensors', ''] = mean
        return found | {(f'{title}, other tensors', ''): [mean.mean(), *rest]}

    how = {f'{title}, other tensors': (['macro average', *others], np.asarray)}
    return measured(run.sequences, measure, f'{run.name}: gradients', how)


def study_lens(run):
    """The logit lens by language: predictions after each block in each language's test set."""
    languages, size = run.all_languages, run.model.config.vocab_size
    groups = lens.groups_of(run.languages[0], run.languages[-1], size)
    alike = lens.rows_alike([x.table for x in languages], map(lens.pieces_of, languages), size)
    several = (alike[:, 1:] >= 0).any(1).sum()
    visible = [name for name in groups if groups[name].any()] if run.languages[1:] else []
    if len(languages) == 2:
        visible.remove('others')  # padding alone

    def measure(language, rows):
        mass, loss, any_loss = lens.lens(run.model, rows, groups, alike, CHUNK_LOGITS)
        found = {(f'mass on rows, {language} read', name): mass[name] for name in visible}
        found['loss on the next piece, nats', language] = loss
        if several:
            found['loss on the next piece, nats', f'{language}, any language'] = any_loss
            found['saved if any language counts, nats', language] = loss - any_loss
        return found

    result = over_test_sets(run, run.longest, measure)
    words = f'{result.compared}, {several:,} of {len(alike):,} rows spelled like another'
    order = sorted(result.panels, key=lambda heading: not heading.startswith('mass'))
    return Result(words, {heading: result.panels[heading] for heading in order})


def study_position(run):
    """Loss by position in the sequence: a gain from the use of context grows with the position."""
    length, heading = run.model.config.block_size, 'loss by position, nats'
    bins = lens.bins_of(length)

    def measure(language, rows):
        losses = lens.losses_after(run.model, [[]], rows)
        return {(heading, language): lens.sums_by_bin(losses, bins)[0]}

    return over_test_sets(run, length, measure, {heading: (bins, lens.mean_loss)})


def study_switch(run):
    """Losses on texts after contexts in both languages, see lens.CONTEXTS, by position in the text.
    The gain from a context is over unrelated text in the language of the context."""
    parts = lens.contexts_of(run.sequences, run.longest, bool(parallel) or not run.clones)
    texts = [(*map(run.rows, sides), number) for *sides, number in parts]
    if len(texts) < 4:  # else the unrelated text is the text itself
        return Result('too few sequences: there is no unrelated text', {})
    bins = lens.bins_of(max(len(side) for _, text, *_ in texts for side in text))
    headings = [f'loss on {language.name} after a context, nats' for language in run.languages]

    def measure(before, text, unrelated):
        found = {}
        for own, other in ((1, 0), (0, 1)):
            contexts = [text[own][:0], before[own], before[other], text[other]]
            contexts += [unrelated[other], unrelated[own]]
            sums = lens.sums_by_bin(lens.losses_after(run.model, contexts, text[own]), bins)
            found |= {(headings[own], *one[:1]): one[1] for one in zip(lens.CONTEXTS, sums)}
        return found

    how = dict.fromkeys(headings, (bins, lens.mean_loss))
    result, panels = measured(texts, measure, f'{run.name}: code switch', how), {}
    for heading, lines in result.panels.items():
        unrelated = {name: lines[f'{name.split(",")[0]}, unrelated'] for name in lens.CONTEXTS[1:4]}
        panels[heading] = lines
        panels[heading.replace('loss', 'gain', 1)] = difference(lines, unrelated)
    return result._replace(panels=panels)


def study_matching(run):
    """The matching of one pair of sentences by the mean cosine over the blocks (Figure 14)."""
    states = [similarity.hidden_states(run.model, rows) for rows in run.rows(run.sentences)]
    cosines = similarity.token_cosines(*states).mean(0)
    spelled = [language.corpus.load_tokenizer().spellings() for language in run.languages]
    read = [side[x.positions(len(side))] for x, side in zip(run.languages, run.sentences)]
    tokens = [[pieces[token] for token in side] for pieces, side in zip(spelled, read)]
    found = similarity.match_tokens(cosines, matching_threshold).T.tolist()
    matches = [[i, j, float(cosines[i, j])] for i, j in found]
    lines = {}
    for i, j, cosine in (match for match in matches if match[0] < shown):
        name = f'{i:>3} {tokens[0][i]}  {j:>3} {tokens[1][j]}'
        lines[name] = {'cosine': Estimate.exact(cosine)}
    share = 2 * len(matches) / sum(cosines.shape)
    more = dict(names=run.names, tokens=tokens, matches=matches)
    words = f'one pair, {share:.0%} of the tokens matched'
    return Result(words, {'matched tokens': lines}, more | dict(share=share, shown=[0, shown]))


# needs: what of a StudiedRun is read before hours of work, since mistakes raise ConfigError there;
# axis: what numbered places are called; draw: draws the first heading, which has no steps then
Study = namedtuple('Study', 'measure needs axis draw', defaults=['block', None])
STUDIES = dict(
    embeddings=Study(study_embeddings, 'vectors'),
    frequency=Study(study_frequency, 'vectors', 'times read, at least'),
    hidden=Study(study_hidden, 'sequences'),
    gradients=Study(study_gradients, 'sequences', draw=plots.draw_gradients),
    lens=Study(study_lens, 'languages'),
    position=Study(study_position, 'languages', 'tokens read'),
    switch=Study(study_switch, 'sequences', 'pieces of the text read'),
    matching=Study(study_matching, 'sentences', draw=plots.draw_matching),
    word2vec=Study(study_word2vec, 'mix'),
)

# --- the runs side by side ------------------------------------------------------------------------


def check_settings():
    """The names of the studies. Raises ConfigError for settings that contradict each other."""
    names = list(STUDIES) if study == 'all' else [name.strip() for name in study.split(',')]
    for valid, text in (
        (bool(out_dir) != bool(out_dirs), 'give --out_dir=out/RUN or --out_dirs=[out/A,out/B]'),
        (not language_1 or language_1 != language_2, f'both languages are {language_1!r}'),
        (sentence_1 or not sentence_2, 'sentence_2 is the translation of sentence_1: give both'),
        (0 <= matching_threshold < 1, f'matching_threshold {matching_threshold} is not below 1'),
        (set(names) <= set(STUDIES), f'study must be some of {", ".join(STUDIES)}, not {study!r}'),
        (re.fullmatch(r'(all|\[?\d[\d, ]*\]?)?', steps), f'steps: all or 100,200, not {steps!r}'),
    ):
        require(valid, text)
    least = dict(pairs=1, shown=1, word2vec_dim=1, least_read=0, word2vec_steps=0, seed=0)
    for name, low in least.items():
        require(globals()[name] >= low, f'{name} must be at least {low}, not {globals()[name]}')
    return names


def possible(names, runs):
    """The studies that can be made of the runs; prints why others cannot. Raises ConfigError."""
    reasons = {}  # why -> studies
    aligned = '--parallel=[FILE.en,FILE.fr], for the matching --sentence_1 and --sentence_2'
    for name, run in itertools.product(names, runs):
        needs = STUDIES[name].needs
        has_text = run.clones or parallel or needs == 'sentences' and sentence_1
        if needs != 'languages' and len(run.languages) == 1:
            why = f'{run.folder} has one language, two are compared'
        elif needs in ('sequences', 'sentences') and not has_text:
            why = f'the languages of {run.label} are no clones: give {aligned}'
        elif name == 'word2vec' and not find_spec('gensim'):
            why = 'the package gensim is not installed: pip install gensim'
        elif name in ('matching', 'word2vec') and steps:
            why = 'this is not made over training'
        elif name == 'word2vec' and run.settings['train_only']:
            why = f'the text of {run.folder} has one of the two languages'
        elif name == 'switch' and any(language.order for language in run.languages):
            why = f'a language of {run.folder} has another order, where no text follows another'
        else:
            getattr(run, needs)
            continue
        reasons.setdefault(why, {})[name] = True
    left_out = set(itertools.chain(*reasons.values()))
    for why, studies in reasons.items():
        text = f'{", ".join(studies)}: {why}'
        require(left_out < set(names), text)
        print(f'left out: {text}')
    return [name for name in names if name not in left_out]


def replicates(runs):
    """Lists of the runs that differ in their seed alone. A copy of a run differs in nothing."""
    groups = []
    for run in runs:
        for group in groups:
            differ = [differing(run.settings, one.settings, FREE | {'init_from'}) for one in group]
            # the length of a control with epochs follows what it samples
            apart = abs(run.step / group[0].step - 1)
            same = run.names == group[0].names and apart <= (0.02 if run.settings['epochs'] else 0)
            if same and all(names == ['seed'] for names in differ):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def pooled(study, group, number):
    """The Result of the `number`-th group of replicates; with --steps over training."""
    first, over = group[0], {}
    common = sorted(set.intersection(*(set(run.steps) for run in group))) if steps else ['the last']
    require(common, f'{first.folder} and its replicates have kept no checkpoint of one step')
    rest = set().union(*(run.steps for run in group)) - {*common} if steps else ()
    if rest:
        print(f'left out: steps {sorted(rest)}, which not all replicates of {first.name} have kept')
    for step in tqdm(common, 'over training', leave=False, disable=not steps):
        found = [study.measure(run.at(step) if steps else run) for run in group]
        panels = over_seeds([result.panels for result in found], number)
        over[step] = dict(list(panels.items())[bool(steps and study.draw) :])
    about = dict(runs=[run.name for run in group], languages=first.names, step=first.step)
    panels = over_training(over, study.axis) if steps else panels
    compared = ' and '.join(dict.fromkeys(result.compared for result in found))
    return Result(compared, panels, about | dict(parallel=parallel) | found[0].more)


def analyze(name, runs):
    """Makes one study of the runs: measures, prints the tables, writes the files."""
    study, results = STUDIES[name], {}
    groups = replicates(runs) if name != 'matching' else [[run] for run in runs]  # it has no mean
    for number, group in enumerate(groups):
        label = group[0].label + (f' and {len(group) - 1} more' if group[1:] else '')
        results[label] = pooled(study, group, number)
    compared = dict.fromkeys(result.compared for result in results.values())
    whose = f'{len(runs)} models' if runs[1:] else runs[0].label
    title = f'{name}{" over training" if steps else ""}: {whose}, {"; ".join(compared)}'
    if len(results) == 2:
        change = difference(*(result.panels for result in results.values()))
        results['difference'] = Result('second less first', change)
    panels = {label: result.panels for label, result in results.items()}
    print(f'{title} (±: half of the 90% interval)\n', *tables(panels), sep='\n')
    files = [f'{name}-steps' if steps else name, *(run.name for run in runs if runs[1:])]
    path = runs[0].folder / run_name(files, {})
    stored = [dict(compared=r.compared) | r.more | r.panels for r in results.values()]
    stored = dict(zip(results, stored)) if steps or runs[1:] else stored[0]
    write_json(f'{path}.json', as_json(stored))
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
    with memory_advice('lower max_tokens, or use --device=cpu'):
        for name in possible(names, runs):
            analyze(name, runs)


if __name__ == '__main__':
    run_script(globals(), main)
