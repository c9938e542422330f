"""experiment.py and the lab: which runs are trained, in which order, and what survives a kill."""

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time

from lib.configurator import ConfigError, read_settings

import pytest
from conftest import REPO, TINY, environment, new_run, refused, script

import experiment
from experiment import Experiment, Queue, fitting
from lab import lab
from lib.commands import job, law, mix

SMALL = [*TINY, '--max_steps=60', '--final_windows=8', '--checkpoint_interval=5']
SMALL += ['--stages=[[0.75,0.25]]', '--min_learning_rate=1e-4']
THREE = '--languages=[en1,en2,fr]', '--corpora=[en,en,fr]', '--stages=[[0.4,0.3,0.3]]'
QUICK = ['--seeds=1', '--rates=[1.0]', '--epochs=[2]', '--budgets=6']


def planned(monkeypatch, *arguments, **settings):
    """The Experiment of some arguments of train.py, with settings of its own."""
    for name, value in settings.items():
        monkeypatch.setattr(experiment, name, value)
    base, *_ = read_settings(experiment.TRAIN, arguments)
    return Experiment(base, arguments, 'out/e')


def test_a_mixture_has_seeds_controls_and_a_law_around_its_tokens(monkeypatch):
    plan = planned(monkeypatch, *SMALL, seeds=2, rates=[1.0, 0.5], epochs=[2, 4], budgets=6)
    names = [one.name for one in plan.jobs]
    laws = [one for one in plan.jobs if one.name.startswith('law_en2_')]
    assert len(laws) == 6 and plan.asked == ['en2']
    rest = [name for name in names if 'law_' not in name]
    kinds = ['mix', 'mix-only_en2', 'mix-only_en2-x2', 'mix-only_en2-x4', 'mix-only_en2-rate_0.005']
    assert rest == kinds + [f'{name}-seed_1' for name in kinds]  # the most important first
    by_name = {one.name: one for one in plan.jobs}
    total = by_name['mix'].tokens
    assert by_name['mix-only_en2'].tokens == total / 4
    assert by_name['mix-only_en2-x4'].tokens == total  # at most the compute of the mixture
    assert by_name['mix-only_en2-x4'].steps == 60
    lengths = sorted(one.steps for one in laws)
    assert lengths[0] < 15 < 60 <= lengths[-1]  # EN2 has 15 steps of tokens
    trunk = next(one for one in laws if not one.needs)
    for one in laws:
        assert one is trunk or one.needs == trunk.name
        assert one is trunk or one.tokens < 0.3 * one.steps * total / 60


def test_a_series_shares_its_law_and_asks_for_every_rare_language(monkeypatch):
    plan = planned(monkeypatch, *SMALL, *THREE, ratios=['60_10_30', '20_20_60'], seeds=1)
    assert plan.asked == ['en1', 'en2', 'fr']
    assert plan.shares['60_10_30'] == pytest.approx(dict(en1=0.6, en2=0.1, fr=0.3))
    laws = {one.name.split('_')[1] for one in plan.jobs if one.name.startswith('law_')}
    assert laws == {'en1', 'fr'}  # en1 and en2 are clones
    assert min(one.steps for one in plan.jobs if one.name.startswith('law_en1_')) < 6  # as en2 has
    one = planned(monkeypatch, *SMALL, '--stages=[[0.5,0.5]]', ratios=[])
    assert one.asked == ['en2']


def test_a_language_has_the_re_reading_controls_that_its_own_share_allows(monkeypatch):
    for warmup, more in ((2, {'mix-only_fr-x2'}), (12, set())):  # it has twelve steps
        warm = [*SMALL, *THREE, '--stages=[[0.6,0.3,0.1]]', f'--warmup_steps={warmup}']
        plan = planned(monkeypatch, *warm, seeds=1, epochs=[2, 4])
        again = {one.name for one in plan.jobs if '-x' in one.name}
        assert again == {'mix-only_en2-x2', 'mix-only_fr-x4'} | more


def test_a_law_is_trained_from_scratch_where_the_mixture_is_not(monkeypatch):
    plan = planned(monkeypatch, *SMALL, '--train_only=en2', '--init_from=out/old', seeds=1)
    assert [one.needs for one in plan.jobs if 'law_' in one.name].count('') == 1  # the trunk


def test_a_language_that_some_mixtures_lack_is_asked_for_in_the_others(monkeypatch):
    plan = planned(monkeypatch, *SMALL, *THREE, ratios=['40_60_0', '50_0_50'], seeds=1)
    assert plan.asked == ['en1', 'fr']  # fr is the last of a balanced mixture
    controls = {one.name for one in plan.jobs if '-only_' in one.name and '-x' not in one.name}
    expected = {'40_60_0-only_en1', '50_0_50-only_en1', '50_0_50-only_fr'}
    assert {name.partition('-rate')[0] for name in controls} == expected


WRONG = [dict(ratios=[90]), dict(asked=['en2'], ratios=['1_0']), dict(at_once=-1)]
WRONG += [dict(asked=['de']), dict(rates=['a']), dict(only=['--only=en2'])]


