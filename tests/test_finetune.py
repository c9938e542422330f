"""finetune.py and lib/tasks.py: GLUE's files, what the model sees of them, what is reported."""

import json
import random
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from lib.configurator import ConfigError

import numpy as np
import pytest
import torch
from conftest import in_process, invented_words, new_run, refused, tiny_model, works
from scipy import stats

import finetune
from data import Language, build_languages
from finetune import classify, encode, summarise
from lib.tasks import TASKS, chosen_tasks, read_task
from lib.tokenizer import DOCUMENT_END

QUICK = dict(out_dir='out/run', glue_dir='glue', tasks='sst2', seeds=[0], learning_rate=1e-2)
QUICK |= dict(batch_size=32, max_epochs=1, eval_interval=8, device='cpu', dtype='float32')
RESULTS, SENTENCE = Path('out/run/finetune.json'), 'sentence\tlabel'


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(f'{text}\n', encoding='utf-8', errors='surrogateescape', newline='')


@pytest.fixture
def place(workplace):
    """The current folder has the run out/run of two clones, and glue/: SST-2 and CoLA of invented
    words, which tell the label of a sentence."""
    new_run(workplace, 'run')
    words, rng, glue = invented_words(1), random.Random(0), workplace / 'glue'

    def sentence(label):
        return ' '.join(rng.choices(words[label:40:2], k=rng.randint(2, 12)))

    for part, count in dict(train=320, dev=60).items():
        labels = [int(rng.random() < 0.6) for _ in range(count)]
        write(glue / f'SST-2/{part}.tsv', SENTENCE, *(f'{sentence(n)} \t{n}' for n in labels))
        write(glue / f'CoLA/{part}.tsv', *(f'xx\t{n}\t\t{sentence(n)}' for n in labels))
    return workplace


def called(**settings):
    """Runs finetune.py in this process and the current folder; returns the CompletedProcess."""
    return in_process('finetune', **QUICK | settings)


def tuned(**settings):
    """The finetune.json of a call with these settings."""
    works('finetune', **QUICK | settings)
    return json.loads(Path((QUICK | settings)['out_dir'], 'finetune.json').read_text())


def classifier(vocab_size):
    """A GPT with large weights and a head of three classes; its block_size is no multiple of 8."""
    model = finetune.classifier(tiny_model(vocab_size, block_size=22), 3)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5)
    return model.eval()


@torch.no_grad()
def test_padding_changes_no_logits_and_prediction_keeps_the_order_of_the_examples():
    model, rng = classifier(53), np.random.default_rng(0)
    lengths = [1, 2, 7, 12, 22, *rng.integers(1, 23, 495)]
    tokens = [rng.integers(1, 53, n).astype(np.uint16) for n in lengths]
    for order in ('', 'reversed'):
        table = np.concatenate([[0], 1 + rng.permutation(52)])
        language = Language('en', None, table, order)
        model.train()  # predicts without dropout all the same
        logits = finetune.predict(model, tokens, language, nullcontext())
        for row in (0, 1, 2, 3, 4, 250, 499):
            read = table[tokens[row][::-1] if order else tokens[row]]
            alone = model(torch.from_numpy(read)[None])[0, -1]
            np.testing.assert_allclose(alone, logits[row], rtol=1e-4, atol=1e-5)
        assert (np.ptp(logits, axis=0) > 0.1).all()


@torch.no_grad()
def test_a_clone_gets_the_same_tokens_through_its_own_table(made_once):
    (en1, en2), rows = build_languages(['en', 'en'], ['en1', 'en2'], root=made_once / 'data')
    texts, model = [('ba de', 'fi'), ('go', 'lu ma ne po')], classifier(rows)
    tokens = encode(en1.corpus.load_tokenizer(), texts, 22)
    assert not np.allclose(classify(model, tokens, en1), classify(model, tokens, en2), atol=1e-3)
    model.wte.weight[en2.table] = model.wte.weight[en1.table]
    assert np.allclose(classify(model, tokens, en1), classify(model, tokens, en2))


