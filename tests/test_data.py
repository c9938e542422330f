"""A language is a corpus plus a lookup table; what a step holds is a pure function of the seed and the step."""
from types import SimpleNamespace

import numpy as np
import pytest

from configurator import ConfigError
from data import Language, LanguageMix, build_languages, shuffled, uniforms
from schedule import language_probabilities

VOCAB = 500  # pieces of each of the corpora en and fr


# --- the tables -----------------------------------------------------------------------------------------------------

@pytest.fixture
def build(made_once):
    """build(corpora, ...): (tables, entries) of languages over the corpora en and fr."""
    def call(corpora, *arguments, **settings):
        names = [f'language {number}' for number in range(len(corpora))]
        languages, entries = build_languages(corpora, names, *arguments, root=made_once / 'data', **settings)
        assert [language.name for language in languages] == names
        assert [language.corpus.name for language in languages] == corpora
        return [language.table for language in languages], entries
    return call


@pytest.fixture
def spelling(made_once):
    """{corpus: the pieces of its tokeniser}"""
    languages, _ = build_languages(['en', 'fr'], ['en', 'fr'], root=made_once / 'data')
    return {language.name: [language.corpus.load_tokenizer().id_to_piece(i) for i in range(VOCAB)]
            for language in languages}


MIXES = [dict(corpora=corpora, vocabulary=vocabulary, cloned_fraction=fraction)
         for corpora in (['en'], ['en', 'en'], ['en', 'fr'], ['en', 'fr', 'en'], ['fr', 'fr', 'fr', 'en', 'en'])
         for vocabulary in ('disjoint', 'anchored') if vocabulary == 'disjoint' or len(set(corpora)) > 1
         for fraction in (1.0, 0.4)]


@pytest.mark.parametrize('mix', MIXES, ids=lambda mix: ' '.join(map(str, [*mix['corpora'], *list(mix.values())[1:]])))
def test_every_language_has_ids_of_its_own_within_the_vocabulary_and_padding_is_one_for_all(build, mix):
    tables, entries = build(**mix)
    for table in tables:
        assert table.shape == (VOCAB,) and table[0] == 0
        assert len(set(table)) == VOCAB and table.min() == 0 and table.max() < entries
    used = set().union(*tables)
    assert entries - (len(tables) - 1) <= len(used) <= entries  # the id of a clone's own padding stays unused


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
            {spelling['fr'].index(piece)} if piece in shared else set())


def test_cloned_fractions_are_nested_and_of_the_right_size(build):
    before = set()
    for fraction in (0.0, 0.1, 0.35, 0.9, 1.0):
        (first, clone), entries = build(['en', 'en'], cloned_fraction=fraction)
        own = set(np.flatnonzero(first != clone))
        assert entries == VOCAB + round(fraction * VOCAB)
        assert round(fraction * VOCAB) - 1 <= len(own) <= round(fraction * VOCAB)  # padding may have been drawn
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


@pytest.mark.parametrize('corpora, names, settings, words', [
    (['en', 'en'], ['a'], {}, '2 corpora for 1 languages'), (['en'], ['a', 'b'], {}, '1 corpora for 2 languages'),
    ([], [], {}, '0 corpora'), (['en', 'fr'], ['a', 'a'], {}, 'the same name'),
    (['en', 'en'], ['a', 'b'], dict(vocabulary='anchored'), 'set cloned_fraction'),
    (['en', 'fr'], ['a', 'b'], dict(vocabulary='merged'), "not 'merged'"),
    (['en', 'en'], ['a', 'b'], dict(cloned_fraction=1.01), 'not 1.01'),
    (['en', 'en'], ['a', 'b'], dict(cloned_fraction=-0.1), 'not -0.1'),
    (['en', 'nothing'], ['a', 'b'], {}, 'make it with: python prepare.py --corpus=nothing'),
])
def test_languages_that_make_no_sense_are_refused(made_once, corpora, names, settings, words):
    with pytest.raises(ConfigError, match=words):
        build_languages(corpora, names, root=made_once / 'data', **settings)


# --- randomness by counter ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n', [*range(1, 40), 64, 100, 257, 1000, 1023, 10_007])
def test_a_shuffled_order_has_every_place_once(n):
    for seed in (0, (7, 1, 3)):
        assert sorted(shuffled(seed, np.arange(n), n)) == list(range(n))


