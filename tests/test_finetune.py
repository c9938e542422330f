"""finetune.py and glue.py: GLUE's files, what the model sees of them, what is written about it."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
import types

from lib.configurator import ConfigError, settings_of

import glue
import numpy as np
import pytest
import torch
from conftest import REPO, TINY, environment, invented_words, refused, script
from scipy import stats

import finetune
from data import DOCUMENT_END, Language, build_languages
from finetune import Classifier, Examples, encode, epoch_batches, interval, resampled
from lib.tasks import TASKS, read_task
from model import GPT, PAD, GPTConfig

QUICK = dict(
    learning_rate=1e-2, batch_size=32, max_epochs=3, eval_interval=8, device='cpu', dtype='float32'
)


def write(path, *lines, start=''):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(start + '\n'.join(lines) + '\n', encoding='utf-8', newline='')


def write_json_lines(path, *rows):
    write(path, *(json.dumps(row) for row in rows))


@pytest.fixture(scope='module')
def trained(made_once, tmp_path_factory):
    """A folder with out/run, two clones trained for a moment, out/shared, whose clones share their
    vocabulary, and glue/: SST-2 and CoLA of invented words, which tell the label of a sentence."""
    root = tmp_path_factory.mktemp('trained')
    shutil.copytree(made_once / 'data', root / 'data')
    for name, more in dict(
        run=[], shared=['--cloned_fraction=0', '--max_steps=2', '--warmup_steps=1']
    ).items():
        done = script('train', *TINY, '--max_steps=30', *more, f'--out_dir=out/{name}', cwd=root)
        assert done.returncode == 0, done.stderr
    words, rng = invented_words(1), random.Random(0)

    def sentence(label):
        return ' '.join(rng.choices(words[label:40:2], k=rng.randint(2, 12)))

    for part, count in dict(train=320, dev=60).items():
        labels = [int(rng.random() < 0.6) for _ in range(count)]
        write(
            root / f'glue/SST-2/{part}.tsv',
            'sentence\tlabel',
            *(f'{sentence(n)} \t{n}' for n in labels),
        )
        write(
            root / f'glue/CoLA/{part}.tsv',
            *(f'xx\t{n}\t{"*" * (1 - n)}\t{sentence(n)}' for n in labels),
        )
    return root


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A folder of one's own like `trained`, which is also the current one."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tuned(place, monkeypatch):
    """Function of settings: runs finetune.py's main with them and returns finetune.json."""
    defaults = {name: getattr(finetune, name) for name in settings_of(finetune.__file__)}
    defaults |= dict(out_dir='out/run', glue_dir='glue', tasks='sst2', seeds=[0]) | QUICK

    def call(**settings):
        for name, value in (defaults | settings).items():
            monkeypatch.setattr(finetune, name, value)
        finetune.main()
        return json.loads((place / finetune.out_dir / 'finetune.json').read_text())

    return call


def untimed(results):
    results = json.loads(json.dumps(results))
    for entry in results['tasks'].values():
        for one in entry['runs'].values():
            del one['seconds']
    return results


# --- the model ------------------------------------------------------------------------------------


