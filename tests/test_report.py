"""The report: every run and number on one page, and no word beyond the intervals."""

import base64
import copy
import html
import json
import math
import re
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from conftest import REPO, SMALL, in_process, refused, works, write_run

import fit_scaling
import report
from fit_scaling import load_scaling
from lab import charts
from lib import plots, runs
from lib.laws import PowerLaw
from lib.paper import load_paper_runs
from lib.rows import grouped, measured, named_groups, runs_of

EN = PowerLaw(0.0386839, 0.20725333, 0.08406525)
TINY = SMALL | dict(n_layer=4, n_head=4, n_embd=256)
ABOUT = dict(model=TINY, documents=[0.02, -0.01, 0.01, -0.03, 0.01])
AXES = {}  # of each figure that was saved, by its path
BOTH = dict(control=1.2, reread=1.8)


def novels(*names):
    return dict(languages=[*names], corpora=[f'novels_{name}' for name in names])


def times(*equivalent):
    """Function of (tokens, language number): the perplexity of so many times the tokens."""
    return lambda seen, i: float(EN.ppl(seen * equivalent[i]))


def write_law(folder, language='en1', corpus='books_en', count=7, **about):
    about = ABOUT | dict(corpora=[corpus], languages=[language]) | about
    for i, steps in enumerate((550, 1100, 1826, 3650, 7300, 9132, 18265)[:count]):
        ppl, name = times(1 + 0.02 * (-1) ** i), f'law_{language}_{steps}'
        write_run(folder, name, [[1.0]], ppl, max_steps=steps, **about)


def write_mixture(folder, name, share, equivalent, seeds=1, control=0, reread=0, **about):
    """A mixture with replicates, and the controls of its last language; 0: without that one. share:
    of the second language, or the stages."""
    stages = share if isinstance(share, list) else [[1 - share, share]]
    about = ABOUT | about
    last = about.get('languages', ['en1', 'en2'])[-1]
    for seed in range(seeds):
        end, about['seed'] = f'-seed_{seed}' if seed else '', seed
        write_run(folder, name + end, stages, times(*np.array(equivalent) + seed / 100), **about)
        for kind, value, epochs in (('', control, 0), ('-x4', reread, 4)):
            if value:
                only, ppl = f'{name}-only_{last}{kind}{end}', times(*[value + seed / 100] * 3)
                write_run(folder, only, stages, ppl, only=last, epochs=epochs, **about)


def parts_of(page, tag):
    return re.findall(rf'<{tag}\b.*?>(.*?)</{tag}>', page, re.S)


def plain(page):
    return html.unescape(re.sub(r'<style.*?</style>|<[^>]*>', '', page, flags=re.S))


def lines_of(page, head):
    """The lines of the tables with `head` in their first line, as lists of text."""
    tables = [parts_of(table, 'tr') for table in parts_of(page, 'table')]
    tables = [[parts_of(row, 't[dh]') for row in table] for table in tables]
    tables = [[[' '.join(plain(c).split()) for c in row] for row in table] for table in tables]
    return [row for table in tables if any(head in c for c in table[0]) for row in table]


def save(figure, path, **_):
    """Figure.savefig of these tests: keeps the axes; the file is a few white pixels."""
    AXES[path.resolve()] = figure.axes
    plots.plt.imsave(path, np.ones((2, len(AXES), 3)))


@pytest.fixture(autouse=True, scope='module')
def quick():
    with mock.patch.object(plots.plt.Figure, 'savefig', save):
        yield


def drawn(folder, kind):
    """The axes of the figures of a kind on the report of a folder."""
    start = str(folder.resolve() / 'report' / f'report-{kind}-')
    return [axes for path, (axes, *_) in AXES.items() if str(path).startswith(start)]


