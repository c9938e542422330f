"""train.py as its users meet it: rerun again and again, on machines that fail."""

import errno
import fcntl
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from lib.configurator import ConfigError

import numpy as np
import pytest
import torch
from conftest import REPO, TINY, TINY_CONFIG, environment, in_process, refused, script, works

import train
from lib import machine
from lib.checkpoint import checkpoint_paths, read_checkpoint
from lib.files import lock


def run(out, *args):
    return in_process('train', *TINY, f'--out_dir=out/{out}', *args)


def finished(out, *args):
    """Trains out/OUT in this process; returns its folder."""
    works('train', *TINY, f'--out_dir=out/{out}', *args)
    return Path('out', out)


class Killed(BaseException):
    pass


def killed(out, step, *args, saved=True):
    """Trains out/OUT until it dies after the checkpoint of a step, or before it."""
    save = train.Training.save

    def save_and_die(training):
        if saved or training.step < step:
            save(training)
        if training.step == step:
            raise Killed

    with mock.patch.object(train.Training, 'save', save_and_die), pytest.raises(Killed):
        run(out, *args)
    return Path('out', out)


def log(out, *without):
    path = out / 'log.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in line.items() if k not in without} for line in lines]


def losses(out):
    return np.array([line['loss'] for line in log(out)])


def results(out):
    return json.loads((out / 'results.json').read_text())


def weights(out):
    return read_checkpoint(list(checkpoint_paths(out).values())[-1])['model']


def assert_same_run(one, other):
    """Two finished runs have the same weights, log and perplexities."""
    theirs = weights(other)
    assert all(torch.equal(weight, theirs[name]) for name, weight in weights(one).items())
    assert log(one, 'tokens_per_second') == log(other, 'tokens_per_second')
    assert results(one)['languages'] == results(other)['languages']


# --- interruptions --------------------------------------------------------------------------------

CONTROL = ['--max_steps=25', '--only=en2', '--stages=[[0.7,0.3]]', '--dtype=float32']


@pytest.mark.parametrize('saved', [True, False])
@pytest.mark.parametrize(
    'args',
    [['--max_steps=25'], CONTROL, [*CONTROL, '--epochs=3', '--control_batch=7']],
    ids=['run', 'control', 're-reading control'],
)
def test_a_run_killed_at_a_checkpoint_and_resumed_equals_a_whole_one(workplace, args, saved):
    args = [*args, '--checkpoint_interval=5', '--eval_interval=5', '--eval_windows=20']
    whole = finished('whole', *args)
    killed('killed', 10, *args, saved=saved)
    assert_same_run(whole, finished('killed', *args))
    evaluated = [line['step'] for line in log(whole) if 'perplexity' in line]
    assert evaluated == list(range(4, results(whole)['steps'] - 1, 5))


@pytest.mark.parametrize('saving', [False, True])
def test_a_run_killed_at_any_moment_and_resumed_equals_a_whole_one(workplace, saving):
    args = [*TINY, '--max_steps=120', '--checkpoint_interval=3', '--out_dir=out/killed']
    out, after = workplace / 'out/killed', random.randint(5, 90)
    command = [sys.executable, str(REPO / 'train.py'), *args]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    while not (
        list(out.glob('*.tmp')) if saving else max(checkpoint_paths(out), default=0) > after
    ):
        assert process.poll() is None
        time.sleep(0.0005)
    process.kill()
    process.wait()
    assert not (out / 'results.json').exists()
    whole = finished('whole', *args[:-1])
    assert_same_run(whole, finished('killed', *args))
    assert [line['step'] for line in log(out)] == list(range(120))