def known_model(seed=0):
    """A GPT with large weights from a fixed seed, and a head of three classes; without dropout."""
    gpt = GPT(
        GPTConfig(
            n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=24, vocab_size=53
        )
    )
    model = Classifier(gpt, 3, 0.1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_a_padded_and_an_unpadded_batch_get_the_same_logits():
    model, rng = known_model(), np.random.default_rng(0)
    tokens = [rng.integers(1, 53, n).astype(np.uint16) for n in (1, 2, 7, 12, 24)]
    table = rng.permutation(53).astype(np.int32)
    table[table == PAD], table[PAD] = table[PAD], PAD
    with torch.no_grad():
        ids, last = Examples(tokens).batch(np.arange(5), Language('en', None, table))
        assert ids.shape == (5, 24) and last.tolist() == [0, 1, 6, 11, 23]
        padded = model(ids, last)
        for row, one in enumerate(tokens):
            unpadded = torch.from_numpy(table[one].astype(np.int64))[None]
            alone = model(unpadded, torch.tensor([len(one) - 1]))[0]
            torch.testing.assert_close(alone, padded[row], rtol=1e-5, atol=1e-5)
            by_hand = model.head(model.gpt.ln_f(model.gpt.hidden_states(unpadded)[-1, 0, -1]))
            torch.testing.assert_close(by_hand, padded[row], rtol=1e-5, atol=1e-5)
    assert (padded.max(0)[0] - padded.min(0)[0] > 0.1).all()  # the logits are not all alike


def test_no_batch_is_longer_than_the_longest_example():
    examples = Examples([np.ones(n, np.uint16) for n in (3, 8, 9, 13)])
    language = Language('en', None, np.arange(2, dtype=np.int32))
    assert [examples.batch(np.array([row]), language)[0].shape[1] for row in range(4)] == [
        8,
        8,
        13,
        13,
    ]


def test_prediction_restores_the_order_of_the_examples():
    model, rng = known_model(), np.random.default_rng(1)
    examples = Examples(
        [rng.integers(1, 53, n).astype(np.uint16) for n in rng.integers(1, 25, 500)]
    )
    language = Language('en', None, np.arange(53, dtype=np.int32))
    model.train()  # predicts without dropout all the same, and leaves the model in training
    logits = finetune.predict(model, examples, language, contextlib.nullcontext())
    assert model.training
    model.eval()
    for row in (0, 1, 250, 499):
        with torch.no_grad():
            alone = model(*examples.batch(np.array([row]), language))[0]
        np.testing.assert_allclose(logits[row], alone, rtol=1e-4, atol=1e-5)


def test_a_clone_gets_the_same_tokens_through_its_own_table(made_once):
    (en1, en2), _ = build_languages(['en', 'en'], ['en1', 'en2'], root=made_once / 'data')
    examples = Examples(
        encode(en1.corpus.load_tokenizer(), [('ba de', 'fi'), ('go', 'lu ma ne po')], 32)
    )
    one, last = examples.batch(np.arange(2), en1)
    two, last_too = examples.batch(np.arange(2), en2)
    assert torch.equal(last, last_too)
    real = torch.arange(one.shape[1]) <= last[:, None]
    assert (one[~real] == PAD).all() and (two[~real] == PAD).all() and (~real).any()
    original_of = {int(clone): token for token, clone in enumerate(en2.table)}
    assert [original_of[int(token)] for token in two[real]] == one[real].tolist()
    assert not set(one[real].tolist()) & set(two[real].tolist())


def test_an_example_is_read_in_the_order_of_its_language():
    tokens = [np.arange(1, n, dtype=np.uint16) for n in (4, 7)]
    language = Language('en', None, np.arange(9) * 10, 'reversed')
    ids, last = Examples(tokens).batch(np.arange(2), language)
    assert ids.tolist() == [[30, 20, 10, 0, 0, 0], [60, 50, 40, 30, 20, 10]]
    assert last.tolist() == [2, 5]


class Letters:
    """A tokeniser that makes a token of each letter."""

    def encode(self, texts):
        return [[ord(letter) for letter in text] for text in texts]


def test_each_text_ends_in_d_and_the_longer_is_cut_first():
    def cut(*texts, limit=10):
        return ''.join(
            '|' if token == DOCUMENT_END else chr(token)
            for token in encode(Letters(), [texts], limit)[0]
        )

    assert cut('abc') == 'abc|'
    assert cut('abcdefghijkl') == 'abcdefghi|'
    assert cut('') == '|'
    assert cut('ab', 'cde') == 'ab|cde|'
    assert cut('abcdefghij', 'xy') == 'abcdef|xy|'
    assert cut('xy', 'abcdefghij') == 'xy|abcdef|'
    assert cut('abcdefghij', 'ABCDEFGHIJ') == 'abcd|ABCD|'
    assert cut('abcdefghij', 'ABCDEFGHIJ', limit=11) == 'abcde|ABCD|'
    rng = random.Random(0)
    for _ in range(300):
        a, b, limit = rng.randint(0, 20), rng.randint(0, 20), rng.randint(4, 30)
        first, second, rest = cut('a' * a, 'b' * b, limit=limit).split('|')
        assert rest == '' and len(first) + len(second) == min(a + b, limit - 2)
        if a + b > limit - 2:  # the shorter one is whole, or both are of one length
            assert (
                len(first) == a <= len(second)
                or len(second) == b <= len(first)
                or len(first) - len(second) in (0, 1)
            )


def test_an_epoch_holds_every_example_once_in_batches_of_like_length():
    lengths = np.random.default_rng(0).integers(3, 100, 1000)
    batches = epoch_batches(lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(1000)) and max(map(len, batches)) == 16
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert padded < 1.15 * lengths.sum()
    other = epoch_batches(lengths, 16, np.random.default_rng(2))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other))
    longest = [lengths[rows].max() for rows in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.5  # not from short to long


# --- scores ---------------------------------------------------------------------------------------


def test_metrics_agree_with_scikit_learn_on_random_predictions():
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 30, 1000):
        for share in (0, 0.1, 0.5, 0.9, 1):
            truth, predicted = (
                (rng.random(n) < share).astype(int),
                (rng.random(n) < rng.random()).astype(int),
            )
            sums = glue.outcomes(truth, predicted).sum(0)
            assert glue.accuracy(sums) == pytest.approx(metrics.accuracy_score(truth, predicted))
            assert glue.f1(sums) == pytest.approx(
                metrics.f1_score(truth, predicted, zero_division=0)
            )
            if len({*truth, *predicted}) > 1:  # scikit-learn warns of a single label
                assert glue.matthews(sums) == pytest.approx(
                    metrics.matthews_corrcoef(truth, predicted)
                )
    for truth, predicted in ((np.ones(3), np.ones(3)), (np.zeros(3), np.ones(3))):
        assert glue.matthews(glue.outcomes(truth, predicted).sum(0)) == 0.0