def test_each_text_ends_in_d_and_the_longer_is_cut_first():
    def cut(*texts, limit=10):
        letters = SimpleNamespace(encode=lambda texts: [[*map(ord, text)] for text in texts])
        tokens = encode(letters, [texts], limit)[0]
        return ''.join('|' if token == DOCUMENT_END else chr(token) for token in tokens)

    assert cut('abc') == 'abc|' and cut('abcdefghijkl') == 'abcdefghi|' and cut('') == '|'
    assert cut('ab', 'cde') == 'ab|cde|' and cut('abcdefghij', 'xy') == 'abcdef|xy|'
    assert cut('xy', 'abcdefghij') == 'xy|abcdef|'
    rng = random.Random(0)
    for _ in range(300):
        a, b, limit = rng.randint(0, 20), rng.randint(0, 20), rng.randint(4, 30)
        first, second, rest = (len(x) for x in cut('a' * a, 'b' * b, limit=limit).split('|'))
        assert rest == 0 and first + second == min(a + b, limit - 2)
        if a + b > limit - 2:  # the shorter one is whole, or both are of one length
            assert first == a <= second or second == b <= first or first - second in (0, 1)


def test_an_epoch_holds_every_example_once_in_batches_of_like_length(monkeypatch):
    monkeypatch.setattr(finetune, 'batch_size', 16)
    lengths = np.random.default_rng(0).integers(3, 100, 1008)
    batches = np.split(np.array([*finetune.batches_of(lengths, 2, np.random.default_rng(1))]), 2)
    for epoch in batches:
        assert sorted(epoch.ravel()) == list(range(1008))
        longest = lengths[epoch].max(1)
        assert 16 * longest.sum() < 1.15 * lengths.sum()
        assert abs(np.corrcoef(longest, np.arange(63))[0, 1]) < 0.5  # not from short to long
    first, second = ({frozenset(rows) for rows in epoch} for epoch in batches)
    assert not first & second


def results_of(groups=None, **right):
    """The results {language: ...} of a task whose seeds are right where `right` (S, N) says so."""
    answers = {name: [''.join(map(str, seed)) for seed in 1 * rows] for name, rows in right.items()}
    runs = [dict(predictions=dict(zip(answers, seed))) for seed in zip(*answers.values())]
    truth = '1' * len(runs[0]['predictions']['en1'])
    entry = dict(truth=truth, groups=groups or range(len(truth)), runs=dict(enumerate(runs)))
    summarise(entry, 'en1')
    return entry['languages']


def test_intervals_are_of_groups_of_examples_of_paired_examples_and_of_seeds():
    right = (np.arange(400) % 10 < 7)[None]
    low, high = results_of(en1=right)['en1']['interval']
    expected = stats.binomtest(int(right.sum()), 400).proportion_ci(0.9, method='wilson')
    assert [low, high] == pytest.approx(list(expected), abs=0.006)
    eight = np.repeat(right, 8, axis=1)  # all eight questions of a passage are right, or none
    found = results_of(en1=eight, groups=[*np.repeat(np.arange(400), 8)])['en1']
    assert found['interval'] == pytest.approx([low, high])
    seeds = results_of(en1=np.concatenate([right, np.arange(400)[None] < 200]))  # 0.7 and 0.5
    assert np.ptp(seeds['en1']['interval']) > 2 * (high - low)
    rng = np.random.default_rng(0)
    one = rng.random((1, 500)) < 0.7
    other = one ^ (rng.random((1, 500)) < 0.02)  # errs where the first does
    found = results_of(en1=one, en2=other)['en2']
    low, high = found['difference']['interval']
    assert low <= other.mean() - one.mean() <= high
    assert high - low < 0.4 * (found['interval'][1] - found['interval'][0])


def read(folder, name, *lines, file='train'):
    """(texts, classes) of a task's file with these lines."""
    ending = 'jsonl' if str(lines[0])[0] in '{[' else 'tsv'
    write(folder / TASKS[name].folder / f'{file}.{ending}', *lines)
    texts, classes = read_task(name, str(folder), 'train' if file == 'train' else 'dev')
    return texts, classes.tolist()