@pytest.mark.parametrize('number, micro, steps', [(signal.SIGINT, 8, 1), (signal.SIGTERM, 1, 0)])
def test_a_signal_saves_within_a_long_step(workplace, monkeypatch, number, micro, steps):
    forward, signals = train.GPT.forward, [number] * (2 if number == signal.SIGTERM else 1)
    signal.signal(number, signal.default_int_handler)  # a process in the background ignores it

    def interrupted(*arguments, **more):
        while signals:
            signal.raise_signal(signals.pop())
        return forward(*arguments, **more)

    monkeypatch.setattr(train.GPT, 'forward', interrupted)
    args = f'--micro_batch_size={micro}', '--max_steps=20', '--eval_interval=1'
    done, out = run('r', *args), workplace / 'out/r'
    assert done.returncode == 128 + number and 'rerun' in done.stdout
    assert list(checkpoint_paths(out)) == [steps] and len(log(out)) == 2 * steps  # loss and PPL
    assert_same_run(finished('r', *args), finished('whole', *args))


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(workplace):
    args = '--max_steps=20', '--checkpoint_interval=5'
    out = killed('r', 10, *args)
    half = checkpoint_paths(out)[10].stat().st_size // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, before[1]))
    try:
        done = run('r', *args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(done, 'checkpoint_0000015.pt')
    assert list(checkpoint_paths(out)) == [5, 10] and not list(out.glob('*.tmp'))
    finished('r', *args)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(workplace):
    args = '--max_steps=20', '--checkpoint_interval=5'
    whole = finished('whole', *args)
    out = killed('r', 15, *args)
    newest = checkpoint_paths(out)[15]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content)
    done = run('r', *args)
    assert done.returncode == 0 and newest.name in done.stderr
    assert_same_run(whole, out)
    for path in checkpoint_paths(out).values():
        path.write_bytes(path.read_bytes()[:1000])
    (out / 'results.json').unlink()
    refused(run('r', *args), 'damaged')


def test_only_a_folder_that_another_process_holds_is_refused(workplace, monkeypatch, capsys):
    (workplace / 'out/r').mkdir(parents=True)
    with lock(workplace / 'out/r'):
        refused(run('r', '--max_steps=6'), 'out/r')
    locks = mock.Mock(side_effect=OSError(errno.ENOSYS, 'no locks here'))
    monkeypatch.setattr(fcntl, 'flock', locks)
    done = run('r', '--max_steps=6')
    assert done.returncode == 0 and 'no locks here' in done.stderr


def test_a_signal_that_a_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with machine.Signals():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, before)


def test_a_finished_run_prints_its_result_again_and_refuses_other_settings(workplace):
    first, out = run('r', '--max_steps=6', '--final_windows=3'), workplace / 'out/r'
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    second = run('r', '--max_steps=6', '--checkpoint_interval=7')
    assert second.stdout.splitlines()[-3:] == first.stdout.splitlines()[-3:]
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    scored = {score['scored_tokens'] for score in results(out)['languages'].values()}
    assert scored == {3 * 8}  # a quarter of block_size each
    other = '--max_steps=6', '--stages=[[0.5,0.5]]'
    refused(run('r', *other), 'stages', [[0.9, 0.1]], [[0.5, 0.5]])
    (out / 'results.json').write_text('{"run": "r", ')
    refused(run('r', '--max_steps=6'), 'results.json is damaged')
    (out / 'results.json').unlink()
    refused(run('r', '--max_steps=6', '--learning_rate=0.02'), 'learning_rate')


def test_a_finished_run_keeps_one_checkpoint_without_optimiser_and_those_to_be_kept(tiny_run):
    states = [read_checkpoint(path) for path in checkpoint_paths(tiny_run).values()]
    assert [state['step'] for state in states] == [10, 20]
    assert ['optimizer' in state for state in states] == [True, False]