def test_the_majority_baseline_is_the_best_constant_answer():
    truth = np.array([0, 1, 1, 1, 0])
    assert glue.majority(TASKS['mrpc'], truth) == dict(accuracy=0.6, f1=0.75)
    assert glue.majority(TASKS['cola'], truth) == dict(accuracy=0.6, matthews=0.0)
    assert glue.majority(TASKS['mnli'], np.array([2, 2, 0])) == dict(accuracy=pytest.approx(2 / 3))


def entry_of(right, truth=None, groups=None, metric='accuracy'):
    """A task's entry whose seeds are right where `right` (S, N) says so, with classes `truth`."""
    right = np.asarray(right, bool)
    truth = np.ones(right.shape[1], int) if truth is None else truth
    answers = np.where(right, truth, 1 - truth)
    runs = {
        str(seed): dict(predictions=dict(en1=''.join(map(str, row))))
        for seed, row in enumerate(answers)
    }
    groups = list(range(len(truth))) if groups is None else groups
    return dict(metric=metric, truth=''.join(map(str, truth)), groups=groups, runs=runs)


def simulated(rng, examples, seeds, accuracy, seed_noise, shared):
    """Whether each seed is right in each example, (S, N), and the accuracy behind it.

    seed_noise: of the accuracy; shared: the part of an example's luck that all seeds have."""
    mean, scale = stats.norm.ppf(accuracy), seed_noise / stats.norm.pdf(stats.norm.ppf(accuracy))
    latent = (
        mean + scale * rng.normal(size=(seeds, 1)) + np.sqrt(shared) * rng.normal(size=examples)
    )
    latent = latent + np.sqrt(1 - shared) * rng.normal(size=(seeds, examples))
    return latent > 0, stats.norm.cdf(mean / np.sqrt(1 + scale**2))