@pytest.fixture(scope='module')
def made(tmp_path_factory, quick):
    """A folder with its laws, rows and pages, and what report.py said; to be read only.

    Two clones at two ratios with everything, with unusual settings, by a schedule, and of GPT
    small, once in the paper's setting; pairs of three languages, and all; a pair without a law."""
    folder = tmp_path_factory.mktemp('report') / 'out'
    write_law(folder)
    write_law(folder, 'small', model=SMALL)
    write_mixture(folder, '90_10', 0.1, (1.0, 2.6), seeds=3, **BOTH)
    write_mixture(folder, '50_50', 0.5, (1.0, 1.2), seeds=3, control=1.2)
    write_mixture(folder, 'decay', 0.1, (1, 2), weight_decay=0.1)
    write_mixture(folder, 'a&b', 0.2, (1, 2), control=1.2, cloned_fraction=0.5)
    write_mixture(folder, 'two_stages', [[1, 0], [0.2, 0.8]], (1, 1.5))
    write_mixture(folder, 'row5', 0.1, (1, 2), control=1.2, model=SMALL)
    write_mixture(folder, 'row0', 0.15, (1, 2), model=SMALL)
    for equivalent, pair in enumerate((('hu', 'pl'), ('pl', 'pt'), ('pt', 'hu')), 1):
        write_law(folder, pair[0], f'novels_{pair[0]}')
        write_mixture(folder, '_'.join(pair), 0.2, (1, equivalent), **BOTH, **novels(*pair))
    write_mixture(folder, 'all', [[0.6, 0.2, 0.2]], (1, 1, 2), 1, 1.2, **novels('hu', 'pl', 'pt'))
    write_mixture(folder, 'cs_sk', 0.2, (1, 2), **BOTH, **novels('cs', 'sk'))
    scores = {f'en{i}': dict(mean=0.9 - 0.2 * i, interval=[0.88 - 0.2 * i, 0.92]) for i in (1, 2)}
    tasks = {name: dict(majority=0.5, languages=scores) for name in ('sst2', 'cola')}
    log = [dict(step=step, losses=dict(en2=7 - step / 10, en1=6.5)) for step in range(30)]
    log = '\n'.join(map(json.dumps, [*log, dict(step=29, perplexity=dict(en2=99.0))]))
    files = {'90_10/log.jsonl': log, '90_10-only_en2/log.jsonl': f'{log}\n{{"step": 40, "los'}
    files['90_10/finetune.json'] = json.dumps(dict(train_language='en1', tasks=tasks))
    foreign = dict(sst2=dict(majority=0.5, languages=dict(pl=scores['en1'])))  # PT has another text
    files['pl_pt/finetune.json'] = json.dumps(dict(train_language='pl', tasks=foreign))
    files |= {'50_50/finetune.json': '{"tasks": ', 'torn/results.json': '{"run": "to'}
    files |= {'90_10/samples.txt': 'The end of <it>\n----\n', 'report/report-share-77.png': 'old'}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    plots.plt.imsave(folder / '90_10' / 'hidden.png', np.ones((2, 100, 3)))
    said, (laws, rows) = works('report', cwd=folder.parent), load_scaling(folder)
    works('report', '--paper=True', cwd=folder.parent)
    page, paper = ((folder / f'report/{name}.html').read_text() for name in ('report', 'paper'))
    about = dict(folder=folder, laws=laws, rows=rows, share=drawn(folder, 'share'), said=said)
    return SimpleNamespace(**about, page=page, text=plain(page), paper=paper)


def row_of(rows, run, language='en2'):
    return next(row for row in rows if (row['run'], row['language']) == (run, language))


def points(axes, marker):
    found = (line.get_ydata() for line in axes.lines if line.get_marker() == marker)
    return list(filter(len, found))


def test_the_page_needs_nothing_but_itself_and_each_figure_is_a_file(made):
    for page in (made.page, made.paper):
        assert not re.search('<(script|link|iframe|object|base)|https?:|@import|url\\(', page)
        assert {*re.findall('href="#(.*?)"', page)} <= {*re.findall(' id="(.*?)"', page)}
    sources = re.findall('alt="[^"]+" [^>]*src="data:image/png;base64,(.*?)"', made.page)
    files = [*made.folder.glob('report/report-*.png'), made.folder / '90_10/hidden.png']
    data = {base64.b64encode(file.read_bytes()).decode() for file in files}  # no old ones
    assert set(sources) == data and len(data) == len(files) == len(sources) > 6