def test_tasks_are_read_as_they_are_distributed(tmp_path, capsys):
    # CoLA has no header and nothing is quoted; MRPC has a byte-order mark
    found = read(tmp_path, 'cola', 'a\t1\t\tThey ran.', 'b\t0\t*\tThey "ran.')
    assert found == ([('They ran.',), ('They "ran.',)], [1, 0])
    head = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String'
    found = read(tmp_path, 'mrpc', head, '1\t1\t2\tSo .\t" So .', '0\t3\t4\t" So\tNot "')
    assert found == ([('So .', '" So .'), ('" So', 'Not "')], [1, 0])
    # MNLI has three classes and two dev sets
    head, row = 'index\tsentence1\tsentence2\tlabel1\tgold_label', '0\tA.\tB.\tno\t'
    assert read(tmp_path, 'mnli', head, row + 'neutral') == ([('A.', 'B.')], [1])
    for name, file, label in (('mnli', 'dev_matched', 2), ('mnli_mm', 'dev_mismatched', 0)):
        lines = head, row + TASKS['mnli'].labels[label]
        assert read(tmp_path, name, *lines, file=file)[1] == [label]
    # a line end of Unicode inside a sentence ends no row
    found = read(tmp_path, 'sst2', SENTENCE + '\r', 'one\u2028two\x0b\x85three \t1\r', '')
    assert found == ([('one\u2028two\x0b\x85three',)], [1])
    # QQP has torn rows, which are skipped and counted
    head = 'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate'
    found = read(tmp_path, 'qqp', head, '1\t2\t3\tBa?\tDe?\t1', '4\t5', '6\t7\t8\tFi?\tGo?\t0')
    said = capsys.readouterr().err
    assert found == ([('Ba?', 'De?'), ('Fi?', 'Go?')], [1, 0]) and 'line 3' in said
    # SuperGLUE is nested
    row = dict(question='is it', passage='It is.', idx=0, label=True)
    assert read(tmp_path, 'boolq', row) == ([('It is.', 'is it')], [1])
    question = dict(question='Who?', answers=[dict(text='Bo', label=1), dict(text='Al', label=0)])
    row = dict(idx=0, passage=dict(text='Bo ran.', questions=[question]))
    found = read(tmp_path, 'multirc', row)
    assert found == ([('Bo ran.', 'Who? Bo'), ('Bo ran.', 'Who? Al')], [1, 0])
    target = dict(span1_index=0, span1_text='Bo', span2_index=6, span2_text='he')
    row = dict(text='Bo told Al that he saw he did.', label=False, target=target)
    assert read(tmp_path, 'wsc', row) == ([('Bo told Al that he saw * he * did.', 'Bo')], [0])


def test_json_lines_and_the_hub_give_the_same_by_name_or_index_of_label(tmp_path, monkeypatch):
    """A stand-in for `datasets`: what is asked of it, and rows as it gives them."""
    hub, columns = {}, 'sentence premise hypothesis question1 question2 question passage paragraph'
    fake = SimpleNamespace(get_dataset_config_names=lambda name: list(hub))
    fake.load_dataset = lambda name, configuration: hub[configuration]
    monkeypatch.setitem(sys.modules, 'datasets', fake)
    row = dict.fromkeys([*columns.split(), 'answer', 'text', 'span1_text'], 'So it is.')
    for name, task in TASKS.items():
        if name == 'multirc':  # nested where it has a passage
            row.pop('passage')
        labels = [*task.labels, *range(len(task.labels))]
        rows = [row | dict(label=label, span2_index=1) for label in labels]
        texts, classes = read(tmp_path, name, *rows, file=task.dev[-1])
        assert classes == 2 * labels[len(task.labels) :]
        assert len(set(texts)) == 1 and len(texts[0]) == len(task.texts)
        hub.setdefault(name.partition('_')[0], {})[task.dev[-1]] = rows
        again, classes = read_task(name, 'hf:owner/glue', 'dev')
        assert again == texts and len(classes) == len(rows)
    hub.pop('wsc')
    assert chosen_tasks('all', 'hf:owner/glue') == [name for name in TASKS if name != 'wsc']
    for name, words in dict(mnli='no split train', wsc='owner/glue').items():
        with pytest.raises(ConfigError, match=words):
            read_task(name, 'hf:owner/glue', 'train')