@pytest.mark.parametrize(
    'examples, accuracy, seed_noise, shared, seeds',
    [
        (277, 0.55, 0.01, 0.95, 3),
        (872, 0.7, 0.01, 0.8, 3),
        (872, 0.9, 0.02, 0.6, 3),
        (277, 0.7, 0.0, 1.0, 1),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    monkeypatch, examples, accuracy, seed_noise, shared, seeds
):
    monkeypatch.setattr(finetune, 'RESAMPLES', 200)
    rng, held, students = np.random.default_rng(0), 0, 0
    for _ in range(200):
        right, truth = simulated(rng, examples, seeds, accuracy, seed_noise, shared)
        values, draws = resampled(entry_of(right), 'en1')['accuracy']
        low, high = interval(values, draws, 0)
        held += low <= truth <= high
        if seeds > 1:
            half = stats.t.ppf(0.95, seeds - 1) * stats.sem(values)
            students += abs(values.mean() - truth) <= half
    assert 0.85 <= held / 200 <= 0.96
    if shared >= 0.9 and seeds > 1:
        assert students / 200 < 0.7  # what the spread over seeds alone would have said


def test_an_interval_of_one_seed_is_that_of_a_share_of_examples():
    right = np.arange(400) % 10 < 7
    values, draws = resampled(entry_of([right]), 'en1')['accuracy']
    expected = stats.binomtest(int(right.sum()), 400).proportion_ci(0.9, method='wilson')
    assert values == [0.7] and interval(values, draws) == pytest.approx(list(expected), abs=0.006)


def test_seeds_that_agree_in_nothing_but_their_mean_have_students_interval():
    rng = np.random.default_rng(0)
    right = rng.random((4, 500)) < 0.7  # what an example gets is luck, so seeds share no error
    values, draws = resampled(entry_of(right), 'en1')['accuracy']
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    assert interval(values, draws) == pytest.approx(expected, abs=0.02)


def test_a_difference_is_one_of_paired_examples():
    rng = np.random.default_rng(0)
    one = rng.random((1, 500)) < 0.7
    other = one ^ (
        rng.random((1, 500)) < 0.02
    )  # another run or language, which errs where the first does
    first, second = (resampled(entry_of(right), 'en1')['accuracy'] for right in (one, other))
    low, high = interval(first[0] - second[0], first[1] - second[1])
    for values, draws in (first, second):
        ends = interval(values, draws)
        assert high - low < 0.4 * (ends[1] - ends[0])
    assert low <= first[0][0] - second[0][0] <= high


@pytest.mark.parametrize('metric', ['accuracy', 'f1', 'matthews'])
def test_draws_are_the_metric_of_the_groups_that_were_drawn(monkeypatch, metric):
    monkeypatch.setattr(finetune, 'RESAMPLES', 3)
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(2, size=60), np.repeat(np.arange(12), 5)
    right = rng.random((2, 60)) < 0.7
    values, draws = resampled(entry_of(right, truth, groups.tolist(), metric), 'en1')[metric]
    task, answers = glue.Task('x', [], '', ('0', '1'), metric), np.where(right, truth, 1 - truth)
    assert values == pytest.approx([glue.scores(task, truth, row)[metric] for row in answers])
    again = np.random.default_rng(0)
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(groups == g) for g in again.integers(12, size=12)])
        assert draw == pytest.approx(
            [glue.scores(task, truth[rows], row[rows])[metric] for row in answers]
        )


def test_examples_of_one_passage_are_drawn_together():
    right = np.repeat(
        np.arange(100) % 10 < 7, 8
    )  # eight questions of a passage are right or wrong together
    ends = []
    for groups in (None, np.repeat(np.arange(100), 8).tolist()):
        low, high = interval(*resampled(entry_of([right], groups=groups), 'en1')['accuracy'])
        ends.append(high - low)
    assert ends[1] / ends[0] == pytest.approx(np.sqrt(8), rel=0.1)
    texts = [('p', 'one'), ('q', 'one'), ('p', 'two'), ('r',)]
    assert Examples([[1]] * 4, None, texts).groups.tolist() == [0, 1, 0, 2]


# --- the files ------------------------------------------------------------------------------------


def test_cola_without_a_header_loses_no_row(tmp_path):
    write(tmp_path / 'CoLA/train.tsv', 'gj04\t1\t\tThey sang.', 'cj99\t0\t*\tThey "sang the.')
    texts, classes = read_task('cola', str(tmp_path))
    assert texts == [('They sang.',), ('They "sang the.',)] and classes.tolist() == [1, 0]


def test_mrpc_with_a_byte_order_mark_and_quotes_that_do_not_quote(tmp_path):
    write(
        tmp_path / 'MRPC/dev.tsv',
        'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String',
        '1\t1\t2\tHe said so .\t" He said it .',
        '0\t3\t4\t" So .\tOr not "',
        start='\ufeff',
    )
    texts, classes = read_task('mrpc', str(tmp_path), dev=True)
    assert texts == [
        ('He said so .', '" He said it .'),
        ('" So .', 'Or not "'),
    ] and classes.tolist() == [1, 0]


def test_a_line_end_of_unicode_inside_a_sentence_ends_no_row(tmp_path):
    write(tmp_path / 'SST-2/dev.tsv', 'sentence\tlabel\r', 'one\u2028two\x0b\x85three \t1\r', '')
    texts, classes = read_task('sst2', str(tmp_path), dev=True)
    assert texts == [('one\u2028two\x0b\x85three',)] and classes.tolist() == [1]


def test_mnli_has_three_classes_and_two_dev_sets(tmp_path):
    for part, label in dict(
        train='neutral', dev_matched='contradiction', dev_mismatched='entailment'
    ).items():
        write(
            tmp_path / f'MNLI/{part}.tsv',
            'index\tsentence1\tsentence2\tlabel1\tgold_label',
            f'0\tA.\tB.\tno\t{label}',
        )
    assert read_task('mnli', str(tmp_path)) == ([('A.', 'B.')], [1])
    assert read_task('mnli', str(tmp_path), dev=True)[1] == [2]
    assert read_task('mnli_mm', str(tmp_path), dev=True)[1] == [0]