def test_every_run_and_every_number_of_a_row_is_on_the_page(made):
    _, *lines = lines_of(made.page, 'mlpe')
    shown = {(line[0], line[1]): line[2:] for line in lines}
    assert len(shown) == len(lines) == len(made.rows)
    for row in made.rows:
        seen, ppl, *cells = shown[row['run'], row['language']]
        assert seen == f'{row["tokens_seen"]:,.0f}' and row['note'] in made.text
        assert ppl == f'{row["ppl"]:.1f} ± {row["ppl_se"]:.2g}'
        assert {row['control'], row['reread_control']} <= {*cells}
        for key, cell in zip(fit_scaling.MEASURES, cells):
            assert bool(cell) == (row[key] is not None)
            if cell and key != 'mlte':
                numbers = [row[key], *(row[f'{key}_interval'] or ())]
                written = [float(number) for number in re.findall(r'-?\d+\.?\d*', cell)]
                assert written == pytest.approx(numbers, abs=0.051 if key == 'mlpe' else 0.0051)
    for path in made.folder.glob('*/results.json'):  # controls, seeds and damaged files, too
        assert path.parent.name in made.text
    budgets = [line[0].split('_')[2] for line in lines if 'law_en1' in line[0]]
    assert budgets == sorted(budgets, key=int) and len(budgets) == 7


def test_runs_that_differ_in_a_setting_that_nothing_names_are_kept_apart(made):
    mixes = [run for run in runs_of(made.rows) if not run.monolingual]
    groups = {run.name: g['title'] for g in named_groups(mixes, made.laws) for _, run in g['runs']}
    assert groups['decay'].endswith('weight_decay=0.1') and groups['decay'] in made.text
    for may_differ, _ in report.VIEWS.values():
        assert ['decay'] in [[run.name for run in group] for group in grouped(mixes, may_differ)]


def test_the_tables_have_names_settings_machines_and_reasons_and_samples_are_there(made):
    lines, row = lines_of(made.page, 'transfer'), row_of(made.rows, '90_10')
    heads = [line[0] for line in lines if len(line) == 1]
    for head in ('90/10 90_10, 3 seeds', '80/20 cloned_fraction=0.5 a&b', '100/0 then 20/80 two_'):
        assert any(text.startswith(f'en1/en2 {head}') for text in heads)
    cells = lines[lines.index(['en1/en2 90/10 90_10, 3 seeds']) + 2]
    ends = '[{:.2f}, {:.2f}]'.format(*row['transfer_interval'])
    assert cells[0] == 'en2' and f'{row["transfer"]:.2f} {ends}' in cells
    lines = {line[0]: line for line in lines_of(made.page, 'hours')[1:]}
    assert lines['90_10'][1:-1] == ['18,265', '3', '1.50', 'a machine', 'bfloat16', '0123456789']
    assert re.fullmatch(r'20\d\d-\d\d-\d\d', lines['90_10'][-1])
    assert 'n_embd=256' in made.text and lines.keys() == {row['run'] for row in made.rows}
    assert 'The end of <it>\n----\n' in made.text
    [law] = [line for line in lines_of(made.page, 'run noise') if 'novels_sk' in line[0]]
    assert 'at least 3 budgets' in law[-1]


def test_rows_of_a_file_make_the_page_of_the_rows_themselves(tmp_path, monkeypatch):
    write_law(tmp_path)
    write_run(tmp_path, 'far', [[0.9, 0.1]], lambda seen, i: (3.0, 40.0)[i], TINY)
    monkeypatch.setattr(report, 'draw_measure', lambda *about: None)
    scalings = fit_scaling.scale(tmp_path), load_scaling(tmp_path)
    pages = [report.write(tmp_path, *scaling).read_text() for scaling in scalings]
    assert pages[0] == pages[1] and row_of(scalings[1][1], 'far', 'en1')['teff'] is None
    limit = pytest.approx(1 / 0.9, rel=1e-3)  # the largest budget over the tokens seen
    assert measured(runs_of(scalings[1][1])[0].rows[0], 'teff') == (limit, limit, math.inf)
    assert '&gt; 1.11' in pages[0]


