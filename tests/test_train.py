"""train.py as its users meet it: the same command again and again, on machines that fail."""

import json
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import REPO, TINY, environment, refused, script

from lib.checkpoint import checkpoint_paths, read_checkpoint
from lib.configurator import ConfigError
from lib.machine import memory_advice


def train(*args, cwd, **kwargs):
    return script('train', *TINY, *args, cwd=cwd, **kwargs)


def finished(*args, cwd, **kwargs):
    done = train(*args, cwd=cwd, **kwargs)
    assert done.returncode == 0, done.stderr
    return done


def two_processes(*args, cwd):
    """Trains in two processes that share each step."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    command += [str(REPO / 'train.py'), *TINY, *args]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def start(*args, cwd):
    return subprocess.Popen(
        [sys.executable, str(REPO / 'train.py'), *TINY, *args],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.0005)


def log(out):
    return [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]


def final_state(out):
    return read_checkpoint(list(checkpoint_paths(out).values())[-1])


def assert_same_state(one, other):
    for part in ('model', 'optimizer'):
        a, b = ([t for t in torch.utils._pytree.tree_leaves(state[part])] for state in (one, other))
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert torch.equal(x, y) if torch.is_tensor(x) else x == y


@pytest.mark.parametrize(
    'control', [[], ['--only=en2', '--stages=[[0.7,0.3]]']], ids=['run', 'control']
)
def test_a_run_killed_at_any_moment_and_resumed_equals_an_uninterrupted_run(workplace, control):
    args = ['--max_steps=120', '--checkpoint_interval=3', *control]
    finished(*args, '--out_dir=out/whole', cwd=workplace)
    out = workplace / 'out/killed'
    moments = sorted(random.Random().sample(range(5, 100), 4))
    for number in range(5):
        process = start(*args, '--out_dir=out/killed', cwd=workplace)
        if number == 2:  # while a checkpoint is being written
            wait_until(
                lambda: checkpoint_paths(out) and list(out.glob('checkpoint_*.tmp')), process
            )
        else:
            moment = moments[number - (number > 2)]
            wait_until(
                lambda moment=moment: (out / 'log.jsonl').exists() and len(log_lines(out)) > moment,
                process,
            )
        process.kill()
        process.wait()
        assert not (out / 'results.json').exists()
    finished(*args, '--out_dir=out/killed', cwd=workplace)
    whole = workplace / 'out/whole'
    assert_same_state(final_state(whole), final_state(out))
    untimed = [
        [{k: v for k, v in entry.items() if k != 'tokens_per_second'} for entry in log(o)]
        for o in (whole, out)
    ]
    assert untimed[0] == untimed[1]
    steps = [entry['step'] for entry in untimed[0]]
    assert steps == sorted(set(steps)) and (
        steps == list(range(120)) or control and len(steps) > 90
    )
    scores = [json.loads((o / 'results.json').read_text())['languages'] for o in (whole, out)]
    assert scores[0] == scores[1]


def log_lines(out):
    return (out / 'log.jsonl').read_text().splitlines()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_leaves(workplace, number):
    out = workplace / 'out/r'
    process = start(
        '--max_steps=100000', '--checkpoint_interval=100000', '--out_dir=out/r', cwd=workplace
    )
    wait_until(lambda: (out / 'log.jsonl').exists() and len(log_lines(out)) > 5, process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, text
    (step,) = checkpoint_paths(out)
    assert f'stopped by a signal after step {step}' in text and 'Traceback' not in text
    assert log(out)[-1]['step'] == step - 1


def test_a_signal_is_not_kept_waiting_for_the_end_of_a_long_step(workplace):
    out = workplace / 'out/r'
    args = [
        '--batch_size=4096',
        '--micro_batch_size=1',
        '--max_steps=2',
        '--warmup_steps=0',
        '--out_dir=out/r',
    ]
    process = start(*args, cwd=workplace)
    wait_until(
        (out / 'log.jsonl').exists, process
    )  # made just before the first of 4,096 passes, some 10 s
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert 'stopped by a signal after step 0' in text and list(checkpoint_paths(out)) == [0]
    refused(train(*args, '--learning_rate=0.02', cwd=workplace), 'learning_rate')
    assert (out / 'log.jsonl').read_text() == ''


def test_a_refused_run_leaves_nothing(workplace):
    refused(
        train('--corpora=[en,nowhere]', '--out_dir=out/r', cwd=workplace), 'no corpus', 'prepare.py'
    )
    refused(
        train('--lr_schedule=wsd', '--init_from=out/trunk', '--out_dir=out/r', cwd=workplace),
        'no run out/trunk',
    )
    assert not (workplace / 'out/r').exists()


def test_the_last_evaluation_can_be_shortened(workplace):
    finished(
        '--max_steps=1', '--warmup_steps=0', '--final_windows=3', '--out_dir=out/r', cwd=workplace
    )
    results = json.loads((workplace / 'out/r/results.json').read_text())
    assert {score['scored_tokens'] for score in results['languages'].values()} == {
        3 * 8
    }  # a quarter of block_size each


def test_a_finished_run_prints_its_result_again_and_refuses_other_settings(workplace):
    args = ['--max_steps=5', '--out_dir=out/r']
    first = finished(*args, cwd=workplace)
    before = {p.name: p.stat().st_mtime_ns for p in (workplace / 'out/r').iterdir()}
    second = finished(*args, '--checkpoint_interval=7', cwd=workplace)
    assert (
        'finished' in second.stdout
        and second.stdout.splitlines()[-3:] == first.stdout.splitlines()[-3:]
    )
    assert before == {p.name: p.stat().st_mtime_ns for p in (workplace / 'out/r').iterdir()}
    refused(
        train(*args, '--stages=[[0.5,0.5]]', cwd=workplace),
        'stages is [[0.9, 0.1]] there and [[0.5, 0.5]] now',
    )
    (workplace / 'out/r/results.json').unlink()
    refused(
        train(*args, '--learning_rate=0.02', cwd=workplace),
        'learning_rate is 0.01 there and 0.02 now',
    )


def test_a_damaged_checkpoint_falls_back_to_the_one_before(workplace):
    args = ['--max_steps=20', '--checkpoint_interval=5', '--out_dir=out/r']
    finished(*args, cwd=workplace)
    out = workplace / 'out/r'
    expected = final_state(out)
    (out / 'results.json').unlink()
    newest = checkpoint_paths(out)[20]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content)
    done = finished(*args, cwd=workplace)
    assert 'checkpoint_0000020.pt is damaged' in done.stderr and 'the one before' in done.stderr
    assert_same_state(expected, final_state(out))
    for path in checkpoint_paths(out).values():
        path.write_bytes(path.read_bytes()[:1000])
    (out / 'results.json').unlink()
    refused(train(*args, cwd=workplace), 'every checkpoint in out/r is damaged')


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(workplace):
    args = ['--max_steps=20', '--checkpoint_interval=5', '--out_dir=out/r']
    finished(*args, cwd=workplace)
    out = workplace / 'out/r'
    (out / 'results.json').unlink()
    checkpoint_paths(out)[20].unlink()
    size = checkpoint_paths(out)[15].stat().st_size
    done = subprocess.run(
        [sys.executable, str(REPO / 'train.py'), *TINY, *args],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
    )
    refused(done, 'checkpoint_0000020.pt')
    assert list(checkpoint_paths(out)) == [15] and not list(out.glob('*.tmp'))
    finished(*args, cwd=workplace)


@pytest.mark.parametrize(
    'dtype, learning_rate, tolerance', [('float32', 1e-2, 1e-5), ('auto', 1e-3, 1e-4)]
)
def test_two_processes_give_the_losses_of_one(workplace, dtype, learning_rate, tolerance):
    args = [
        '--max_steps=20',
        '--stages=[[0.6,0.4]]',
        f'--dtype={dtype}',
        f'--learning_rate={learning_rate}',
    ]
    finished(*args, '--out_dir=out/one', cwd=workplace)
    two_processes(*args, '--out_dir=out/two', cwd=workplace)
    one, two = log(workplace / 'out/one'), log(workplace / 'out/two')
    assert len(one) == len(two) == 20
    for a, b in zip(one, two):
        assert abs(a['loss'] - b['loss']) < tolerance
        assert a['losses'].keys() == b['losses'].keys()
    results = [
        json.loads((workplace / f'out/{name}/results.json').read_text()) for name in ('one', 'two')
    ]
    for a, b in zip(results[0]['languages'].values(), results[1]['languages'].values()):
        assert abs(a['loss'] - b['loss']) < 1e-3 and a['tokens_seen'] == b['tokens_seen']


def test_the_micro_batch_size_and_the_compiler_change_the_losses_by_rounding_only(workplace):
    runs = {
        'whole': [],
        'cut': ['--micro_batch_size=2'],
        'compiled': ['--compile=True', '--micro_batch_size=4'],
    }
    losses = {}
    for name, more in runs.items():
        finished('--max_steps=12', '--dtype=float32', f'--out_dir=out/{name}', *more, cwd=workplace)
        losses[name] = [entry['loss'] for entry in log(workplace / f'out/{name}')]
    assert np.allclose(losses['whole'], losses['cut'], atol=1e-5)
    assert np.allclose(losses['whole'], losses['compiled'], atol=1e-4)


def test_several_threads_give_the_same_losses_each_time(workplace):
    sizes = '--n_embd=64 --batch_size=128 --block_size=64 --micro_batch_size=128'.split()
    for name in ('one', 'two'):
        more = ('--compile=True', '--max_steps=12', f'--out_dir=out/{name}', *sizes)
        finished(*more, cwd=workplace, env={'OMP_NUM_THREADS': '2'})
    losses = [
        [entry['loss'] for entry in log(workplace / f'out/{name}')] for name in ('one', 'two')
    ]
    assert losses[0] == losses[1]


def test_float16_trains_with_a_scaler(workplace):
    finished('--max_steps=30', '--dtype=float16', '--out_dir=out/half', cwd=workplace)
    finished('--max_steps=30', '--dtype=float32', '--out_dir=out/full', cwd=workplace)
    half, full = (
        np.array([e['loss'] for e in log(workplace / f'out/{n}')]) for n in ('half', 'full')
    )
    assert final_state(workplace / 'out/half')['scaler']['scale'] > 1
    assert np.allclose(half, full, atol=0.05) and half[-5:].mean() < half[:5].mean() - 0.3


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_languages(workplace):
    done = train(
        '--max_steps=40',
        '--learning_rate=1e30',
        '--warmup_steps=0',
        '--checkpoint_interval=1',
        '--out_dir=out/r',
        cwd=workplace,
    )
    sentence = refused(done, 'en1', 'last checkpoint')
    step = int(sentence.split('loss of step ')[1].split()[0])
    assert max(checkpoint_paths(workplace / 'out/r')) <= step
    assert all(np.isfinite(entry['loss']) for entry in log(workplace / 'out/r'))


def test_results_say_what_was_seen_and_agree_with_evaluate(workplace):
    finished('--max_steps=30', '--stages=[[1.0,0.0],[0.5,0.5]]', '--out_dir=out/r', cwd=workplace)
    results = json.loads((workplace / 'out/r/results.json').read_text())
    seen = {name: entry['tokens_seen'] for name, entry in results['languages'].items()}
    assert sum(seen.values()) == results['tokens'] == 30 * 8 * 32
    assert 15 * 8 * 32 < seen['en1'] < 30 * 8 * 32
    assert {'settings', 'versions', 'wall_time_s', 'tokens_per_second'} <= results.keys()
    done = script('evaluate', '--out_dir=out/r', '--device=cpu', cwd=workplace)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((workplace / 'out/r/evaluation.json').read_text())
    for name, entry in evaluation.items():
        assert entry['ppl'] == pytest.approx(results['languages'][name]['ppl'], rel=1e-5)
        assert f'{entry["ppl"]:.2f}' in done.stdout


@pytest.mark.parametrize(
    'args',
    [
        [
            '--corpora=[en,fr,en]',
            '--languages=[en1,fr,en2]',
            '--stages=[[0.6,0.3,0.1]]',
            '--vocabulary=anchored',
        ],
        [
            '--corpora=[en,en,en,en,en,en,en,en,en,en]',
            '--languages=[a,b,c,d,e,f,g,h,i,j]',
            f'--stages={[[0.1] * 10]}',
        ],
        ['--corpora=[en,fr]', '--languages=[en,fr]', '--stages=[[0.5,0.5]]'],
    ],
    ids=['three languages', 'ten clones', 'disjoint'],
)
def test_any_number_of_languages_trains(workplace, args):
    finished('--max_steps=40', '--out_dir=out/r', *args, cwd=workplace)
    entries = log(workplace / 'out/r')
    names = args[1].split('[')[1][:-1].split(',')
    for name in names:
        of_language = [entry['losses'][name] for entry in entries if name in entry['losses']]
        assert np.mean(of_language[-4:]) < np.mean(of_language[:4])


def test_a_branch_of_a_trunk_equals_a_run_of_its_own(workplace):
    wsd = ['--lr_schedule=wsd', '--decay_fraction=0.25']
    finished(
        *wsd,
        '--max_steps=40',
        '--keep_checkpoints=[15]',
        '--checkpoint_interval=4',
        '--out_dir=out/trunk',
        cwd=workplace,
    )
    assert list(checkpoint_paths(workplace / 'out/trunk')) == [15, 36, 40]
    finished(*wsd, '--max_steps=20', '--out_dir=out/alone', cwd=workplace)
    done = finished(
        *wsd, '--max_steps=20', '--init_from=out/trunk', '--out_dir=out/branch', cwd=workplace
    )
    assert 'branches off out/trunk at step 15' in done.stdout
    assert_same_state(final_state(workplace / 'out/alone'), final_state(workplace / 'out/branch'))
    results = [
        json.loads((workplace / f'out/{name}/results.json').read_text())
        for name in ('alone', 'branch')
    ]
    assert results[0]['languages'] == results[1]['languages']
    refused(
        train(
            *wsd,
            '--max_steps=20',
            '--init_from=out/trunk',
            '--seed=1',
            '--out_dir=out/b',
            cwd=workplace,
        ),
        'seed is 0 there and 1 now',
    )
    refused(
        train(*wsd, '--max_steps=12', '--init_from=out/trunk', '--out_dir=out/b', cwd=workplace),
        'no checkpoint',
        'keep_checkpoints=[9]',
    )


@pytest.mark.parametrize(
    'args, words',
    [
        (['--corpora=[nowhere,en]'], 'python prepare.py --corpus=nowhere'),
        (['--stages=[[0.5,0.4]]'], 'add up to 1'),
        (['--stages=[[1.0]]'], '2 probabilities'),
        (['--block_size=100000'], 'block_size 100000'),
        (['--micro_batch_size=3'], 'micro_batch_size 3 does not divide'),
        (['--size=huge'], 'mini, small, medium'),
        (['--n_layer=0'], 'n_layer must be a positive number'),
        (['--dtype=int8'], 'dtype must be auto'),
        (['--device=cuda:77'], 'cuda:77'),
        (['--wandb_project=p'], 'pip install wandb'),
        (['--max_step=3'], "'max_steps'"),
        (['--max_steps=4'], 'ends within its warm-up'),
        (['--max_steps=10', '--warmup_fraction=0.96'], 'ends within its warm-up'),
        (['--only=en3'], "only='en3' is none of the languages en1, en2"),
        (['--only=en2', '--stages=[[1.0,0.0]]'], 'never draws en2'),
        (['--batch_size=abc'], 'batch_size must be a whole number'),
    ],
)
def test_bad_settings_are_one_sentence(workplace, args, words):
    refused(train('--max_steps=9', '--out_dir=out/r', *args, cwd=workplace), words)


def test_a_shard_with_tokens_beyond_its_vocabulary_is_refused(workplace):
    path = workplace / 'data/en/train.bin'
    tokens = np.memmap(path, dtype=np.uint16, mode='r+')
    tokens[len(tokens) // 3 : 2 * len(tokens) // 3] = (
        60000  # its ends, which are compared at the start, stay
    )
    tokens.flush()
    refused(train('--max_steps=50', '--out_dir=out/r', cwd=workplace), 'train.bin', 'delete')


def test_two_runs_do_not_share_a_folder(workplace):
    out = workplace / 'out/r'
    process = start('--max_steps=100000', '--out_dir=out/r', cwd=workplace)
    wait_until(lambda: (out / 'log.jsonl').exists(), process)
    try:
        refused(train('--max_steps=100000', '--out_dir=out/r', cwd=workplace), 'another process')
    finally:
        process.kill()
        process.wait()


def test_running_out_of_memory_says_what_to_lower():
    with pytest.raises(ConfigError, match='out of memory: lower it'), memory_advice('lower it'):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_the_folder_is_named_after_the_configs_and_the_overrides(workplace):
    (workplace / 'tiny.py').write_text(
        '\n'.join(
            f'{name} = {value!r}'
            for name, value in dict(
                size='',
                n_layer=1,
                n_head=1,
                head_dim=8,
                n_embd=8,
                mlp_dim=8,
                block_size=8,
                batch_size=4,
                warmup_steps=1,
                compile=False,
                corpora=['en', 'en'],
                max_steps=3,
                final_windows=2,
            ).items()
        )
    )
    (workplace / 'twice.py').write_text('max_steps = 2 * max_steps\n')
    for arguments in (
        ['tiny.py', 'twice.py'],
        ['tiny.py', '--max_steps=2'],
        ['tiny.py', '--max_steps=3'],
        ['tiny.py', '--only=en2', '--stages=[[0.5,0.5]]', '--device=cpu', '--log_interval=3'],
    ):
        done = script('train', *arguments, cwd=workplace)
        assert done.returncode == 0, done.stderr
    steps = {
        path.parent.name: json.loads(path.read_text())['steps']
        for path in (workplace / 'out').glob('*/results.json')
    }
    assert steps == {
        'tiny-twice': 6,
        'tiny-max_steps_2': 2,
        'tiny': 3,
        'tiny-stages_0.5_0.5-only_en2': 3,
    }


# --- controls -------------------------------------------------------------------------------------


def training_of(monkeypatch, workplace, **settings):
    """A Training of train.py in this process, with the settings of TINY and others."""
    from device import Processes

    import train as script_of_train

    monkeypatch.chdir(workplace)
    tiny = dict(
        size='',
        n_layer=2,
        n_head=2,
        head_dim=8,
        n_embd=16,
        mlp_dim=32,
        block_size=32,
        batch_size=8,
        warmup_steps=4,
        compile=False,
        corpora=['en', 'en'],
        languages=['en1', 'en2'],
        max_steps=30,
    )
    for name, value in (tiny | settings).items():
        monkeypatch.setattr(script_of_train, name, value)
    return script_of_train.Training({}, workplace / 'out/none', Processes('cpu'))


@pytest.mark.parametrize(
    'mix',
    [
        dict(),
        dict(parallel_epochs=True),
        dict(stages=[[1.0, 0.0], [0.2, 0.8]]),
        dict(cloned_fraction=0.4),
        dict(
            corpora=['en', 'fr', 'en'],
            languages=['en1', 'fr', 'en2'],
            vocabulary='anchored',
            stages=[[0.5, 0.3, 0.2]],
        ),
    ],
    ids=['clones', 'parallel', 'stages', 'shared pieces', 'anchored'],
)
def test_a_control_trains_on_the_very_sequences_of_the_full_run_at_the_same_steps(
    monkeypatch, workplace, mix
):
    full = training_of(monkeypatch, workplace, **mix)
    language = full.trained[-1]
    assert language.name == 'en2'
    back = {entry: token for token, entry in enumerate(language.table.tolist())}
    expected = [full.mix.batch(step, full.rows_of(step)) for step in range(30)]
    control = training_of(monkeypatch, workplace, **mix, only='en2')
    assert [lang.name for lang in control.trained] == ['en2']
    assert control.config.vocab_size == language.corpus.vocab_size
    for step, (inputs, targets, drawn) in enumerate(expected):
        own = drawn == len(full.trained) - 1
        tokens = control.mix.batch(step, control.rows_of(step))
        assert control.counts[step] == own.sum() == len(tokens[0])
        for ours, theirs in zip(tokens, (inputs[own], targets[own])):
            assert ours.tolist() == [[back[entry] for entry in row] for row in theirs.tolist()]


def test_a_step_without_the_language_is_passed_over(workplace):
    finished('--only=en2', '--max_steps=60', '--out_dir=out/c', cwd=workplace)
    steps, state = (
        [entry['step'] for entry in log(workplace / 'out/c')],
        final_state(workplace / 'out/c'),
    )
    assert 20 < len(steps) < 45  # a step has none of the ten percent with a probability of 0.43
    assert {int(s['step']) for s in state['optimizer']['state'].values()} == {len(steps)} and state[
        'step'
    ] == 60
    entries = {entry['step']: entry for entry in log(workplace / 'out/c')}
    finished('--max_steps=60', '--out_dir=out/r', cwd=workplace)
    for entry in log(workplace / 'out/r'):
        assert ('en2' in entry['losses']) == (entry['step'] in entries)
        if entry['step'] in entries:
            assert entries[entry['step']]['learning_rate'] == entry['learning_rate']
    seen = [
        json.loads((workplace / f'out/{n}/results.json').read_text())['languages']
        for n in ('c', 'r')
    ]
    assert (
        list(seen[0]) == ['en2'] and seen[0]['en2']['tokens_seen'] == seen[1]['en2']['tokens_seen']
    )


def test_two_processes_give_the_control_of_one(workplace):
    args = ['--max_steps=40', '--only=en2', '--stages=[[0.7,0.3]]', '--dtype=float32']
    finished(*args, '--out_dir=out/one', cwd=workplace)
    two_processes(*args, '--out_dir=out/two', cwd=workplace)
    one, two = log(workplace / 'out/one'), log(workplace / 'out/two')
    assert [entry['step'] for entry in one] == [entry['step'] for entry in two]
    assert np.allclose(
        [entry['loss'] for entry in one], [entry['loss'] for entry in two], atol=1e-5
    )


def test_passes_of_a_control_have_one_size_and_padding_changes_no_gradient(monkeypatch, workplace):
    control = training_of(monkeypatch, workplace, only='en2', stages=[[0.5, 0.5]], dtype='float32')
    shapes = set()

    def model(inputs, targets, **more):
        shapes.add(tuple(inputs.shape))
        return control.model(inputs, targets, **more)

    control.parallel, control.micro = model, 3
    for step in range(10):
        *arrays, drawn = control.mix.batch(step, control.rows_of(step))
        batch, count = [torch.from_numpy(part.copy()) for part in arrays], len(drawn)
        control.model.zero_grad()
        losses = control.compute_gradients(batch, drawn, count)
        padded = [p.grad.clone() for p in control.model.parameters()]
        control.model.zero_grad()
        mean = control.model(*batch)
        mean.backward()
        assert losses.mean().item() == pytest.approx(mean.item(), abs=1e-6) and len(losses) == count
        for ours, p in zip(padded, control.model.parameters()):
            assert torch.allclose(ours, p.grad, atol=1e-6)
    assert shapes == {(3, 32)}


@pytest.mark.parametrize(
    'counts, largest, size',
    [
        ([16, 16], 100, 16),
        ([16, 16], 10, 8),
        ([7, 7], 5, 1),
        ([6, 7, 6, 5], 100, 7),
        ([6, 7, 6, 5], 4, 3),
        ([0, 1], 9, 1),
    ],
)
def test_the_size_of_a_pass_fits_the_steps(counts, largest, size):
    from train import pass_size

    assert pass_size(np.array(counts), largest) == size


def test_a_branch_needs_the_warm_up_of_its_trunk(workplace):
    wsd = ['--lr_schedule=wsd', '--warmup_fraction=0.1']
    finished(
        *wsd, '--max_steps=40', '--keep_checkpoints=[16]', '--out_dir=out/trunk', cwd=workplace
    )
    refused(
        train(*wsd, '--max_steps=20', '--init_from=out/trunk', '--out_dir=out/b', cwd=workplace),
        'another warm-up',
        'warmup_steps',
    )


def test_other_files_that_look_like_checkpoints_are_ignored(workplace):
    finished('--max_steps=6', '--out_dir=out/r', cwd=workplace)
    (workplace / 'out/r/checkpoint_best.pt').write_bytes(b'mine')
    assert list(checkpoint_paths(workplace / 'out/r')) == [6]
    done = script('evaluate', '--out_dir=out/r', '--device=cpu', '--max_windows=3', cwd=workplace)
    assert done.returncode == 0, done.stderr