def test_every_task_can_be_read_from_json_lines_with_labels_by_name_or_by_place(tmp_path):
    columns = 'sentence sentence1 sentence2 question1 question2 question passage paragraph answer'
    columns += ' text span1_text'
    row = dict.fromkeys(columns.split(), 'So it is.') | dict(span2_index=1)
    for name, task in TASKS.items():
        if name == 'multirc':  # nested where it has a passage
            row.pop('passage')
        rows = [
            row | dict(label=label)
            for place, named in enumerate(task.labels)
            for label in (place, named)
        ]
        write_json_lines(tmp_path / task.folder / f'{task.dev.split("|")[-1]}.jsonl', *rows)
        texts, classes = read_task(name, str(tmp_path), dev=True)
        assert classes.tolist() == [place for place in range(len(task.labels)) for _ in 'ab']
        assert len(set(texts)) == 1 and len(texts[0]) == len(task.texts)


def test_superglue_as_it_is_distributed(tmp_path):
    write_json_lines(
        tmp_path / 'BoolQ/val.jsonl',
        dict(question='is it', passage='It is.', idx=0, label=True),
        dict(question='is it', passage='It is not.', idx=1, label=False),
    )
    assert read_task('boolq', str(tmp_path), dev=True)[0] == [
        ('It is.', 'is it'),
        ('It is not.', 'is it'),
    ]
    assert read_task('boolq', str(tmp_path), dev=True)[1].tolist() == [1, 0]
    answers = [
        [dict(text='Bo', idx=0, label=1), dict(text='Al', idx=1, label=0)],
        [dict(text='Now', idx=0, label=0)],
    ]
    questions = [
        dict(question=text, answers=found) for text, found in zip(('Who ran?', 'When?'), answers)
    ]
    write_json_lines(
        tmp_path / 'MultiRC/train.jsonl',
        dict(idx=0, passage=dict(text='Bo ran.', questions=questions)),
    )
    texts, classes = read_task('multirc', str(tmp_path))
    assert texts == [
        ('Bo ran.', 'Who ran? Bo'),
        ('Bo ran.', 'Who ran? Al'),
        ('Bo ran.', 'When? Now'),
    ]
    assert classes.tolist() == [1, 0, 0]
    write_json_lines(
        tmp_path / 'WSC/train.jsonl',
        dict(
            text='Bo told Al that he saw he did.',
            label=False,
            target=dict(span1_index=0, span1_text='Bo', span2_index=6, span2_text='he'),
        ),
    )
    assert read_task('wsc', str(tmp_path))[0] == [('Bo told Al that he saw * he * did.', 'Bo')]