def test_monolingual_runs_alone_make_a_page_and_no_runs_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / 'nowhere'):
        refused(in_process('report', f'--out={folder}', cwd=tmp_path), folder)
    assert not (tmp_path / 'report').exists()
    write_law(tmp_path, count=2)
    page = report.write(tmp_path, *load_scaling(tmp_path)).read_text()
    assert 'law_en1_1100' in page and report.NO_MIXTURE in page


def about(rows, name):
    return next(text for text in report.findings(rows) if re.search(rf'[ (]{name}\)', text))


def test_the_findings_are_printed_the_first_being_the_head_of_the_page(made):
    path, *printed = made.said.stdout.splitlines()[-len(report.findings(made.rows)) - 1 :]
    assert path.endswith('out/report/report.html') and printed == report.findings(made.rows)
    assert f'<p class="finding">{printed[0]}</p>' in made.page
    assert all(text in made.text for text in printed)
    order = [re.search(r'(\S+)\): PPL', text)[1].lstrip('(') for text in printed]
    expected = ['90_10', '50_50', 'a&b', 'cs_sk', 'decay', 'two_stages']
    assert [name for name in order if name in expected] == expected and order[0] == '90_10'


def test_a_finding_has_the_numbers_of_its_row_and_the_commands_that_are_missing(made):
    row, text = row_of(made.rows, '90_10'), about(made.rows, '90_10')
    keys = 'transfer', 'transfer_nats', 'gain', 'gain_nats'
    numbers = [row['ppl'] / 10, *(n for key in keys for n in (row[key], *row[f'{key}_interval']))]
    assert text.startswith('en1 helps en2 at 90/10 (3 seeds of 90_10): PPL ')
    ppl, *written = [float(number) for number in re.findall(r'-?\d+\.\d+', text)]
    assert [ppl / 10, *written] == pytest.approx(numbers, abs=0.0051)
    row, text = row_of(made.rows, 'cs_sk', 'sk'), about(made.rows, 'cs_sk')  # without a law
    for key in ('ppl', 'control_ppl', 'reread_control_ppl'):
        assert f'PPL {row[key]:.1f}' in text
    assert f'{math.log(row["control_ppl"] / row["ppl"]):.3f} nats' in text
    assert 'helps' not in text and 'at least 3 budgets' in text
    assert 'TEff' in about(made.rows, 'two_stages')  # without a control
    missing = {'90_10': [], '50_50': [' --epochs=2'], 'a&b': [' --epochs=4']}
    for name, more in {**missing, 'two_stages': ['', ' --epochs=2']}.items():
        assert re.findall(r' CONFIG --only=en\d( --epochs=\d)?\b', about(made.rows, name)) == more


@pytest.mark.parametrize('name, nothing', [('transfer', 1), ('gain', 1), ('transfer_nats', 0)])
def test_a_finding_says_no_more_than_the_interval(made, name, nothing):
    rows, found = copy.deepcopy(made.rows), []
    row = row_of(rows, '90_10')
    for key in ('transfer', 'transfer_nats', 'gain', 'gain_nats'):
        row[f'{key}_interval'] = None
    words = 'helps|costs|no clear'
    assert not re.search(rf'\[|{words}', about(rows, '90_10'))
    for low, high in ((0.1, 1), (-1, -0.1), (-1, 1)):
        row[f'{name}_interval'] = nothing + low, nothing + high
        found += re.findall(words, about(rows, '90_10'))
    assert found == ['helps', 'costs', 'no clear'][: 2 if name == 'gain' else 3]


