"""A language is a corpus plus a lookup table; the seed decides what every step reads."""

import tracemalloc
from types import SimpleNamespace

from lib.configurator import ConfigError

import numpy as np
import pytest

from data import ORDERS, Corpus, Language, LanguageMix, build_languages, monolingual

VOCAB = 500  # pieces of each of the corpora en and fr


@pytest.fixture
def build(made_once):
    """build(corpora, ...): (tables, rows) of languages over the corpora en and fr. Every token has
    a row of its own in its table, and padding is row 0 of all."""

    def call(corpora, *arguments, **settings):
        names, root = [f'l{number}' for number in range(len(corpora))], made_once / 'data'
        languages, rows = build_languages(corpora, names, *arguments, root=root, **settings)
        assert [(lang.name, lang.corpus.name) for lang in languages] == [*zip(names, corpora)]
        tables = [language.table for language in languages]
        for table in tables:
            assert table.shape == (VOCAB,) and table[0] == 0 and len(set(table)) == VOCAB
        used = set().union(*tables)
        assert rows - (len(tables) - 1) <= len(used) <= rows  # a clone's padding row stays unused
        assert min(used) == 0 and max(used) < rows
        return tables, rows

    return call


def test_clones_are_offsets_and_other_languages_share_nothing_but_padding(build):
    tables, rows = build(['en'] * 4)
    assert rows == 4 * VOCAB and (tables[0] == np.arange(VOCAB)).all()
    for number, table in enumerate(tables):
        assert (table[1:] == np.arange(1, VOCAB) + number * VOCAB).all()
    (english, french), rows = build(['en', 'fr'])
    assert set(english) & set(french) == {0} and rows == 2 * VOCAB


def test_anchors_merge_exactly_the_tokens_that_are_spelled_the_same(build, made_once):
    (english, french), rows = build(['en', 'fr'], 'anchored')
    corpora = [Corpus(name, made_once / 'data') for name in ('en', 'fr')]
    texts, others = (corpus.load_tokenizer().spellings() for corpus in corpora)
    shared = set(texts) & set(others)
    assert 300 < len(shared) < VOCAB - 20  # special tokens, bytes and more, but not all
    assert rows == 2 * VOCAB - len(shared)
    for i, text in enumerate(texts):
        same = {others.index(text)} if text in shared else set()
        assert {j for j in range(VOCAB) if french[j] == english[i]} == same