def test_results_name_the_code_and_what_was_seen_and_agree_with_evaluate(workplace):
    args = '--max_steps=40', '--stages=[[0.2,0.8],[0.6,0.4]]', '--orders=["","reversed"]'
    found = results(finished('r', *args))
    seen = {name: entry['tokens_seen'] for name, entry in found['languages'].items()}
    assert sum(seen.values()) == found['tokens'] == 40 * 8 * 32
    assert 0.3 < seen['en1'] / found['tokens'] < 0.5
    assert all(entry['tokens_read'] == seen[name] for name, entry in found['languages'].items())
    assert (found['commit'], found['dirty']) == machine.code_version()
    control = results(finished('c', *args, '--only=en2'))
    for name, run_of in (('r', found), ('c', control)):
        done = works('evaluate', f'--out_dir=out/{name}', '--device=cpu')
        scores = json.loads((workplace / 'out' / name / 'evaluation.json').read_text())
        for language, score in run_of['languages'].items():
            assert scores[language]['ppl'] == pytest.approx(score['ppl'], rel=1e-4)
            assert score['ppl'] < 450 and f'{score["ppl"]:.2f}' in done.stdout


def test_a_run_that_two_commits_trained_is_of_edited_code(workplace, monkeypatch):
    for commit, *args in (('a', '--keep_checkpoints=[8]'), ('b', '--init_from=out/a')):
        monkeypatch.setattr(machine, 'code_version', lambda commit=commit: (commit, False))
        args += '--lr_schedule=wsd', f'--max_steps={dict(a=20, b=10)[commit]}'
        found = results(finished(commit, *args))
        assert (found['commit'], found['dirty']) == (commit, commit == 'b')


def test_the_version_of_the_code_is_its_commit_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, '__file__', str(tmp_path / 'machine.py'))
    assert machine.code_version() == (None, None)
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a', '-C', str(tmp_path)]
    (tmp_path / 'a').write_text('1')
    for words in ('init -q', 'add a', 'commit -qm a'):
        subprocess.run([*git, *words.split()], check=True)
    commit, dirty = machine.code_version()
    assert len(commit) == 40 and dirty is False
    (tmp_path / 'a').write_text('2')
    assert machine.code_version() == (commit, True)


def test_one_test_document_gives_no_standard_error_and_whole_results(workplace):
    rows = (json.dumps(dict(text=(REPO / name).read_text())) for name in ('train.py', 'model.py'))
    (workplace / 'two.jsonl').write_text('\n'.join(rows))
    made = '--corpus=one', '--source=two.jsonl', '--vocab_size=400', '--test_fraction=0.5'
    works('prepare', *made)
    args = '--corpora=[one]', '--languages=[one]', '--stages=[[1]]', '--max_steps=6'
    out = [finished('r', *args) for _ in range(2)][0]
    score = results(out)['languages']['one']
    assert score['documents'] == 1 and score['ppl_se'] is score['loss_se'] is None
    assert 'NaN' not in (out / 'results.json').read_text()


@pytest.mark.parametrize('args', [['--stages=[[0.6,0.4]]', '--batch_size=9'], CONTROL])
def test_two_processes_give_the_losses_of_one(workplace, args):
    args = '--max_steps=20', *args, '--dtype=float32'
    one, two = finished('one', *args), workplace / 'out/two'
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    command += [str(REPO / 'train.py'), *TINY, '--out_dir=out/two', *args]
    subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert [line['step'] for line in log(one)] == [line['step'] for line in log(two)]
    assert [[*line['losses']] for line in log(one)] == [[*line['losses']] for line in log(two)]
    assert np.allclose(losses(one), losses(two), atol=1e-5)
    for a, b in zip(results(one)['languages'].values(), results(two)['languages'].values()):
        assert abs(a['loss'] - b['loss']) < 1e-4 and a['tokens_seen'] == b['tokens_seen']


def test_micro_batches_and_float16_with_a_scaler_change_the_losses_by_rounding_only(workplace):
    args = '--max_steps=30', '--keep_checkpoints=[30]', '--dtype=float32'
    whole = losses(finished('whole', *args))
    cut = losses(finished('cut', *args, '--micro_batch_size=3'))
    half = finished('half', *args, '--dtype=float16')
    assert read_checkpoint(checkpoint_paths(half)[30])['scaler']['scale'] > 1
    assert np.allclose(whole, cut, atol=1e-5) and np.allclose(whole, losses(half), atol=0.05)
    assert whole[-5:].mean() < whole[:5].mean() - 0.3