def test_three_languages_make_a_matrix(made):
    for key, label, digits in (('transfer', 'Transfer', 2), ('gain', 'Gain', 2), ('tau', 'tau', 3)):
        (_, *targets), *lines = lines_of(made.page, f'{label} from, to')
        cells = {(line[0], to): cell for line in lines for to, cell in zip(targets, line[1:])}
        for source, target in (('hu', 'pl'), ('pl', 'pt'), ('pt', 'hu')):
            row = row_of(made.rows, f'{source}_{target}', target)
            low, high = (f'{end:.{digits}f}' for end in row[f'{key}_interval'])
            assert cells[source, target] == f'20% {row[key]:.{digits}f} [{low}, {high}]'
            assert not cells[target, source]
        both = row_of(made.rows, 'all', 'pt')[key]
        assert key == 'gain' or f'20% {both:.{digits}f}' in cells['the rest of the mixture', 'pt']
    assert 'the rest of the mixture' in about(made.rows, 'all')


def test_two_languages_have_no_matrix_but_lines_by_tokens_and_size_from_three_places_on(tmp_path):
    for steps in (4000, 8000, 18265):
        write_mixture(tmp_path, f't{steps}', 0.1, (1, 2), control=1.2, max_steps=steps)
    write_mixture(tmp_path, 'big', 0.1, (1, 2), model=TINY | dict(n_layer=8))
    write_law(tmp_path)
    page = report.write(tmp_path, *load_scaling(tmp_path)).read_text()
    assert 'Transfer' in page and not lines_of(page, 'from, to') and 'the paper:' not in page
    tokens, size = drawn(tmp_path, 'tokens')[0], drawn(tmp_path, 'parameters')[0]
    [line] = [line for line in tokens.lines if line.get_marker() == 's']
    assert line.get_xdata() == pytest.approx(65536 * np.array([4000, 8000, 18265]), rel=1e-3)
    assert len(points(size, 's')[0]) == 2 and not drawn(tmp_path, 'shared')
    assert list(plots.legend_entries([size])) == ['90/10 en1', '90/10 en2']
    joined = [any(line.get_linestyle() == '-' for line in axes.lines) for axes in (tokens, size)]
    assert joined == [True, False]


def test_a_run_stands_beside_its_controls_and_a_law_ends_at_its_budgets(made):
    ppl, rows = made.share[0], [row_of(made.rows, name) for name in ('90_10', '50_50')]
    for marker, key in dict(s='ppl', x='control_ppl').items():
        assert points(ppl, marker)[0] == pytest.approx([row[key] for row in rows])
    assert points(ppl, '+')[0] == pytest.approx([rows[0]['reread_control_ppl']])
    [axes] = drawn(made.folder, 'training')  # the other mixtures have no log
    assert {'en1', 'en2', 'en2 control'} == set(plots.legend_entries([axes]))
    assert np.exp(points(axes, 'o')) == pytest.approx(np.full((2, 1), 99.0))
    for axes in drawn(made.folder, 'laws')[1:]:  # the first has two laws
        [law] = [law for law in made.laws if axes.figure.get_suptitle() in law['label']]
        ends = [end for line in axes.lines for end in line.get_xdata()]
        assert [min(ends), max(ends)] == pytest.approx([min(law['tokens']), max(law['tokens'])])
        assert axes.get_ylim()[1] < 1.5 * max(law['ppl'])


def test_a_bar_ends_in_the_picture_where_the_interval_has_an_end(made, tmp_path):
    rows = copy.deepcopy(made.rows)
    row_of(rows, '90_10').update(transfer=0.4, transfer_interval=(0.2, 1.5))
    row_of(rows, '90_10').update(gain=1.2, gain_interval=(0.9, math.inf))
    runs = [run for run in runs_of(rows) if run.name == '90_10']
    report.draw_view(report.Page(tmp_path, 'report'), runs, 'share')
    for axes, low, high in zip(drawn(tmp_path, 'share')[-2:], (0.2, 0.9), (1.5, None)):
        ends = np.concatenate([bar.get_segments() for bar in axes.collections])[..., 1]
        assert ends.min() == pytest.approx(low)
        assert ends.max() == pytest.approx(high) if high else ends.max() > axes.get_ylim()[1]