@pytest.mark.parametrize('settings', WRONG)
def test_bad_ratios_and_languages_are_refused(monkeypatch, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        planned(monkeypatch, *SMALL, *settings.pop('only', ()), **settings)


def test_a_budget_of_hours_leaves_out_what_is_least_important(monkeypatch):
    jobs = planned(monkeypatch, *SMALL, seeds=2, budgets=6).jobs
    for hours in (1, 4, 8, 100):
        kept = fitting(jobs, lambda one: 1.0, hours)
        assert len(kept) == min(hours, len(jobs)) and kept[0].name == 'mix'
        assert all(not one.needs or one.needs in [k.name for k in kept] for one in kept)
    assert not any('-seed_' in one.name for one in fitting(jobs, lambda one: 1.0, 8))


def test_printed_commands_are_those_of_train_and_run_in_their_order(tmp_path):
    done = script('experiment', *SMALL, '--print=True', '--seeds=1', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = set()
    for line in done.stdout.splitlines():
        python, path, *arguments = shlex.split(line)
        chosen, *_ = read_settings(experiment.TRAIN, arguments)
        assert (python, path) == ('python', 'train.py') and chosen['lr_schedule'] == 'wsd'
        assert chosen['init_from'] in made | {''}
        made.add(chosen['out_dir'])
    assert len(made) > 12 and not list(tmp_path.iterdir())


def scores(folder):
    files = folder.glob('*/results.json')
    return {path.parent.name: json.loads(path.read_text())['languages'] for path in files}


def started(*args):
    """The process of experiment.py, for SMALL runs."""
    command = [sys.executable, str(REPO / 'experiment.py'), *SMALL, *args]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=environment(), **pipes)


def test_a_killed_experiment_resumes_to_the_same_answer(workplace):
    whole, error = started(*QUICK, '--out=out/whole').communicate(timeout=600)
    expected = scores(workplace / 'out/whole')
    assert len(expected) == 9 and 'gain over re-reading' in whole, error
    assert (workplace / 'out/whole/report/report.html').exists() and 'leaked' not in error
    for _ in range(3):
        process = started(*QUICK, '--out=out/killed')
        until = time.time() + random.Random().uniform(6, 15)
        while process.poll() is None and time.time() < until:
            time.sleep(0.1)
        process.kill()
        process.wait()
    again, error = started(*QUICK, '--out=out/killed').communicate(timeout=600)
    assert scores(workplace / 'out/killed') == expected, error
    tables = [re.findall('^mix +en.*', text, re.M) for text in (whole, again)]
    assert tables[0] == tables[1] != []
    edited = script('experiment', *SMALL, *QUICK, '--mlp_dim=40', '--out=out/killed')
    refused(edited, 'mlp_dim')


def test_samples_begin_with_test_text_of_each_language_that_the_mixture_saw(workplace, monkeypatch):
    known = dict(languages=['en1', 'en2', 'fr'], corpora=['en', 'en', 'fr'])
    languages = new_run(workplace, 'r', **known)
    scores = zip(languages, (100, 0, 50))
    scores = {lang.name: dict(corpus=lang.corpus.name, tokens_seen=n) for lang, n in scores}
    results = dict(languages=scores, settings=dict(data_dir='data'), model=dict(block_size=32))
    (workplace / 'out/r/results.json').write_text(json.dumps(results))
    experiment.write_samples(workplace / 'out', ['r', 'not_finished'])
    text = (workplace / 'out/r/samples.txt').read_text()
    found = re.findall(r'^(\w+), after "(.+)":\n(.+)', text, re.M)
    assert [name for name, *_ in found] == ['en1', 'fr']
    for (_, prompt, sample), language in zip(found, languages[::2]):
        corpus = language.corpus
        begin = corpus.load_tokenizer().decode(corpus.test[:50].tolist())
        assert sample.startswith(prompt) and ' '.join(begin.split()).startswith(prompt)


def test_a_run_that_fails_is_named_and_the_others_are_trained(workplace, monkeypatch, capsys):
    alone = [*TINY, '--lr_schedule=wsd', '--alone=en1', '--corpora=[nothing,en]']
    runs = law('bad', alone, (10, 20), 'out') | mix('good', [*SMALL, '--max_steps=10'], ())
    jobs, queue = [job(name, a, 'out') for name, a in runs.items()], Queue(1)
    try:
        failed = queue.train(jobs, lambda one: 1)
    finally:
        queue.stop()
    assert set(failed) == {'bad_20', 'bad_10'}
    assert [one.name for one in jobs if one.finished] == ['good']
    assert 'nothing' in capsys.readouterr().err


@pytest.mark.parametrize('signals', [[signal.SIGINT], [signal.SIGTERM] * 2])
def test_ctrl_c_answers_with_what_is_finished(workplace, signals):
    process = started('--out=out/e', '--seeds=1', '--checkpoint_interval=1000', '--max_steps=400')
    while not (workplace / 'out/e/mix/results.json').exists():
        assert process.poll() is None
        time.sleep(0.1)
    for number in signals:
        process.send_signal(number)
    text, error = process.communicate(timeout=300)
    assert 'report.html' in text and 'Traceback' not in error, error
    assert process.returncode == 130 and re.search('^mix +en', text, re.M)  # not the plan


def test_every_run_of_the_lab_is_one_that_train_accepts():
    table = {name: a for members in lab.table().values() for name, a in members.items()}
    assert len(table) == sum(map(len, lab.table().values())) > 200  # no name is used twice
    jobs = {name: lab.job(name, arguments) for name, arguments in table.items()}
    assert all(not one.needs or one.needs in jobs for one in jobs.values())
    for path in (REPO / 'results/lab').glob('*/results.json'):
        assert json.loads(path.read_text())['run'] == path.parent.name in jobs


def test_the_plan_of_the_lab_trains_nothing(tmp_path):
    done = script('lab.lab', '--plan=True', '--groups=[balance]', cwd=tmp_path)
    assert done.returncode == 0 and 'clones_90_10' in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
    refused(script('lab.lab', '--groups=[nothing]', cwd=tmp_path), 'groups')