def test_a_compiled_run_on_several_threads_repeats_itself_and_differs_by_rounding_only(workplace):
    args = '--max_steps=12 --n_layer=1 --n_embd=64 --batch_size=128 --block_size=64'.split()
    plain = losses(finished('plain', *args, '--dtype=float32'))
    torch.set_num_threads(2)
    args += ['--dtype=float32', '--compile=True']
    compiled = [losses(finished(name, *args)) for name in ('one', 'two')]
    assert compiled[0].tolist() == compiled[1].tolist()
    assert np.allclose(plain, compiled[0], atol=1e-4)


def test_without_a_working_compiler_a_note_says_why_and_training_goes_on(workplace):
    broken, version = workplace / 'c++', 'case "$1" in -*v*) exec g++ "$@";; esac'
    broken.write_text(f'#!/bin/sh\n{version}\necho "error: no header of ours" >&2; exit 1\n')
    broken.chmod(0o755)
    env = dict(CXX=str(broken), TORCHINDUCTOR_CACHE_DIR=str(workplace / 'cache'))
    args = '--compile=True', '--max_steps=5', '--out_dir=out/r'
    done = script('train', *TINY, *args, env=env)
    assert done.returncode == 0 and done.stderr.count('no header of ours') == 1, done.stderr
    assert 'Traceback' not in done.stderr and len(losses(workplace / 'out/r')) == 5


def test_batches_are_read_ahead_in_order():
    made = []
    following = machine.prefetch(lambda item: made.append(item) or -item, range(30), ahead=5)
    assert next(following) == 0
    time.sleep(0.1)
    assert 5 <= len(made) <= 6
    assert list(following) == [-item for item in range(1, 30)]


def two_groups(model, rate):
    first, *others = model.parameters()
    groups = dict(params=[first], lr=rate / 10), dict(params=others)
    return torch.optim.Adam(groups, lr=rate)


def test_a_group_of_parameters_keeps_its_own_share_of_the_learning_rate(training_of, monkeypatch):
    monkeypatch.setattr(train, 'make_optimizer', two_groups)
    training = training_of()
    training.log = SimpleNamespace(add=lambda *step, learning_rate: rates.append(learning_rate))
    rates, groups = [], training.optimizer.param_groups
    for batch, drawn in list(training.batches())[:6]:
        training.take_step(batch, drawn)
        training.step += 1
        assert groups[1]['lr'] == rates[-1] == pytest.approx(10 * groups[0]['lr'])
    assert rates[0] < rates[3] == 1e-2


# --- languages, branches, controls ----------------------------------------------------------------


@pytest.mark.parametrize(
    'corpora, stages, args',
    [
        ('en fr en', [[0.6, 0.3, 0.1]], ['--vocabulary=anchored']),
        (' '.join(['en'] * 10), [[0.1] * 10], ['--positions=rotary']),
        ('en fr', [[0.5, 0.5]], ['--orders=[reversed,scrambled_4]']),
    ],
    ids=['three languages', 'ten clones, rotary', 'disjoint, of other orders'],
)
def test_any_number_of_languages_trains(workplace, corpora, stages, args):
    names = [f'l{number}' for number in range(len(stages[0]))]
    args += [f'--corpora={corpora.split()}', f'--languages={names}', f'--stages={stages}']
    out = finished('r', '--max_steps=40', *args)
    for name in names:
        of_language = [line['losses'][name] for line in log(out) if name in line['losses']]
        assert np.mean(of_language[-4:]) < np.mean(of_language[:4])


WSD = '--lr_schedule=wsd', '--decay_fraction=0.25'