def test_accuracies_are_means_over_tasks_and_damaged_files_are_named(made):
    assert all(f'{name}.json' in made.said.stderr for name in ('50_50/finetune', 'torn/results'))
    assert 'pl_pt' not in made.said.stderr
    lines = lines_of(made.page, 'majority class')[1:]
    for line, mean, high in zip(lines, (0.7, 0.5), (0.22, 0.42)):
        ends = mean - 0.02 / 2**0.5, mean + high / 2**0.5  # of two tasks
        assert line[2:] == ['{:.3f} [{:.3f}, {:.3f}]'.format(mean, *ends), '0.500']
    axes, _ = drawn(made.folder, 'glue')
    assert [*points(axes, 'o'), *points(axes, 's')] == [[pytest.approx(0.7)], [pytest.approx(0.5)]]


def test_the_lab_draws_the_runs_that_are_there(tmp_path):
    write_law(tmp_path)
    for count, name in enumerate(('clones_90_10', 'past_90_10'), 1):
        write_mixture(tmp_path, name, 0.1, (1, 2.6), max_steps=18265 // count, **BOTH)
        laws, rows = fit_scaling.scale(tmp_path)
        charts.draw(runs.load_runs(tmp_path), rows, laws, laws, tmp_path)
        assert len(AXES[tmp_path / 'lab_tokens.png']) == count
    places = [tuple(line.get_xydata()[0]) for line in AXES[tmp_path / 'lab_tokens.png'][1].lines]
    row = row_of(rows, 'past_90_10')
    for key in ('ppl', 'control_ppl', 'reread_control_ppl'):
        assert (row['tokens_seen'], pytest.approx(row[key])) in places


def test_the_papers_numbers_stand_beside_runs_in_its_setting_alone(made):
    beside = [line for line in lines_of(made.page, 'the paper:') if any('Table' in c for c in line)]
    assert [line[0] for line in beside] == ['en1', 'en2']
    assert '32.8, 2.08 Table 1 row 5' in beside[1]
    lines = [line for axes in made.share for line in axes.lines]
    hollow = [y for line in lines if line.get_mfc() == 'white' for y in line.get_ydata()]
    assert hollow == pytest.approx([22.46, 32.81, 1.0, 2.076], abs=0.01)


def test_the_papers_page_has_all_rows_of_its_tables_and_the_readmes_commands(made):
    lines, readme = lines_of(made.paper, 'the paper:'), (REPO / 'config/README.md').read_text()
    for run in (run for run in load_paper_runs() if run.table in '13'):
        number, command = run.number, run.command
        heads = [line[0] for line in lines if len(line) == 1 and line[0].startswith(f'{number}: ')]
        assert any(head.endswith(command) for head in heads), run.name
        section = readme.partition(f'\n## Table {run.table}\n')[2].partition('\n## ')[0]
        assert re.search(rf'^\| {number} \| .* \| `{re.escape(command)}` \|$', section, re.M)
        for row in run.rows:
            ppl = f'{row["paper_ppl"]:.1f}' if row['paper_ppl'] < 1e6 else '> 1B'
            shown = [row['language'], ppl, f'{row["paper_teff"]:.2f}']
            assert any(line[:3] == shown for line in lines)
    [place] = [i for i, line in enumerate(lines) if 'ours: row5' in line[0]]
    assert lines[place + 2][0] == 'en2' and all(lines[place + 2][:7])
    assert all((made.folder / f'report/paper-figure{i}-1.png').exists() for i in range(1, 6))
    blocks = [plain(block).splitlines() for block in parts_of(made.paper, 'pre')]
    assert len(blocks) == 7  # of Figures 1 to 5, 8, and 9 and 10 together
    assert all('\n'.join(f'    {line}' for line in block) in readme for block in blocks)