@pytest.mark.parametrize(
    'name, line, lines',
    [
        ('sst2', 3, [SENTENCE, 'fine\t1', 'bad\t2']),
        ('sst2', 2, [SENTENCE, 'a\tb\t1']),
        ('sst2', 3, [SENTENCE, 'fine\t1', 'caf\udce9\t1']),
        ('cola', 2, ['xx\t1\t\tFine.', 'xx\t1\tFine.']),
        ('rte', 2, ['index\tsentence1\tsentence2\tlabel', '0\tA\tB\t1']),
        ('boolq', 1, ['{"question": "q"']),
        ('boolq', 1, ['[1]']),
        ('boolq', 1, ['{"question": "q", "passage": 3, "label": true}']),
        ('boolq', 1, [r'{"question": "\ud800", "passage": "p", "label": true}']),
        ('multirc', 1, ['{"passage": {"text": "p"}, "idx": 3}']),
        ('wsc', 1, ['{"text": "a b", "target": {"span2_index": 2}, "label": true}']),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path, name, line, lines):
    with pytest.raises(ConfigError, match=rf'{TASKS[name].folder}/train\.\w+, line {line}'):
        read(tmp_path, name, *lines)


def test_all_tasks_are_those_that_the_folder_holds(tmp_path):
    for path in ('CoLA/dev.tsv', 'WSC/val.jsonl', 'MNLI/dev_mismatched.tsv', 'SST-2/dev.tsv'):
        write(tmp_path / path, SENTENCE)
    assert chosen_tasks('all', str(tmp_path)) == ['cola', 'sst2', 'mnli_mm', 'wsc']
    assert chosen_tasks('rte, CoLA,rte', str(tmp_path)) == ['rte', 'cola']
    for names, folder in (('cola,sst', tmp_path), ('all', tmp_path / 'nowhere')):
        with pytest.raises(ConfigError):
            chosen_tasks(names, str(folder))
    for part in ('train', 'dev'):  # no file, and a file that has a header only
        with pytest.raises(ConfigError):
            read_task('sst2', str(tmp_path), part)


def test_a_task_is_learned_in_one_language_and_scored_in_both(place):
    printed = called(tasks='sst2,cola', seeds=[0, 1], max_epochs=6, patience=4).stdout
    results = json.loads(RESULTS.read_text())
    assert results['train_language'] == 'en1' and results['settings']['learning_rate'] == 1e-2
    for entry in results['tasks'].values():
        truth, runs = np.array(list(entry['truth'])), entry['runs']
        assert (*runs, entry['train_examples'], entry['dev_examples']) == ('0', '1', 320, 60)
        for language, found in entry['languages'].items():
            answers = np.array([list(runs[seed]['predictions'][language]) for seed in '01'])
            assert found['values'] == pytest.approx((answers == truth).mean(1))
            for measure in (found, found['difference']):
                assert measure['mean'] == pytest.approx(np.mean(measure['values']))
                assert measure['interval'][0] <= measure['mean'] <= measure['interval'][1]
            assert f'{found["mean"]:.3f} [{found["interval"][0]:.3f}, ' in printed
        first, second = (entry['languages'][key] for key in ('en1', 'en2'))
        assert f'{second["difference"]["mean"]:.3f} [' in printed
        assert second['difference']['mean'] == pytest.approx(second['mean'] - first['mean'])
        assert first['difference'] == dict(values=[0, 0], mean=0, interval=[0, 0])
        assert first['mean'] > entry['majority'] + 0.2
        for value, run in zip(first['values'], runs.values()):  # the first of the best evaluations
            best = max(accuracy for _, accuracy in run['curve'])
            steps = [step for step, accuracy in run['curve'] if accuracy == best]
            assert best == pytest.approx(value) and run['best_step'] == steps[0]
    means = [entry['languages']['en2']['mean'] for entry in results['tasks'].values()]
    assert f'{np.mean(means):.3f}' in printed.splitlines()[-1]


@pytest.fixture
def spy(monkeypatch):
    """The function that fine-tunes, which can be asked for its calls."""
    monkeypatch.setattr(finetune, 'fine_tune', mock.Mock(wraps=finetune.fine_tune))
    return finetune.fine_tune


def test_a_seed_is_computed_once_and_kept_when_a_later_one_is_interrupted(place, spy):
    spy.side_effect = [mock.DEFAULT, KeyboardInterrupt]
    assert called(seeds=[3, 3, 9]).returncode == 130
    before, spy.side_effect = tuned(seeds=[3]), None
    assert list(before['tasks']['sst2']['runs']) == ['3']
    after = tuned(tasks='cola,sst2', seeds=[3, 1])
    jobs = [(call.args[1], call.args[6]) for call in spy.call_args_list]
    assert jobs == [('sst2', 3), ('sst2', 9), ('cola', 3), ('cola', 1), ('sst2', 1)]
    assert after['tasks']['sst2']['runs']['3'] == before['tasks']['sst2']['runs']['3']
    assert list(after['tasks']) == ['sst2', 'cola']
    RESULTS.unlink()  # a seed gives the same result whatever was computed before
    assert tuned(seeds=[1])['tasks']['sst2']['runs']['1'] == after['tasks']['sst2']['runs']['1']


def test_training_stops_when_the_accuracy_has_not_risen_for_as_long_as_patience_says(place):
    run = tuned(learning_rate=1e-9, eval_interval=2, patience=3)['tasks']['sst2']['runs']['0']
    assert (run['steps'], run['best_step'], len(run['curve'])) == (8, 2, 4)


def test_max_examples_takes_the_same_examples_for_all_seeds(place, spy):
    rows = [dict(question=q, passage=p, label=True) for p, q in ('pa', 'qa', 'pb', 'rc')]
    for part in ('train', 'val'):
        write(place / f'glue/BoolQ/{part}.jsonl', *rows)
    for seed in (0, 1):
        entry = tuned(tasks='boolq', max_examples=3, seeds=[seed])['tasks']['boolq']
        assert entry['train_examples'] == 3 and entry['dev_examples'] == 4
        assert entry['groups'] == [0, 1, 0, 2]  # examples of one passage are a group
        RESULTS.unlink()
    first, second = (call.args[2][0] for call in spy.call_args_list)
    assert all(map(np.array_equal, first, second))


def test_results_of_other_settings_weights_or_data_are_not_mixed(place):
    tuned()
    refused(called(learning_rate=0.02), 'learning_rate')
    refused(called(train_language='en2'), 'train_language')
    tuned(device='auto')  # does not change the weights
    with open('glue/SST-2/dev.tsv', 'a') as file:
        file.write('one more\t1\n')
    refused(called(), 'sst2')
    new_run(place, 'other', cloned_fraction=0.0)
    shutil.copy(RESULTS, 'out/other')
    refused(called(out_dir='out/other'), 'weights')
    old = json.loads(RESULTS.read_text())
    del old['tasks']['sst2']['truth']
    for text in (json.dumps(old), '{"tasks": {}', '[]'):
        RESULTS.write_text(text)
        refused(called(), 'finetune.json')


def test_what_cannot_be_done_is_refused_before_anything_is_computed(place):
    for part in ('train', 'dev'):
        write(place / f'glue/RTE/{part}.tsv', 'sentence1\tsentence2\tlabel', 'A\tB\t7')
        write(place / f'one/SST-2/{part}.tsv', SENTENCE, 'Ba.\t1')
    wrong = dict(train_language='fr', seeds=['a'], patience=0, max_tokens=3, dropout=1.0)
    wrong |= dict(learning_rate=1e30)
    for name, settings in (
        *((name, {name: value}) for name, value in wrong.items()),
        ('--out_dir', dict(out_dir='')),
        ('out/none', dict(out_dir='out/none')),
        ('--glue_dir', dict(glue_dir='')),
        ('nowhere/SST-2', dict(glue_dir='nowhere')),
        ('seeds', dict(seeds=[])),
        ('RTE/train.tsv, line 2', dict(tasks='sst2,rte')),
        ('sst2', dict(glue_dir='one')),  # a single example has no interval
    ):
        refused(called(**settings), name)
    assert not RESULTS.exists()