def test_a_branch_of_a_trunk_equals_a_run_of_its_own(workplace):
    kept = '--keep_checkpoints=[15,30]', '--checkpoint_interval=4'
    trunk = finished('trunk', *WSD, '--max_steps=40', *kept)
    assert list(checkpoint_paths(trunk)) == [15, 30, 40]
    for steps in (12, 20, 60):  # before any checkpoint, shorter than the trunk, and longer
        branch = *WSD, f'--max_steps={steps}'
        own = finished(f'own_{steps}', *branch)
        done = run(f'branch_{steps}', *branch, '--init_from=out/trunk')
        assert done.returncode == 0 and 'out/trunk at step' in done.stdout
        out = workplace / f'out/branch_{steps}'
        assert log(out)[0]['step'] == {12: 0, 20: 15, 60: 30}[steps]
        assert results(own)['languages'] == results(out)['languages']
    for name, value in dict(seed=1, warmup_steps=5).items():
        args = '--max_steps=20', f'--{name}={value}', '--init_from=out/trunk'
        refused(run('b', *WSD, *args), name)
    refused(run('trunk', *WSD, '--max_steps=60'), 'init_from=out/trunk')


@pytest.mark.parametrize('config', ['', 'orders = ["", "reversed"]\nloss_weights = [1, 2]\n'])
def test_alone_is_the_monolingual_run_of_a_language_whatever_the_mix(workplace, config):
    mixed = 'corpora = ["en", "fr"]\nlanguages = ["e", "f"]\nvocabulary = "anchored"\n'
    (workplace / 'mixed.py').write_text(mixed + 'init_embeddings = "spelling"\n' + config)
    (workplace / 'plain.py').write_text('languages, corpora, stages = ["f"], ["fr"], [[1.0]]\n')
    tiny = [*TINY[:-3], '--device=cpu', '--max_steps=6']
    for args in (['mixed.py', '--alone=f'], ['plain.py', *['--orders=[reversed]'] * bool(config)]):
        works('train', *args, *tiny)
    one, two = (next((workplace / 'out').glob(f'{stem}-*')) for stem in ('mixed', 'plain'))
    assert 'alone_f' in one.name
    settings = [results(out)['settings'] | dict(out_dir='') for out in (one, two)]
    assert settings[0] == settings[1]
    assert_same_run(one, two)


def test_a_step_without_the_language_is_skipped(workplace):
    args = '--max_steps=60', '--keep_checkpoints=[60]'
    control, mix = finished('c', *args, '--only=en2'), workplace / 'out/r'
    steps = [line['step'] for line in log(control)]
    assert 20 < len(steps) < 45  # a step has none of the ten percent with a probability of 0.43
    state = read_checkpoint(checkpoint_paths(control)[60])['optimizer']['state']
    assert {int(moments['step']) for moments in state.values()} == {len(steps)}
    finished('r', *args)
    rates = {line['step']: line['learning_rate'] for line in log(mix) if 'en2' in line['losses']}
    assert rates == {line['step']: line['learning_rate'] for line in log(control)}
    own, mixed = (results(out)['languages'] for out in (control, mix))
    assert [*own] == ['en2'] and own['en2']['tokens_seen'] == mixed['en2']['tokens_seen']