def test_cloned_fractions_are_nested_for_a_seed_and_the_same_tokens_for_all_clones(build):
    def cloned(fraction, seed=0):
        (first, *clones), rows = build(['en'] * 3, cloned_fraction=fraction, seed=seed)
        own, other = (set(np.flatnonzero(first != clone)) for clone in clones)
        size = round(fraction * VOCAB)
        assert rows == VOCAB + 2 * size and own == other
        assert size - 1 <= len(own) <= size  # padding may have been drawn
        assert set(clones[0]) & set(clones[1]) == set(first) & set(clones[1])
        return own

    nested = [cloned(fraction) for fraction in (0.0, 0.1, 0.35, 0.5, 0.9, 1.0)]
    assert all(small < large for small, large in zip(nested, nested[1:]))
    assert nested[3] == cloned(0.5) != cloned(0.5, seed=1)
    assert 0.4 < np.mean(np.array([*nested[3]]) < VOCAB // 2) < 0.6  # from the whole vocabulary


@pytest.mark.parametrize('vocabulary', ['disjoint', 'anchored'])
def test_clones_and_real_languages_mix(build, vocabulary):
    (english, french, clone), rows = build(['en', 'fr', 'en'], vocabulary)
    pair, rows_of_pair = build(['en', 'fr'], vocabulary)
    assert (english == pair[0]).all() and (french == pair[1]).all()
    assert rows == rows_of_pair + VOCAB
    assert set(clone) & (set(english) | set(french)) == {0}
    build(['fr', 'fr', 'fr', 'en', 'en'], vocabulary, 0.4)


SENSELESS = [
    ('corpora', 'en en', 'a', {}),
    ('corpora', '', '', {}),
    ('name', 'en fr', 'a a', {}),
    ('cloned_fraction', 'en en', 'a b', dict(vocabulary='anchored')),
    ('vocabulary', 'en fr', 'a b', dict(vocabulary='merged')),
    ('cloned_fraction', 'en en', 'a b', dict(cloned_fraction=1.01)),
    ('prepare.py --corpus=nothing', 'en nothing', 'a b', {}),
    ('orders', 'en en', 'a b', dict(orders=['reversed'])),
]
BAD_ORDERS = 'shuffled_1', 'shuffled_K', 'reversed_4', 3
SENSELESS += [('orders', 'en en', 'a b', dict(orders=['', order])) for order in BAD_ORDERS]


def test_an_order_may_have_any_name_and_must_read_each_token_once(made_once, monkeypatch):
    monkeypatch.setitem(ORDERS, 'odd_even_K', lambda starts, K: np.arange(K) ^ 1)
    monkeypatch.setitem(ORDERS, 'half', lambda starts, K: np.arange(K) // 2)
    [_, language] = ordered(made_once, '', 'odd_even_4')
    assert language.ids(np.arange(6)).tolist() == language.table[[1, 0, 3, 2, 5, 4]].tolist()
    with pytest.raises(ConfigError, match='half'):
        ordered(made_once, '', 'half')


@pytest.mark.parametrize('word, corpora, names, settings', SENSELESS)
def test_languages_that_make_no_sense_are_refused(made_once, word, corpora, names, settings):
    with pytest.raises(ConfigError, match=word):
        build_languages(corpora.split(), names.split(), root=made_once / 'data', **settings)


def ordered(root, *orders):
    names = [f'language {number}' for number in range(len(orders))]
    return build_languages(['en'] * len(orders), names, orders=orders, root=root / 'data')[0]


@pytest.mark.parametrize('order', ['shuffled_8', 'scrambled_8'])
def test_tokens_stay_in_their_window_and_any_part_of_a_text_is_read_as_in_the_whole(order):
    language = Language('a', None, None, order)
    positions = language.positions(800)
    windows = positions.reshape(-1, 8) - np.arange(0, 800, 8)[:, None]
    assert (np.sort(windows) == np.arange(8)).all()
    assert (windows != np.arange(8)).any(1).mean() > 0.9
    assert len({tuple(window) for window in windows}) == (1 if order == 'shuffled_8' else 100)
    assert (language.positions(24, start=160) == positions[160:184] - 160).all()
    assert language.positions(21).tolist() == [p for p in positions if p < 21]
    for size in range(2, 65):  # no size of window stays as it is
        positions = Language('a', None, None, f'shuffled_{size}').positions(size)
        assert (positions != np.arange(size)).any()


def test_a_scrambled_window_is_a_permutation_of_its_own_drawn_evenly():
    windows = Language('a', None, None, 'scrambled_4').positions(96_000).reshape(-1, 4) % 4
    _, counts = np.unique(windows, axis=0, return_counts=True)
    assert len(counts) == 24 and abs(counts - 1000).max() < 150  # standard deviation 31


@pytest.mark.parametrize('order', ['', 'reversed', 'shuffled_8', 'scrambled_8'])
def test_a_sequence_is_one_of_the_whole_text_put_into_the_order(made_once, order):
    languages = ordered(made_once, '', order)
    mix = LanguageMix(languages, [[0.5, 0.5]], 10, 16, 32, 0)
    plain = LanguageMix(ordered(made_once, '', ''), [[0.5, 0.5]], 10, 16, 32, 0)
    whole = languages[1].ids(np.asarray(languages[1].corpus.train))
    windows = np.lib.stride_tricks.sliding_window_view(whole, 33)
    for step in range(4):
        before, (inputs, targets, drawn) = plain.batch(step), mix.batch(step)
        assert (drawn == before[2]).all() and (inputs[:, 1:] == targets[:, :-1]).all()
        assert (inputs[drawn == 0] == before[0][drawn == 0]).all()
        for row in np.flatnonzero(drawn == 1):
            (places,) = np.nonzero((windows == np.append(inputs[row], targets[row, -1])).all(1))
            assert len(places)  # the stream that evaluation reads has it ...
            if order != 'reversed':
                assert (places % 32 == 0).any()  # ... from the same place within a window
            assert order == '' or (inputs[row] != before[0][row]).any()


T = 8  # tokens of a sequence


def mix_of(sizes, corpora, stages, steps=60, batch_size=16, seed=0):
    """A LanguageMix over corpora of `sizes` tokens, each of which tells its place in the corpus;
    language i is over corpus corpora[i] and has ids that begin at 10,000 times i."""
    texts = [np.arange(size, dtype=np.uint16) for size in sizes]
    made = [SimpleNamespace(name=f'corpus {i}', train=text) for i, text in enumerate(texts)]
    tables = [(np.arange(sizes[c]) + 10_000 * i).astype(np.int32) for i, c in enumerate(corpora)]
    languages = [Language(f'language {i}', made[c], tables[i]) for i, c in enumerate(corpora)]
    stages = stages if isinstance(stages, list) else [stages]
    return LanguageMix(languages, stages, steps, batch_size, T, seed)


def chunks_read(source, steps, languages=3):
    """[the numbers of the chunks that the steps read in each language, in order]"""
    read = [[] for _ in range(languages)]
    for step in steps:
        inputs, _, drawn = source.batch(step)
        for row, language in zip(inputs, drawn):
            start = row[0] - 10_000 * language
            assert start % T == 0 and (row == np.arange(start, start + T) + 10_000 * language).all()
            read[language].append(int(start) // T)
    return read


# the first and the last language are clones
THREE = dict(sizes=[1000, 3001], corpora=[0, 1, 0], stages=(0.2, 0.5, 0.3))


def test_a_batch_is_a_pure_function_of_the_seed_and_the_step_however_it_is_cut():
    mix = mix_of(**THREE)
    forward = [mix.batch(step) for step in range(40)]
    for step in (39, 0, 17, 17, 5, 38):
        for rows in (slice(None), slice(3, 7), slice(1, None, 2), np.array([3, 5, 11])):
            for again in (mix.batch(step, rows), mix_of(**THREE).batch(step, rows)):
                assert all((a == b[rows]).all() for a, b in zip(again, forward[step]))
    other = mix_of(**THREE, seed=1)
    same = np.mean([batch[2] == other.drawn[step] for step, batch in enumerate(forward)])
    assert 0.3 < same < 0.46  # 0.38 by chance
    first, second = (chunks_read(mix_of([1601], [0], (1.0,), seed=s), range(12))[0] for s in (0, 1))
    assert sum(a == b for a, b in zip(first, second)) < 8  # of 192; one by chance


@pytest.mark.parametrize(
    'sizes, corpora, stages',
    [
        ([801], [0], (1.0,)),
        ([801], [0, 0], (0.8, 0.2)),
        ([801, 1608], [0, 1], (0.5, 0.5)),
        ([801, 1608], [0, 1, 0, 1, 1], (0.3, 0.2, 0.1, 0.2, 0.2)),
        ([801], [0, 0], [[1.0, 0.0], [0.5, 0.5]]),
    ],
)
def test_a_language_reads_all_of_its_text_before_it_reads_any_again(sizes, corpora, stages):
    read = chunks_read(mix_of(sizes, corpora, stages), range(60), len(corpora))
    for number, size in enumerate(sizes):
        of_corpus = [read[i] for i, corpus in enumerate(corpora) if corpus == number]
        owned = [sorted(set(part)) for part in of_corpus]
        assert sorted(sum(owned, [])) == list(range((size - 1) // T))  # each chunk to one language
        for part, own in zip(of_corpus, owned):
            epochs = [part[i : i + len(own)] for i in range(0, len(part), len(own))]
            assert len(epochs) > 2 and epochs[0] != sorted(epochs[0])
            assert all(sorted(epoch) == own for epoch in epochs[:-1])
            assert len(set(epochs[-1])) == len(epochs[-1])
            assert epochs[0] != epochs[1]  # a new order each time


def test_clones_own_text_in_proportion_to_what_they_read_and_never_read_that_of_another():
    for seed in (0, 1):
        mix = mix_of([8001], [0, 0, 0], (0.7, 0.2, 0.1), steps=400, seed=seed)
        read = [set(part) for part in chunks_read(mix, range(400))]  # 6.4 epochs
        assert [len(part) for part in read] == [700, 200, 100]
        assert abs(np.mean(list(read[1])) - 500) < 60  # from everywhere in the corpus
    read = chunks_read(mix_of([801, 801], [0, 1], (0.5, 0.5)), range(10))
    assert sum(a == b for a, b in zip(*read[:2])) < 8  # each corpus has an order of its own


def test_a_shorter_run_sees_a_prefix_of_a_longer_run_in_batches_of_any_size():
    def sequences(steps, size):
        mix = mix_of(**THREE, steps=steps, batch_size=size)
        return np.concatenate([mix.batch(step)[0] for step in range(steps)])

    whole = sequences(40, 16)
    for steps, size in ((3, 16), (10, 16), (25, 16), (160, 4), (20, 32)):
        assert (sequences(steps, size) == whole[: steps * size]).all()


def test_languages_come_as_often_as_their_probabilities_say():
    stages = [[0.9, 0.098, 0.0], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]]  # the first adds up to less
    mix = mix_of([801], [0, 0, 0], stages, steps=90, batch_size=100)
    for stage, expected in enumerate(stages):
        drawn = mix.drawn[30 * stage : 30 * stage + 30].ravel()
        shares = np.bincount(drawn, minlength=3) / len(drawn)
        for p, share in zip(expected, shares):  # 3,000 sequences: standard deviation 0.009
            assert share == p if p in (0, 1) else abs(share - p) < 0.03
    first = np.array(mix.drawn[:30] == 0, float)
    assert 1.5 < first.sum(1).std() < 4.5  # each sequence draws for itself: binomial, sd 3
    assert abs(np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]) < 0.08


def test_sequences_before_a_step_and_epochs_equal_counting():
    mix, counts = mix_of(**THREE, steps=30), np.zeros(3, int)
    for step in range(30):
        assert (mix.before[step] == counts).all()
        counts += np.bincount(mix.batch(step)[2], minlength=3)
    assert [*mix.epochs.values()] == pytest.approx(counts[[0, 2, 1]] / [50, 74, 375])


def test_the_order_of_a_large_corpus_takes_a_few_bytes_a_sequence():
    tokens = np.broadcast_to(np.uint16(1), 8 * 1_000_000 + 1)
    languages = [Language(f'l{i}', SimpleNamespace(name='c', train=tokens), None) for i in range(2)]
    tracemalloc.start()
    LanguageMix(languages, [[0.9, 0.1]], 10, 16, T, 0)
    assert tracemalloc.get_traced_memory()[1] < 12 * 2_000_000  # two corpora
    tracemalloc.stop()


def test_a_corpus_that_is_too_short_is_refused():
    assert mix_of([T + 1], [0], (1.0,)).batch(5)[0].tolist() == [list(range(T))] * 16
    with pytest.raises(ConfigError, match='corpus 1.*language 1.*block_size'):
        mix_of([100, T], [0, 1], (0.5, 0.5))
    with pytest.raises(ConfigError, match='corpus 0.*language 1'):
        mix_of([20], [0, 0], (0.9, 0.1))  # two chunks: both are the first language's


@pytest.mark.parametrize(
    'corpora, stages, settings',
    [
        (['en', 'en'], [[1.0, 0.0], [0.2, 0.8]], {}),
        (['en', 'en'], [[0.6, 0.4]], dict(cloned_fraction=0.4, orders=['', 'scrambled_4'])),
        (['en', 'fr', 'en'], [[0.5, 0.3, 0.2]], dict(vocabulary='anchored')),
    ],
)
def test_a_control_has_the_sequences_of_the_mix_in_its_steps(made_once, corpora, stages, settings):
    names = [f'language {number}' for number in range(len(corpora))]
    languages, _ = build_languages(corpora, names, root=made_once / 'data', **settings)
    (alone,), rows = monolingual(languages, names[-1])
    assert rows == VOCAB and (alone.table == np.arange(VOCAB)).all()
    mix, index = LanguageMix(languages, stages, 30, 8, 32, 0), len(names) - 1
    control = mix.control(alone)
    for step in range(30):
        inputs, targets, drawn = mix.batch(step)
        own, batch = drawn == index, control.batch(step)
        assert control.counts[step] == own.sum() == len(batch[0])
        for ours, theirs in zip(batch, (inputs[own], targets[own])):
            assert (languages[-1].table[ours] == theirs).all()


def test_a_control_re_reads_the_sequences_of_the_mix_in_new_orders():
    mix = mix_of(**THREE, steps=12)
    of_mix = chunks_read(mix, range(12))[2]
    control = mix.control(mix.languages[2], epochs=3, batch_size=11)
    assert list(control.epochs.values()) == [3 * epochs for epochs in mix.epochs.values()]
    steps = range(len(control.counts))
    read, count = chunks_read(control, steps)[2], len(of_mix)
    assert set(control.counts[:-1]) == {11} and count % 11  # an epoch ends within a batch
    assert control.counts.sum() == len(read) == 3 * count
    assert read[:count] == of_mix
    epochs = [read[i : i + count] for i in range(0, len(read), count)]
    assert all(sorted(epoch) == sorted(of_mix) for epoch in epochs)
    assert all(np.mean(np.equal(epochs[a], epochs[b])) < 0.3 for a, b in ((0, 1), (0, 2), (1, 2)))
    again = mix_of(**THREE, steps=12).control(mix.languages[2], epochs=3, batch_size=11)
    for step in reversed(steps):  # a pure function of the step
        part = again.batch(step, slice(1, None, 2))
        assert all((a == b[1::2]).all() for a, b in zip(part, control.batch(step)))
