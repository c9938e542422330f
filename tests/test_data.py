"""A language is a corpus plus a lookup table; the seed decides what every step holds."""

from types import SimpleNamespace

import numpy as np
import pytest

from data import Language, LanguageMix, alone, build_languages
from lib.configurator import ConfigError

VOCAB = 500  # pieces of each of the corpora en and fr


# --- the tables -----------------------------------------------------------------------------------


@pytest.fixture
def build(made_once):
    """build(corpora, ...): (tables, entries) of languages over the corpora en and fr."""

    def call(corpora, *arguments, **settings):
        names = [f'language {number}' for number in range(len(corpora))]
        languages, entries = build_languages(
            corpora, names, *arguments, root=made_once / 'data', **settings
        )
        assert [language.name for language in languages] == names
        assert [language.corpus.name for language in languages] == corpora
        return [language.table for language in languages], entries

    return call


@pytest.fixture
def spelling(made_once):
    """{corpus: the pieces of its tokeniser}"""
    languages, _ = build_languages(['en', 'fr'], ['en', 'fr'], root=made_once / 'data')
    return {
        language.name: [language.corpus.load_tokenizer().id_to_piece(i) for i in range(VOCAB)]
        for language in languages
    }


MIXES = [
    dict(corpora=corpora, vocabulary=vocabulary, cloned_fraction=fraction)
    for corpora in (
        ['en'],
        ['en', 'en'],
        ['en', 'fr'],
        ['en', 'fr', 'en'],
        ['fr', 'fr', 'fr', 'en', 'en'],
    )
    for vocabulary in ('disjoint', 'anchored')
    if vocabulary == 'disjoint' or len(set(corpora)) > 1
    for fraction in (1.0, 0.4)
]


@pytest.mark.parametrize(
    'mix', MIXES, ids=lambda mix: ' '.join(map(str, [*mix['corpora'], *list(mix.values())[1:]]))
)
def test_every_language_has_ids_of_its_own_within_the_vocabulary_and_padding_is_one_for_all(
    build, mix
):
    tables, entries = build(**mix)
    for table in tables:
        assert table.shape == (VOCAB,) and table[0] == 0
        assert len(set(table)) == VOCAB and table.min() == 0 and table.max() < entries
    used = set().union(*tables)
    assert (
        entries - (len(tables) - 1) <= len(used) <= entries
    )  # the id of a clone's own padding stays unused


def test_one_language_alone_keeps_the_ids_of_its_corpus(build):
    (table,), entries = build(['en'])
    assert (table == np.arange(VOCAB)).all() and entries == VOCAB


def test_clones_are_offsets(build):
    tables, entries = build(['en'] * 4)
    assert entries == 4 * VOCAB
    for number, table in enumerate(tables):
        assert (table[1:] == np.arange(1, VOCAB) + number * VOCAB).all()


def test_disjoint_languages_share_nothing_but_padding(build):
    (english, french), entries = build(['en', 'fr'])
    assert set(english) & set(french) == {0} and entries == 2 * VOCAB


def test_anchors_merge_exactly_the_pieces_that_are_spelled_alike(build, spelling):
    (english, french), entries = build(['en', 'fr'], 'anchored')
    shared = set(spelling['en']) & set(spelling['fr'])
    assert 300 < len(shared) < VOCAB - 20  # the special pieces, the bytes and more, but not all
    assert entries == 2 * VOCAB - len(shared)
    for i, piece in enumerate(spelling['en']):
        assert {j for j in range(VOCAB) if french[j] == english[i]} == (
            {spelling['fr'].index(piece)} if piece in shared else set()
        )


def test_cloned_fractions_are_nested_and_of_the_right_size(build):
    before = set()
    for fraction in (0.0, 0.1, 0.35, 0.9, 1.0):
        (first, clone), entries = build(['en', 'en'], cloned_fraction=fraction)
        own = set(np.flatnonzero(first != clone))
        assert entries == VOCAB + round(fraction * VOCAB)
        assert (
            round(fraction * VOCAB) - 1 <= len(own) <= round(fraction * VOCAB)
        )  # padding may have been drawn
        assert before <= own and (clone[sorted(own)] >= VOCAB).all()
        before = own