def test_a_re_reading_control_says_what_it_read_and_runs_the_schedule_over_its_own_steps(workplace):
    args = '--max_steps=60', '--only=en2', '--epochs=4', '--control_batch=3', *WSD
    out = finished('c', *args)
    found, rates = results(out), [line['learning_rate'] for line in log(out)]
    score = found['languages']['en2']
    assert score['tokens_read'] == 4 * score['tokens_seen'] == found['tokens']
    assert found['steps'] == len(rates) == -(-4 * score['sequences_seen'] // 3)
    assert found['settings']['max_steps'] == 60
    decays = round(0.75 * len(rates))
    assert set(rates[4:decays]) == {1e-2} and rates[-1] < rates[decays + 2] < 1e-2


def test_micro_batches_of_a_control_have_one_size_and_padding_changes_no_gradient(training_of):
    control = training_of(only='en2', stages=[[0.5, 0.5]], micro_batch_size=3)
    shapes = set()

    def model(inputs, targets, **more):
        shapes.add(tuple(inputs.shape))
        return control.model(inputs, targets, **more)

    control.parallel = model
    for batch, drawn in list(control.batches())[:10]:
        control.model.zero_grad()
        found = control.compute_gradients(batch, drawn, len(drawn))
        padded = [p.grad.clone() for p in control.model.parameters()]
        control.model.zero_grad()
        mean = control.model(*batch)
        mean.backward()
        assert found.mean().item() == pytest.approx(mean.item(), abs=1e-6)
        assert len(found) == len(drawn)
        for ours, p in zip(padded, control.model.parameters()):
            assert torch.allclose(ours, p.grad, atol=1e-6)
    assert shapes == {(3, 32)}


def test_the_micro_batch_size_fits_the_steps():
    same, different = [([16, 16], 100, 16), ([16, 16], 10, 8), ([7, 7], 5, 1)], [6, 7, 6, 5]
    for counts, largest, size in (*same, (different, 100, 7), (different, 4, 3), ([0, 1], 9, 1)):
        assert machine.micro_batch_of(np.array(counts), largest) == size


# Each is refused in one sentence with the name of its first setting.
BAD = """
    corpora=[en] data_dir=data,corpora=[nowhere,en] init_from=out/trunk,lr_schedule=wsd
    stages=[[0.5,0.4]] stages=[[1.0]] stages=[]
    alone=en3 only=en3 size=huge n_layer=0 block_size=100000 orders=[reversed] batch_size=abc
    batch_size=0 micro_batch_size=-1 warmup_steps=9 learning_rate=0 min_learning_rate=1
    decay_fraction=0 lr_schedule=linear dtype=int8 device=cuda:77 wandb_project=p epochs=2
    loss_weights=[1] loss_weights=[0,0] loss_weights=[1,-1] loss_weights=[1,a]
    init_embeddings=cousins init_noise=-1 train_only=fr alone=en2,only=en2
    alone=en2,orders=[reversed] keep_checkpoints=[1_0] train_only=en2,cloned_fraction=0
    only=en2,stages=[[1.0,0.0]] control_batch=2,only=en2 positions=none positions=rotary,head_dim=3
    warmup_steps=4,only=en2,epochs=1,control_batch=1000 block_size=32,orders=[reversed,shuffled_16]
    init_embeddings=spelling,cloned_fraction=0
"""


@pytest.mark.parametrize('bad', BAD.split())
def test_bad_settings_are_one_sentence_and_leave_nothing(workplace, monkeypatch, bad):
    monkeypatch.setitem(sys.modules, 'wandb', None)  # not installed
    args = [f'--{argument}' for argument in re.split(r',(?=\w+=)', bad)]
    refused(run('r', '--max_steps=9', *args), bad.partition('=')[0])
    assert not (workplace / 'out/r').exists()


def test_a_loss_that_is_not_finite_names_step_and_languages_and_keeps_what_was_before(workplace):
    args = '--max_steps=40 --learning_rate=1e30 --warmup_steps=0 --checkpoint_interval=1'.split()
    sentence, out = refused(run('r', *args), 'en1'), workplace / 'out/r'
    step = int(sentence.split('loss of step ')[1].split()[0])
    assert max(checkpoint_paths(out)) <= step and np.isfinite(losses(out)).all()


def test_a_shard_with_tokens_beyond_its_vocabulary_is_refused(workplace):
    path = workplace / 'data/en/train.bin'
    tokens = np.memmap(path, dtype=np.uint16, mode='r+')
    tokens[len(tokens) // 3 : 2 * len(tokens) // 3] = 60000  # its ends, which are compared, stay
    tokens.flush()
    refused(run('r', '--max_steps=50'), 'train.bin')


def test_a_checkpoint_of_other_code_is_refused(workplace, monkeypatch):
    killed('r', 10, *(args := ['--max_steps=20', '--checkpoint_interval=5']))

    def edited(model, rate):
        return torch.optim.Adam([*model.parameters()], lr=rate, betas=(0.8, 0.9))

    for other in two_groups, edited, lambda model, rate: torch.optim.SGD(model.parameters(), rate):
        monkeypatch.setattr(train, 'make_optimizer', other)
        refused(run('r', *args), 'optimizer')
    monkeypatch.setattr(train, 'GPT', lambda config: torch.nn.Linear(1, 1))
    refused(run('r', *args), 'the model in')


def test_processes_that_resume_from_different_steps_are_refused(training_of, monkeypatch):
    monkeypatch.setattr(machine.Processes, 'sum', lambda self, array: array + 1)
    with pytest.raises(ConfigError, match='shared'):
        training_of()


def test_the_number_format_that_auto_chose_first_stays(training_of):
    first = training_of(dtype='float16')  # which `auto` never picks on a CPU
    vars(first).update(started=0, settings=first.settings | dict(dtype='auto'))
    first.out.mkdir()
    first.save()
    assert training_of(dtype='auto').number_format == 'float16'


def test_running_out_of_memory_says_what_to_lower():
    with pytest.raises(ConfigError, match='lower it'), machine.memory_advice('lower it'):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_a_gpu_that_torch_cannot_use_gives_a_warning(tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip('torch uses the GPU of this machine')
    (tmp_path / 'nvidia-smi').write_text('#!/bin/sh\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    assert machine.pick_device('cpu').type == 'cpu' and capsys.readouterr().err == ''
    machine.pick_device('auto')
    assert 'nvidia-smi' in capsys.readouterr().err


def test_a_gpu_without_a_number_is_not_set_as_the_current_one(monkeypatch):
    monkeypatch.setattr(machine, 'pick_device', torch.device)  # as if it were there
    assert machine.Processes('cuda').device.type == 'cuda'  # set_device wants a number


def test_the_folder_is_named_after_the_configs_and_the_overrides(workplace):
    (workplace / 'tiny.py').write_text(TINY_CONFIG + 'max_steps = 5\n')
    (workplace / 'twice.py').write_text('max_steps = 2 * max_steps\n')
    for arguments, name, steps in (
        ('tiny.py twice.py', 'tiny-twice', 10),
        ('tiny.py --max_steps=6', 'tiny-max_steps_6', 6),
        ('tiny.py --max_steps=5', 'tiny', 5),
        ('tiny.py --only=en2 --device=cpu --log_interval=3', 'tiny-only_en2', 5),
    ):
        works('train', *arguments.split())
        assert results(workplace / 'out' / name)['steps'] == steps


def test_weights_and_biases_gets_the_results_under_a_name_of_the_folder(workplace, monkeypatch):
    begun, login = [], mock.Mock(side_effect=NameError('no key\nmore'))
    fake = SimpleNamespace(Error=NameError, login=login)
    fake.init = lambda **about: begun.append(mock.Mock(summary={}, about=about)) or begun[-1]
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    args = '--max_steps=5', '--wandb_project=p'
    refused(run('a/r', *args), 'wandb_project', 'no key')
    assert not (workplace / 'out').exists()
    fake.login = mock.Mock()
    for name in ('a/r', 'b/r'):
        finished(name, *args)
    ids = {run.about['id'] for run in begun}
    assert len(ids) == 2 and {run.about['project'] for run in begun} == {'p'}
    for name, score in results(workplace / 'out/b/r')['languages'].items():
        assert begun[1].summary[f'{name}/ppl'] == score['ppl']
    assert begun[1].finish.called and begun[1].log.call_count == 5