def test_a_place_of_a_shuffled_order_needs_no_other():
    whole = shuffled(5, np.arange(1000), 1000)
    places = np.array([999, 3, 3, 500, 0])
    assert (shuffled(5, places, 1000) == whole[places]).all()
    assert shuffled(5, np.array([], int), 1000).shape == (0,)


def test_a_shuffled_order_of_a_hundred_billion_places_is_found_at_once():
    n = 10**11
    found = shuffled(1, n - 1 - np.arange(50_000), n)
    assert len(set(found.tolist())) == 50_000 and found.min() >= 0 and found.max() < n
    assert abs(found.mean() / n - 0.5) < 0.01


@pytest.mark.parametrize('n', [50, 1000, 1001, 1024])
def test_a_shuffled_order_looks_random(n):
    places = np.arange(n)
    orders = np.array([shuffled((seed, 0, 0), places, n) for seed in range(60)])
    width = int(np.ceil(np.sqrt(n)))
    assert abs(np.abs(orders - places).mean() / n - 1 / 3) < 0.02  # how far things move
    for distance in (1, 2, width - 1, width, width + 1):  # what was near is near no more
        assert abs(np.abs(orders[:, distance:] - orders[:, :-distance]).mean() / n - 1 / 3) < 0.02
        following = (orders[:, distance:] - orders[:, :-distance] == distance).sum(1).mean()
        assert following < 2
    assert abs((np.diff(orders) > 0).mean() - 0.5) < 0.02
    assert (orders == places).sum(1).mean() < 2  # one place stays on average