@pytest.mark.parametrize(
    'name, lines, said',
    [
        (
            'sst2',
            ['sentence\tlabel', 'fine\t1', 'bad\t2'],
            ['line 3', "'2' is not a label of SST-2", '0, 1'],
        ),
        ('sst2', ['sentence\tlabel', 'fine 1'], ['line 2', '1 columns', 'first line has 2']),
        ('sst2', ['sentence\tlabel', 'a\tb\t1'], ['line 2', '3 columns', 'first line has 2']),
        ('sst2', ['text\tlabel', 'fine\t1'], ['line 2', 'no column sentence']),
        ('sst2', ['index\tsentence', '0\tfine'], ['line 2', 'no column label']),
        ('cola', ['xx\t1\t\tFine.', 'xx\t1\tFine.'], ['line 2', '3 columns', 'first line has 4']),
        ('cola', ['Fine.'], ['line 1', 'no column sentence']),
        (
            'rte',
            ['index\tsentence1\tsentence2\tlabel', '0\tA\tB\t1'],
            ['line 2', "'1' is not a label", 'not_entailment'],
        ),
        ('sst2', ['sentence\tlabel'], ['is empty']),
        ('boolq', ['{"question": "q"'], ['line 1', 'not JSON']),
        ('boolq', ['[1]'], ['line 1', 'not a JSON object']),
        (
            'boolq',
            ['{"question": "q", "passage": 3, "label": true}'],
            ['line 1', '3 stands where a text should'],
        ),
        (
            'boolq',
            [r'{"question": "\ud800", "passage": "p", "label": true}'],
            ['line 1', 'where a text should'],
        ),
        (
            'boolq',
            ['{"question": "q", "passage": "p", "label": -1}'],
            ['line 1', '-1 is not a label', 'not public'],
        ),
        (
            'multirc',
            ['{"passage": {"text": "p"}, "idx": 3}'],
            ['line 1', 'not a row as MultiRC has them', 'questions'],
        ),
        (
            'wsc',
            ['{"text": "a b", "target": {"span2_index": 2}, "label": true}'],
            ['line 1', 'not a row as WSC'],
        ),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path, name, lines, said):
    path = (
        tmp_path
        / TASKS[name].folder
        / ('train.jsonl' if name in ('boolq', 'multirc', 'wsc') else 'train.tsv')
    )
    write(path, *lines)
    with pytest.raises(ConfigError) as caught:
        read_task(name, str(tmp_path))
    for words in said:
        assert words in str(caught.value)
    if 'line' in said[0]:
        assert str(path) in str(caught.value)


def test_a_row_that_is_not_utf8_is_named(tmp_path):
    write(tmp_path / 'SST-2/train.tsv', 'sentence\tlabel', 'fine\t1')
    with open(tmp_path / 'SST-2/train.tsv', 'ab') as file:
        file.write(b'caf\xe9\t1\n')
    with pytest.raises(ConfigError, match='line 3: not UTF-8'):
        read_task('sst2', str(tmp_path))


def test_all_tasks_are_those_that_the_folder_holds(tmp_path):
    write(tmp_path / 'CoLA/dev.tsv', '')
    write(tmp_path / 'WSC/val.jsonl', '')
    write(tmp_path / 'MNLI/dev_mismatched.tsv', '')
    assert glue.chosen_tasks('all', str(tmp_path)) == ['cola', 'mnli_mm', 'wsc']
    assert glue.chosen_tasks('rte, CoLA,rte', str(tmp_path)) == ['rte', 'cola']
    with pytest.raises(ConfigError, match='there is no task sst; the tasks are cola, sst2'):
        glue.chosen_tasks('cola,sst', str(tmp_path))
    with pytest.raises(ConfigError, match='holds none of the tasks'):
        glue.chosen_tasks('all', str(tmp_path / 'nowhere'))
    with pytest.raises(ConfigError, match='SST-2/train.tsv'):
        read_task('sst2', str(tmp_path))


def test_hugging_face_gives_the_same_examples(tmp_path, monkeypatch):
    """A stand-in for `datasets`: what is asked of it, and rows as it gives them."""
    hub = {
        'rte': dict(
            train=[dict(sentence1='A.', sentence2='B.', label=1, idx=0)],
            validation=[dict(sentence1='C.', sentence2='D.', label=0, idx=0)],
            test=[],
        ),
        'mnli': dict(
            train=[], validation_mismatched=[dict(premise='E.', hypothesis='F.', label=2)]
        ),
    }
    monkeypatch.setitem(
        sys.modules,
        'datasets',
        types.SimpleNamespace(
            get_dataset_config_names=lambda name: list(hub),
            load_dataset=lambda name, configuration: hub[configuration],
        ),
    )
    assert read_task('rte', 'hf:nyu-mll/glue') == ([('A.', 'B.')], [1])
    assert read_task('rte', 'hf:nyu-mll/glue', dev=True) == ([('C.', 'D.')], [0])
    assert read_task('mnli_mm', 'hf:nyu-mll/glue', dev=True) == ([('E.', 'F.')], [2])
    assert glue.chosen_tasks('all', 'hf:nyu-mll/glue') == ['mnli', 'mnli_mm', 'rte']
    for name, words in dict(
        mnli='no split dev_matched or validation_matched', wsc='cannot be loaded'
    ).items():
        with pytest.raises(ConfigError, match=words):
            read_task(name, 'hf:nyu-mll/glue', dev=True)
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ConfigError, match='pip install datasets'):
        read_task('rte', 'hf:nyu-mll/glue')


# --- the script -----------------------------------------------------------------------------------