def test_the_cloned_pieces_are_drawn_by_the_seed_and_are_the_same_for_all_clones(build):
    def own(seed):
        tables, _ = build(['en'] * 3, cloned_fraction=0.5, seed=seed)
        assert set(tables[1]) & set(tables[2]) == set(tables[0]) & set(tables[1])
        return np.flatnonzero(tables[0] != tables[1])

    assert own(0).tolist() == own(0).tolist() != own(1).tolist()
    assert 0.4 < np.mean(own(0) < VOCAB // 2) < 0.6  # from the whole vocabulary


@pytest.mark.parametrize('vocabulary', ['disjoint', 'anchored'])
def test_clones_and_real_languages_mix(build, spelling, vocabulary):
    (english, french, clone), entries = build(['en', 'fr', 'en'], vocabulary)
    shared = len(set(spelling['en']) & set(spelling['fr'])) if vocabulary == 'anchored' else 0
    pair, _ = build(['en', 'fr'], vocabulary)
    assert (english == pair[0]).all() and (french == pair[1]).all()
    assert entries == 3 * VOCAB - shared
    assert set(clone) & (set(english) | set(french)) == {0}


@pytest.mark.parametrize(
    'corpora, names, settings, words',
    [
        (['en', 'en'], ['a'], {}, '2 corpora for 1 languages'),
        (['en'], ['a', 'b'], {}, '1 corpora for 2 languages'),
        ([], [], {}, '0 corpora'),
        (['en', 'fr'], ['a', 'a'], {}, 'the same name'),
        (['en', 'en'], ['a', 'b'], dict(vocabulary='anchored'), 'set cloned_fraction'),
        (['en', 'fr'], ['a', 'b'], dict(vocabulary='merged'), "not 'merged'"),
        (['en', 'en'], ['a', 'b'], dict(cloned_fraction=1.01), 'not 1.01'),
        (['en', 'en'], ['a', 'b'], dict(cloned_fraction=-0.1), 'not -0.1'),
        (['en', 'nothing'], ['a', 'b'], {}, 'make it with: python prepare.py --corpus=nothing'),
    ],
)
def test_languages_that_make_no_sense_are_refused(made_once, corpora, names, settings, words):
    with pytest.raises(ConfigError, match=words):
        build_languages(corpora, names, root=made_once / 'data', **settings)


# --- the mix --------------------------------------------------------------------------------------

T = 8  # tokens of a sequence


def corpus_of(name, tokens):
    """A corpus whose tokens tell where they stand."""
    train = np.arange(tokens, dtype=np.uint16)
    return SimpleNamespace(name=name, folder=name, train=train, vocab_size=tokens)


def mix_of(sizes, corpora, stages, steps=60, batch_size=16, seed=0, parallel_epochs=False):
    """A LanguageMix over corpora of `sizes` tokens, whose language i is over corpus corpora[i] and
    has ids that begin at 10,000 times i."""
    made = [corpus_of(f'corpus {number}', size) for number, size in enumerate(sizes)]
    tables = [(np.arange(sizes[c]) + 10_000 * i).astype(np.int32) for i, c in enumerate(corpora)]
    languages = [Language(f'language {i}', made[c], tables[i]) for i, c in enumerate(corpora)]
    stages = stages if isinstance(stages, list) else [stages]
    return LanguageMix(languages, stages, steps, batch_size, T, seed, parallel_epochs)


def chunks_read(mix, steps):
    """[the numbers of the chunks that the steps read in each language, in order]"""
    read = [[] for _ in mix.languages]
    for step in steps:
        inputs, _, drawn = mix.batch(step)
        for row, language in zip(inputs, drawn):
            start = row[0] - 10_000 * language
            assert start % T == 0 and (row == np.arange(start, start + T) + 10_000 * language).all()
            read[language].append(int(start) // T)
    return read


# the first and the last language are clones
THREE = dict(sizes=[1000, 3001], corpora=[0, 1, 0], stages=(0.2, 0.5, 0.3))


def test_targets_are_the_inputs_moved_by_one():
    inputs, targets, drawn = mix_of(**THREE).batch(3)
    assert inputs.shape == targets.shape == (16, T) and drawn.shape == (16,)
    assert (targets[:, :-1] == inputs[:, 1:]).all()
    assert (targets == inputs + 1).all()  # in these corpora a token is one more than the one before


def test_a_batch_is_a_pure_function_of_the_seed_and_the_step():
    mix = mix_of(**THREE)
    forward = [mix.batch(step) for step in range(40)]
    for step in (39, 0, 17, 17, 5, 38):
        for again in (mix.batch(step), mix_of(**THREE).batch(step)):
            assert all((a == b).all() for a, b in zip(again, forward[step]))
    other = mix_of(**THREE, seed=1)
    alike = np.mean([batch[2] == other.drawn[step] for step, batch in enumerate(forward)])
    assert 0.3 < alike < 0.46  # 0.38 by chance
    first, second = (chunks_read(mix_of([1601], [0], (1.0,), seed=s), range(12))[0] for s in (0, 1))
    assert sum(a == b for a, b in zip(first, second)) < 8  # of 192; one by chance


def test_rows_of_a_batch_do_not_depend_on_how_it_is_cut():
    mix = mix_of(**THREE)
    for step in (0, 9):
        whole = mix.batch(step)
        for size in (1, 3, 8, 16):
            parts = [mix_of(**THREE).batch(step, slice(i, i + size)) for i in range(0, 16, size)]
            for number in range(3):
                assert (np.concatenate([part[number] for part in parts]) == whole[number]).all()
        chosen = np.array([3, 5, 11])
        assert all((a == b[chosen]).all() for a, b in zip(mix.batch(step, chosen), whole))


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
    read = chunks_read(mix_of(sizes, corpora, stages), range(60))
    for number, size in enumerate(sizes):
        of_corpus = [read[i] for i, corpus in enumerate(corpora) if corpus == number]
        chunks = (size - 1) // T
        owned = [sorted(set(part)) for part in of_corpus]
        assert sorted(sum(owned, [])) == list(
            range(chunks)
        )  # all text, every chunk to one language
        for part, own in zip(of_corpus, owned):
            epochs = [part[i : i + len(own)] for i in range(0, len(part), len(own))]
            assert len(epochs) > 2
            for epoch in epochs[:-1]:
                assert sorted(epoch) == own
            assert len(set(epochs[-1])) == len(epochs[-1])
            assert epochs[0] != sorted(epochs[0])
            assert epochs[0] != epochs[1]  # a new order each time


def test_clones_own_text_in_proportion_to_what_they_read_and_never_read_that_of_another():
    for seed in (0, 1):
        mix = mix_of([8001], [0, 0, 0], (0.7, 0.2, 0.1), steps=400, seed=seed)
        read = [set(part) for part in chunks_read(mix, range(400))]  # 6.4 epochs
        assert [len(part) for part in read] == [700, 200, 100]
        assert not read[0] & read[1] and not read[0] & read[2] and not read[1] & read[2]
        assert abs(np.mean(list(read[1])) - 500) < 60  # from everywhere in the corpus


def test_parallel_epochs_bring_a_chunk_back_in_another_language():
    mix = mix_of([801], [0, 0], (0.5, 0.5), steps=60, parallel_epochs=True)
    first = chunks_read(mix, range(6))  # 96 of 100 chunks
    assert not set(first[0]) & set(first[1])
    whole = chunks_read(mix, range(60))
    assert len(set(whole[0]) & set(whole[1])) > 90


def test_corpora_of_the_same_size_have_orders_of_their_own():
    read = chunks_read(mix_of([801, 801], [0, 1], (0.5, 0.5)), range(10))
    assert sum(a == b for a, b in zip(*read)) < 8


@pytest.mark.parametrize('steps', [3, 10, 25])
def test_a_shorter_run_sees_a_prefix_of_a_longer_run(steps):
    short, long = (mix_of(**THREE, steps=n) for n in (steps, 40))
    for step in range(steps):
        assert all((a == b).all() for a, b in zip(short.batch(step), long.batch(step)))


def test_text_is_read_alike_whatever_the_batch_size():
    def sequences(size):
        mix = mix_of(**THREE, steps=96 // size, batch_size=size)
        return np.concatenate([mix.batch(step)[0] for step in range(96 // size)])

    assert (sequences(4) == sequences(16)).all() and (sequences(16) == sequences(32)).all()


def test_languages_come_as_often_as_their_probabilities_say():
    stages = [[0.9, 0.1, 0.0], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]]
    mix = mix_of([801], [0, 0, 0], stages, steps=90, batch_size=100)
    for stage, expected in enumerate(stages):
        drawn = mix.drawn[30 * stage : 30 * stage + 30].ravel()
        shares = np.bincount(drawn, minlength=3) / len(drawn)
        for p, share in zip(expected, shares):  # 3,000 draws: standard deviation 0.009
            assert share == p if p in (0, 1) else abs(share - p) < 0.03
    first = np.array(mix.drawn[:30] == 0, float)
    assert 1.5 < first.sum(1).std() < 4.5  # each sequence draws for itself: binomial, sd 3
    assert abs(np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]) < 0.08


def test_sequences_before_a_step_equal_counting_the_draws():
    mix, counts = mix_of(**THREE), np.zeros(3, int)
    for step in range(30):
        assert (mix.before[step] == counts).all()
        counts += np.bincount(mix.batch(step)[2], minlength=3)


def test_epochs_say_how_often_each_language_read_its_text():
    mix = mix_of(**THREE)
    read, times = chunks_read(mix, range(40)), mix.epochs(40)
    assert times['language 1'] == len(read[1]) / 375
    assert times['language 0'] == len(read[0]) / 50 and times['language 2'] == len(read[2]) / 74
    together = mix_of(**THREE, parallel_epochs=True).epochs(40)
    assert together['language 0'] == together['language 2'] == (len(read[0]) + len(read[2])) / 124
    assert set(mix.epochs(0).values()) == {0}


def test_a_corpus_that_is_too_short_is_refused():
    assert mix_of([T + 1], [0], (1.0,)).batch(5)[0].tolist() == [list(range(T))] * 16
    words = 'corpus 1 has 8 training tokens.*language 1.*block_size 8.*smaller block_size or more'
    with pytest.raises(ConfigError, match=words):
        mix_of([100, T], [0, 1], (0.5, 0.5))
    with pytest.raises(ConfigError, match='corpus 0 has 20 .*language 1'):
        mix_of([20], [0, 0], (0.9, 0.1))  # two chunks: both are the first language's


def test_a_language_alone_has_its_corpus_s_own_ids(made_once):
    languages, _ = build_languages(['en', 'fr', 'en'], ['a', 'b', 'c'], root=made_once / 'data')
    (language,), entries = alone(languages, 'c')
    assert entries == VOCAB and language.name == 'c' and language.corpus is languages[0].corpus
    assert (language.table == np.arange(VOCAB)).all()


@pytest.mark.parametrize('vocabulary', ['disjoint', 'anchored'])
def test_what_a_model_reads_is_the_text_of_the_corpora(made_once, vocabulary):
    languages, _ = build_languages(
        ['en', 'fr', 'en'], ['en', 'fr', 'en2'], vocabulary, root=made_once / 'data'
    )
    mix = LanguageMix(languages, [(0.4, 0.4, 0.2)], 400, 32, 64, 0)
    back = [{entry: i for i, entry in enumerate(lang.table.tolist())} for lang in languages]
    chunks = {'en': {}, 'fr': {}}  # of each corpus: first tokens of a chunk -> the chunk
    step = 0
    while min(mix.epochs(step).values()) < 1:
        inputs, targets, drawn = mix.batch(step)
        for row, last, language in zip(inputs.tolist(), targets[:, -1].tolist(), drawn):
            ids = tuple(back[language][entry] for entry in row + [last])
            chunks[languages[language].corpus.name][ids[:-1]] = ids
        step += 1
    for language in languages[:2]:
        train, pieces = language.corpus.train.tolist(), language.corpus.load_tokenizer()
        count = (len(train) - 1) // 64
        expected = [tuple(train[i : i + 65]) for i in range(0, count * 64, 64)]
        read = chunks[language.corpus.name]
        assert sorted(read.values()) == sorted(set(expected))
        text = pieces.decode([token for ids in expected for token in read[ids[:-1]][:-1]])
        assert text == pieces.decode(train[: count * 64]) and len(text) > 100_000


def test_a_token_that_the_tokeniser_does_not_have_is_refused():
    mix = mix_of([100], [0], (1.0,))
    mix.languages[0].table = mix.languages[0].table[:50]
    with pytest.raises(ConfigError, match='corpus 0/train.bin holds a token.*make it again'):
        for step in range(3):
            mix.batch(step)