@pytest.mark.parametrize('other', [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_orders_of_other_seeds_corpora_and_epochs_have_nothing_in_common(other):
    places = np.arange(2000)
    one, two = shuffled((0, 0, 0), places, 2000), shuffled(other, places, 2000)
    assert (one == two).sum() < 10 and abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_every_chunk_may_come_first():
    first = np.bincount([shuffled((seed, 0, 0), np.array([0]), 10)[0] for seed in range(2000)], minlength=10)
    assert first.min() > 140 and first.max() < 260  # 200 each, standard deviation 13


def test_uniforms_are_the_same_wherever_one_begins():
    whole = uniforms(3, 0, 1000)
    for start in [*range(12), 500, 993]:
        for count in (1, 2, 5, 7):
            assert (uniforms(3, start, count) == whole[start:start + count]).all()
    assert (uniforms(3, 10**12 + 2, 3) == uniforms(3, 10**12, 9)[2:5]).all()


def test_uniforms_are_uniform_and_differ_by_seed():
    numbers = uniforms(0, 0, 100_000)
    assert numbers.min() >= 0 and numbers.max() < 1 and len(set(numbers)) > 99_990
    assert abs(numbers.mean() - 1 / 2) < 0.004 and abs(numbers.var() - 1 / 12) < 0.001
    for other in (uniforms(1, 0, 100_000), np.roll(numbers, 1), np.roll(numbers, 4)):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.015


# --- the mix --------------------------------------------------------------------------------------------------------

T = 8  # tokens of a sequence


def corpus_of(name, tokens):
    """A corpus whose tokens tell where they stand."""
    return SimpleNamespace(name=name, folder=name, train=np.arange(tokens, dtype=np.uint16), vocab_size=tokens)


def mix_of(sizes, corpora, probabilities, batch_size=16, seed=0):
    """A LanguageMix over corpora of `sizes` tokens, whose language i is over corpus corpora[i] and has ids that begin
    at 10,000 times i."""
    made = [corpus_of(f'corpus {number}', size) for number, size in enumerate(sizes)]
    languages = [Language(f'language {i}', made[c], (np.arange(sizes[c]) + 10_000 * i).astype(np.int32))
                 for i, c in enumerate(corpora)]
    at = probabilities if callable(probabilities) else lambda step: probabilities
    return LanguageMix(languages, at, batch_size, T, seed)


def chunks_read(mix, steps):
    """{corpus: the numbers of the chunks that the steps read of it, in order}"""
    read = {number: [] for number in range(len(mix.corpora))}
    for step in steps:
        inputs, _, drawn = mix.batch(step)
        for row, language in zip(inputs, drawn):
            start = row[0] - 10_000 * language
            assert start % T == 0 and (row == np.arange(start, start + T) + 10_000 * language).all()
            read[int(mix.corpus_of[language])].append(int(start) // T)
    return read


THREE = dict(sizes=[1000, 3001], corpora=[0, 1, 0], probabilities=(0.2, 0.5, 0.3))  # the first and last are clones


def test_targets_are_the_inputs_moved_by_one():
    inputs, targets, drawn = mix_of(**THREE).batch(3)
    assert inputs.shape == targets.shape == (16, T) and drawn.shape == (16,)
    assert (targets[:, :-1] == inputs[:, 1:]).all()
    assert (targets == inputs + 1).all()  # in these corpora every token is one more than the one before


def test_a_batch_is_a_pure_function_of_the_seed_and_the_step():
    mix = mix_of(**THREE)
    forward = [mix.batch(step) for step in range(40)]
    for step in (39, 0, 17, 17, 5, 38):
        for again in (mix.batch(step), mix_of(**THREE).batch(step)):
            assert all((a == b).all() for a, b in zip(again, forward[step]))
    other = mix_of(**THREE, seed=1)
    alike = np.mean([batch[2] == other.draw(step) for step, batch in enumerate(forward)])
    assert 0.3 < alike < 0.46  # 0.38 by chance
    one, two = (chunks_read(mix_of([1601], [0], (1.0,), seed=seed), range(12))[0] for seed in (0, 1))
    assert sum(a == b for a, b in zip(one, two)) < 8  # of 192; one by chance


def test_rows_of_a_batch_do_not_depend_on_how_it_is_cut():
    mix = mix_of(**THREE)
    for step in (0, 9):
        whole = mix.batch(step)
        for size in (1, 3, 8, 16):
            parts = [mix_of(**THREE).batch(step, slice(i, i + size)) for i in range(0, 16, size)]
            for number in range(3):
                assert (np.concatenate([part[number] for part in parts]) == whole[number]).all()


@pytest.mark.parametrize('sizes, corpora, probabilities', [
    ([801], [0], (1.0,)), ([801], [0, 0], (0.9, 0.1)), ([801, 1608], [0, 1], (0.5, 0.5)),
    ([801, 1608], [0, 1, 0, 1, 1], (0.3, 0.2, 0.1, 0.2, 0.2))])
def test_no_text_is_read_twice_before_all_of_it_was_read(sizes, corpora, probabilities):
    mix = mix_of(sizes, corpora, probabilities)
    read = chunks_read(mix, range(60))
    for number, size in enumerate(sizes):
        chunks = (size - 1) // T
        epochs = [read[number][i:i + chunks] for i in range(0, len(read[number]), chunks)]
        assert len(epochs) > 2
        for epoch in epochs[:-1]:
            assert sorted(epoch) == list(range(chunks))
        assert len(set(epochs[-1])) == len(epochs[-1])
        assert sum(a == b for a, b in zip(epochs[0], epochs[1])) < 10  # a new order each time
        assert epochs[0] != sorted(epochs[0])


def test_two_clones_share_the_text_between_them():
    mix = mix_of([801], [0, 0], (0.5, 0.5))
    by_language = {0: set(), 1: set()}
    for step in range(100 // 16):
        inputs, _, drawn = mix.batch(step)
        for row, language in zip(inputs, drawn):
            by_language[language].add(row[0] - 10_000 * language)
    assert not by_language[0] & by_language[1] and min(map(len, by_language.values())) > 20


def test_corpora_of_the_same_size_have_orders_of_their_own():
    read = chunks_read(mix_of([801, 801], [0, 1], (0.5, 0.5)), range(10))
    assert sum(a == b for a, b in zip(read[0], read[1])) < 8


@pytest.mark.parametrize('steps', [3, 10, 25])
def test_a_shorter_run_sees_a_prefix_of_a_longer_run(steps):
    def run(length):
        settings = {**THREE, 'probabilities': lambda step: language_probabilities(step, length, [[0.2, 0.5, 0.3]])}
        mix = mix_of(**settings)
        return [mix.batch(step) for step in range(length)]
    for short, long in zip(run(steps), run(40)):
        assert all((a == b).all() for a, b in zip(short, long))


def test_text_is_read_alike_whatever_the_batch_size():
    def sequences(batch_size):
        mix = mix_of(**THREE, batch_size=batch_size)
        return np.concatenate([mix.batch(step)[0] for step in range(96 // batch_size)])
    assert (sequences(4) == sequences(16)).all() and (sequences(16) == sequences(32)).all()


def test_languages_come_as_often_as_their_probabilities_say():
    stages = [[0.9, 0.1, 0.0], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]]
    mix = mix_of([801], [0, 0, 0], lambda step: language_probabilities(step, 90, stages), batch_size=100)
    for stage, expected in enumerate(stages):
        drawn = np.concatenate([mix.draw(step) for step in range(30 * stage, 30 * stage + 30)])
        found = np.bincount(drawn, minlength=3) / len(drawn)
        for p, share in zip(expected, found):
            assert share == p if p in (0, 1) else abs(share - p) < 0.03  # 3,000 draws: standard deviation 0.009
    first = np.array([mix.draw(step) == 0 for step in range(30)], float)
    assert 1.5 < first.sum(1).std() < 4.5  # each sequence draws for itself: binomial, standard deviation 3
    assert abs(np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]) < 0.08


def test_sequences_before_equals_counting_the_draws():
    mix, counts = mix_of(**THREE), np.zeros(3, int)
    seen = {}
    for step in range(30):
        seen[step] = counts.copy()
        counts += np.bincount(mix.batch(step)[2], minlength=3)
    for step in (29, 0, 12, 13, 13, 7):
        assert (mix.sequences_before(step) == seen[step]).all()
        assert (mix_of(**THREE).sequences_before(step) == seen[step]).all()


def test_epochs_say_how_often_each_corpus_was_read():
    mix = mix_of(**THREE)
    read = chunks_read(mix, range(40))
    assert mix.epochs(40) == {'corpus 0': len(read[0]) / 124, 'corpus 1': len(read[1]) / 375}
    assert mix.epochs(40)['corpus 0'] > 2 and mix.epochs(0) == {'corpus 0': 0, 'corpus 1': 0}


def test_a_corpus_that_is_shorter_than_a_sequence_is_refused():
    assert mix_of([T + 1], [0], (1.0,)).batch(5)[0].tolist() == [list(range(T))] * 16
    with pytest.raises(ConfigError, match='corpus 1 has 8 training tokens.*block_size 8.*smaller block_size or more'):
        mix_of([100, T], [0, 1], (0.5, 0.5))


@pytest.mark.parametrize('vocabulary', ['disjoint', 'anchored'])
def test_what_a_model_reads_is_the_text_of_the_corpora(made_once, vocabulary):
    languages, _ = build_languages(['en', 'fr', 'en'], ['en', 'fr', 'en2'], vocabulary, root=made_once / 'data')
    mix = LanguageMix(languages, lambda step: (0.4, 0.4, 0.2), 32, 64, 0)
    back = [{entry: token for token, entry in enumerate(language.table.tolist())} for language in languages]
    chunks = [{}, {}]  # of each corpus: first tokens of a chunk -> the chunk
    step = 0
    while min(mix.epochs(step).values()) < 1:
        inputs, targets, drawn = mix.batch(step)
        for row, last, language in zip(inputs.tolist(), targets[:, -1].tolist(), drawn):
            ids = tuple(back[language][entry] for entry in row + [last])
            chunks[mix.corpus_of[language]][ids[:-1]] = ids
        step += 1
    for corpus, found in zip(mix.corpora, chunks):
        train, pieces = corpus.train.tolist(), corpus.load_tokenizer()
        count = (len(train) - 1) // 64
        expected = [tuple(train[i:i + 65]) for i in range(0, count * 64, 64)]
        assert sorted(found.values()) == sorted(set(expected))
        text = pieces.decode([token for ids in expected for token in found[ids[:-1]][:-1]])
        assert text == pieces.decode(train[:count * 64]) and len(text) > 100_000


def test_a_token_that_the_tokeniser_does_not_have_is_refused():
    mix = mix_of([100], [0], (1.0,))
    mix.languages[0].table = mix.languages[0].table[:50]
    with pytest.raises(ConfigError, match='corpus 0/train.bin holds a token.*make it again'):
        for step in range(3):
            mix.batch(step)