def test_a_task_is_learned_in_one_language_and_scored_in_both(tuned, capsys):
    results = tuned(tasks='sst2,cola', seeds=[0, 1], max_epochs=10, patience=4)
    assert results['run'] == 'run' and results['train_language'] == 'en1' and results['step'] == 30
    assert results['settings']['learning_rate'] == 1e-2 and 'seeds' not in results['settings']
    for name, metric in dict(sst2='accuracy', cola='matthews').items():
        entry = results['tasks'][name]
        assert (
            entry['metric'] == metric
            and entry['seeds'] == [0, 1]
            and entry['interval_over'] == 'examples and seeds'
        )
        assert entry['train_examples'] == 320 and entry['dev_examples'] == 60
        assert list(entry['languages']) == ['en1', 'en2']
        for language, found in entry['languages'].items():
            assert (
                found['scores']
                == found[metric]
                == [entry['runs'][seed]['languages'][language][metric] for seed in '01']
            )
            assert found['mean'] == pytest.approx(np.mean(found['accuracy']))
            assert found['interval'][0] <= found['mean'] <= found['interval'][1]
            assert found['score'] == pytest.approx(np.mean(found['scores']))
            assert found['score_interval'][0] <= found['score'] <= found['score_interval'][1]
            for seed in '01':
                answers = [int(digit) for digit in entry['runs'][seed]['predictions'][language]]
                truth = [int(digit) for digit in entry['truth']]
                assert np.mean(np.equal(truth, answers)) == found['accuracy'][int(seed)]
        difference = entry['languages']['en2']['difference']
        gap = entry['languages']['en2']['mean'] - entry['languages']['en1']['mean']
        assert (
            difference['mean'] == pytest.approx(gap)
            and difference['interval'][0] <= gap <= difference['interval'][1]
        )
        assert entry['languages']['en1']['difference'] == dict(mean=0, interval=[0, 0])
        assert entry['languages']['en1']['mean'] > entry['majority'] + 0.2
        for one in entry[
            'runs'
        ].values():  # the best look at the dev set, the first of equals, is what counts
            looks = dict(one['curve'])
            assert (
                max(looks.values())
                == one['languages']['en1']['accuracy']
                == looks[one['best_step']]
            )
            assert one['best_step'] == min(
                step for step, value in looks.items() if value == max(looks.values())
            )
    printed = capsys.readouterr().out
    assert all(word in printed for word in ('majority', 'en1', 'en2 - en1', 'matthews', 'mean'))


def test_finished_seeds_are_not_computed_again_and_others_are_added(
    tuned, place, monkeypatch, capsys
):
    before = tuned(seeds=[3])
    written = (place / 'out/run/finetune.json').stat().st_mtime_ns
    computed = []
    original = finetune.fine_tune
    monkeypatch.setattr(
        finetune, 'fine_tune', lambda *a: computed.append((a[1], a[6])) or original(*a)
    )
    assert tuned(seeds=[3]) == before and computed == []
    assert (place / 'out/run/finetune.json').stat().st_mtime_ns == written
    after = tuned(tasks='cola,sst2', seeds=[3, 1])
    assert computed == [('cola', 3), ('cola', 1), ('sst2', 1)]
    assert after['tasks']['sst2']['runs']['3'] == before['tasks']['sst2']['runs']['3']
    assert after['tasks']['sst2']['seeds'] == [1, 3]
    assert list(after['tasks']) == ['sst2', 'cola']


def test_a_seed_gives_the_same_result_whatever_was_computed_before(tuned, place):
    together = tuned(tasks='cola,sst2', seeds=[0, 1])
    (place / 'out/run/finetune.json').unlink()
    assert (
        untimed(tuned(seeds=[1]))['tasks']['sst2']['runs']['1']
        == untimed(together)['tasks']['sst2']['runs']['1']
    )


def test_clones_that_share_all_pieces_score_alike(tuned):
    languages = tuned(out_dir='out/shared', max_epochs=1)['tasks']['sst2']['languages']
    assert languages['en1'] == languages['en2'] and languages['en2']['difference']['interval'] == [
        0,
        0,
    ]


def test_training_stops_after_as_many_looks_without_gain_as_patience_says(tuned):
    one = tuned(learning_rate=1e-9, eval_interval=2, patience=3)['tasks']['sst2']['runs']['0']
    assert (one['steps'], one['best_step'], len(one['curve'])) == (8, 2, 4)


def test_max_examples_takes_the_same_examples_for_all_seeds_and_all_of_the_dev_set(
    tuned, place, monkeypatch
):
    seen = []
    original = finetune.fine_tune
    monkeypatch.setattr(finetune, 'fine_tune', lambda *a: seen.append(a[2].tokens) or original(*a))
    for seed in (0, 1):
        entry = tuned(max_examples=50, seeds=[seed])['tasks']['sst2']
        assert entry['train_examples'] == 50 and entry['dev_examples'] == 60
        (place / 'out/run/finetune.json').unlink()
    assert seen[0] is not seen[1] and all(np.array_equal(a, b) for a, b in zip(*seen))


def test_a_broken_task_is_found_before_the_first_is_computed(tuned, place):
    (place / 'glue/CoLA/dev.tsv').write_text('xx\t7\t\tBa de.\n')
    with pytest.raises(ConfigError, match='CoLA/dev.tsv, line 1'):
        tuned(tasks='sst2,cola')
    assert not (place / 'out/run/finetune.json').exists()


def test_torn_rows_of_qqp_are_left_out_and_counted(tmp_path, capsys):
    write(
        tmp_path / 'QQP/train.tsv',
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate',
        '1\t2\t3\tBa?\tDe?\t1',
        '4\t5',
        '6\t7\t8\tFi?\tGo?\t0',
    )
    texts, classes = read_task('qqp', str(tmp_path))
    assert texts == [('Ba?', 'De?'), ('Fi?', 'Go?')] and classes.tolist() == [1, 0]
    assert '1 rows with too few columns are left out, the first is' in capsys.readouterr().err


def test_results_of_other_settings_weights_or_data_are_not_mixed(tuned, place):
    tuned()
    with pytest.raises(
        ConfigError, match='learning_rate is 0.01 there and 0.02 now; rename it or delete it'
    ):
        tuned(learning_rate=0.02)
    with pytest.raises(ConfigError, match="train_language is 'en1' there and 'en2' now"):
        tuned(train_language='en2')
    tuned(tasks='all', device='auto')  # of no weight
    with open(place / 'glue/SST-2/dev.tsv', 'a') as file:
        file.write('one more\t1\n')
    tuned()  # nothing is missing
    with pytest.raises(ConfigError, match='the data of sst2 in glue is not what the results'):
        tuned(seeds=[1])
    shutil.copy(place / 'out/run/finetune.json', place / 'out/shared')
    with pytest.raises(ConfigError, match='weights'):
        tuned(out_dir='out/shared')
    old = json.loads((place / 'out/run/finetune.json').read_text())
    del old['tasks']['sst2']['truth']
    (place / 'out/run/finetune.json').write_text(json.dumps(old))
    with pytest.raises(ConfigError, match='finetune.json is damaged or of an older version'):
        tuned()
    (place / 'out/run/finetune.json').write_text('{"tasks": {}')
    with pytest.raises(ConfigError, match='finetune.json is damaged'):
        tuned()


@pytest.mark.parametrize(
    'settings, said',
    [
        (dict(out_dir=''), '--out_dir=out/RUN'),
        (dict(out_dir='out/none'), 'there is no run in out/none'),
        (dict(glue_dir=''), '--glue_dir=FOLDER'),
        (dict(glue_dir='nowhere'), 'nowhere/SST-2/train.tsv'),
        (dict(train_language='fr'), "no language 'fr'; it has en1, en2"),
        (dict(seeds=[]), 'seeds must be whole numbers'),
        (dict(seeds=['a']), 'seeds must be whole numbers'),
        (dict(patience=0), 'patience must be at least 1'),
        (dict(max_tokens=3), 'max_tokens must be at least 4'),
        (dict(dropout=1.0), 'dropout must lie between 0 and 1'),
        (dict(learning_rate=1e30), 'training has diverged by step 8; lower learning_rate'),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tuned, settings, said):
    with pytest.raises(ConfigError) as caught:
        tuned(**settings)
    assert said in str(caught.value) and '\n' not in str(caught.value)


def test_a_killed_call_leaves_whole_results_and_the_next_one_completes_them(tuned, place):
    settings = QUICK | dict(glue_dir='glue', tasks='sst2', seeds=[0, 1, 2], max_epochs=8)
    args = ['--out_dir=out/run', *(f'--{name}={value}' for name, value in settings.items())]
    path = place / 'out/run/finetune.json'
    process = subprocess.Popen(
        [sys.executable, str(REPO / 'finetune.py'), *args],
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    killed = json.loads(path.read_text())['tasks']['sst2']['runs']
    assert list(killed) == ['0', '1', '2'][: len(killed)]
    completed = tuned(**settings)['tasks']['sst2']['runs']
    assert list(completed) == ['0', '1', '2'] and completed['0'] == killed['0']
    refused(
        script('finetune', *args, '--dropout=0.2', cwd=place), 'dropout is 0.1 there and 0.2 now'
    )
