"""The report: one page that holds all it shows, says no more than the runs bear, and names the
commands for what is missing."""

import base64
import functools
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

from lib.configurator import ConfigError, read_settings, run_name, settings_of

import numpy as np
import pytest
from conftest import REPO, refused, script
from test_fit_scaling import EN, FOUR, SIX, SMALL, write_mono, write_run

import analyze
import figures as panels
import report
from figures import FIGURES, mix_panels
from fit_scaling import PowerLaw, analyse, load_paper_laws, load_runs
from report import findings, read_commands, sentence

TINY = dict(
    n_layer=4, n_head=4, head_dim=32, n_embd=128, mlp_dim=512, block_size=128, vocab_size=2048
)
DOCS = PowerLaw(0.00068, 0.36, 0.0208)
STUDY = next(iter(analyze.STUDIES))
BOTH = dict(corpora=('books_en', 'books_fr'), languages=('en', 'fr'), vocabulary='anchored')


def write_demo(out):
    """What demo.py leaves: one language alone at four budgets and two clones at two ratios."""
    tiny = dict(model=TINY, batch_size=32, learning_rate=2e-3, min_learning_rate=2e-5)
    for steps in (5, 12, 25, 50):  # of 128 x 512 tokens, the steps of write_run
        write_run(
            out,
            f'demo_mono_{16 * steps}',
            [[1.0]],
            lambda seen, _: DOCS.ppl(seen) * (1 + 0.002 * math.sin(seen)),
            corpora=['docs'],
            languages=['en'],
            steps=steps,
            max_steps=16 * steps,
            ppl_se=1.0,
            **tiny,
        )
    for name, stage, teff in (
        ('demo_50_50', [0.5, 0.5], (0.9, 0.9)),
        ('demo_90_10', [0.9, 0.1], (1.0, 2.1)),
    ):
        write_run(
            out,
            name,
            [stage],
            lambda seen, i, teff=teff: DOCS.ppl(seen * teff[i]),
            corpora=['docs', 'docs'],
            steps=50,
            max_steps=800,
            ppl_se=1.0,
            **tiny,
        )


def write_controlled(out):
    """Two clones at two ratios, the control of EN2 at each, and a law of six budgets with noise. In
    truth steps alone are worth 1.5 at 90/10 and 1.0 at 50/50, and transfer is 1.6 and 1.0."""
    write_mono(out, SIX, noise=0.004)
    for name, stage, teff in (('even', [0.5, 0.5], (1.0, 1.0)), ('uneven', [0.9, 0.1], (1.0, 2.4))):
        write_run(out, name, [stage], lambda seen, i, teff=teff: EN.ppl(seen * teff[i]))
        write_run(
            out,
            f'{name}-only_en2',
            [stage],
            only='en2',
            ppl=lambda seen, i, stage=stage: EN.ppl(seen * (1.5 if stage[1] < 0.5 else 1.0)),
        )


def write_paper_like(out):
    """A few runs for each figure, in the paper's setting."""
    french = load_paper_laws()['fr']
    write_mono(out, FOUR)
    write_mono(out, FOUR, corpus='books_fr', law=french)
    for times in (1, 2):
        for name, stage, teff in (
            ('even', [0.5, 0.5], (0.9, 0.9)),
            ('uneven', [0.9, 0.1], (1.0, 1.0 + times)),
        ):
            write_run(
                out,
                f'{name}_{times}',
                [stage],
                lambda seen, i, teff=teff: EN.ppl(seen * teff[i]),
                steps=times * 18265,
            )
            write_run(
                out,
                f'fr_{name}_{times}',
                [stage],
                steps=times * 18265,
                **BOTH,
                ppl=lambda seen, i, teff=teff: (EN, french)[i].ppl(seen * teff[i]),
            )
    for name, stage in (('even', [0.5, 0.5]), ('uneven', [0.9, 0.1])):
        mini = SMALL | dict(n_layer=4, n_embd=512)
        write_run(out, f'mini_{name}', [stage], lambda seen, i: 40.0 + i, model=mini)
        write_run(out, f'fr_mini_{name}', [stage], lambda seen, i: 40.0 + i, model=mini, **BOTH)
    write_run(out, 'anchors', [[0.5, 0.5]], lambda seen, i: 24.0, cloned_fraction=0.9)
    write_run(
        out,
        'ten',
        [[0.1] * 10],
        lambda seen, i: 35.0,
        corpora=['books_en'] * 10,
        languages=[f'en{i + 1}' for i in range(10)],
    )
    write_run(out, 'forgotten', [[1.0, 0.0], [0.0, 1.0]], lambda seen, i: (9e10, 31.4)[i])
    for name, scores in (('even_1', (0.7, 0.53)), ('uneven_1', (0.71, 0.65))):
        languages = {
            f'en{i + 1}': dict(scores=[s], mean=s, interval=[s - 0.01, s + 0.01])
            for i, s in enumerate(scores)
        }
        (out / name / 'finetune.json').write_text(
            json.dumps(
                dict(
                    tasks=dict(
                        cola=dict(metric='matthews', majority=0.69, languages=languages),
                        half=dict(metric='accuracy'),
                    )
                )
            )
        )
    (out / 'fr_even_1' / 'finetune.json').write_text('{"tasks": ')
    panels.plt.imsave(out / 'uneven_1' / f'{STUDY}.png', np.ones((2, 3, 3)))
    (out / 'torn').mkdir()
    (out / 'torn' / 'results.json').write_text('{"run": "to')


class Page(HTMLParser):
    """The page as a reader's program sees it: tags with attributes, tables, commands, text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.tables, self.commands, self.open, self.section = (
            text,
            [],
            [],
            [],
            [],
            None,
        )
        self.sections = {}  # id of a heading: text of its tags and words up to the next heading
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.open.append(tag)
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')
        elif tag in ('pre', 'code'):
            self.commands.append('')
        if tag in ('h2', 'h3'):
            self.section = attributes.get('id') or 'other'
            self.sections.setdefault(self.section, '')
        elif self.section:
            self.sections[self.section] += f'<{tag} {attributes.get("class", "")}>'

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if {'td', 'th'} & set(self.open):
            self.tables[-1][-1][-1] += data
        if {'pre', 'code'} & set(self.open):
            self.commands[-1] += data
        if self.section:
            self.sections[self.section] += data


def page_of(folder):
    return Page((folder / 'out' / 'report' / 'report.html').read_text(encoding='utf-8'))


def made(folder):
    """The page of a folder as a user makes it: (CompletedProcess, Page)."""
    done = script('report', cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, page_of(folder)


def made_here(folder, monkeypatch, capsys):
    """The same without a new process: (what was printed, Page)."""
    monkeypatch.setattr(report, 'out', str(folder / 'out'))
    report.main()
    return capsys.readouterr().out, page_of(folder)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    write_demo(folder / 'out')
    return folder, *made(folder)


@pytest.fixture(scope='module')
def paper_like(tmp_path_factory):
    folder = tmp_path_factory.mktemp('paper')
    write_paper_like(folder / 'out')
    return folder, *made(folder)


@pytest.fixture(scope='module')
def controlled(tmp_path_factory):
    folder = tmp_path_factory.mktemp('controlled')
    write_controlled(folder / 'out')
    return folder, *made(folder)


@pytest.fixture(scope='module', params=['demo', 'paper_like', 'controlled'])
def each(request):
    return request.getfixturevalue(request.param)


def test_the_page_needs_nothing_but_itself(each):
    _, _, page = each
    ids = {attributes.get('id') for _, attributes in page.tags}
    assert not {tag for tag, _ in page.tags} & {'script', 'link', 'iframe', 'object', 'base'}
    assert not re.search(r'https?:|@import|url\(', page.text)
    pictures = [attributes['src'] for tag, attributes in page.tags if tag == 'img']
    assert len(pictures) > 3 and all(
        tag == 'img' or 'src' not in attributes for tag, attributes in page.tags
    )
    for source in pictures:
        kind, _, data = source.partition(',')
        assert kind == 'data:image/png;base64' and base64.b64decode(data, validate=True).startswith(
            b'\x89PNG'
        )
    for _, attributes in page.tags:
        assert attributes.get('href', '#runs').removeprefix('#') in ids


def test_every_figure_and_table_is_there_or_leaves_a_gap_with_its_commands(each):
    folder, _, page = each
    for number in FIGURES:
        section = page.sections[f'figure{number}']
        assert 'The paper, ' in section and ('Section' in section or 'Appendix' in section)
        assert 'python train.py config/' in section
        assert ('<img' in section) == (folder / 'out' / 'report' / f'figure{number}.png').exists()
        assert '<img' in section or '<div gap>No run yet' in section
    for number in '13':
        assert (
            '<table' in page.sections[f'table{number}']
            and 'Takeaways' in page.sections[f'table{number}']
        )


def test_a_full_set_of_runs_makes_every_figure_and_the_demo_makes_two(demo, paper_like):
    drawn = [
        {number for number in FIGURES if '<img' in page.sections[f'figure{number}']}
        for _, _, page in (demo, paper_like)
    ]
    assert drawn == [{'1', '5'}, set(FIGURES)]
    assert 'No run yet for accuracy on GLUE' in demo[2].sections['figure1']
    assert 'No run yet' not in paper_like[2].sections['figure1'] + paper_like[2].sections['figure4']
    assert (
        '<details gap>' in demo[2].sections['table3']
        and '<details gap>' not in demo[2].sections['table1']
    )


def test_the_finding_is_the_first_line_of_the_page_and_the_last_of_the_output(demo):
    _, done, page = demo
    finding = done.stdout.strip().splitlines()[-1]
    assert f'<p class="finding">{finding}</p>' in html.unescape(page.text)
    assert finding.startswith(
        'On docs, 4 layers of 128, 3.28M tokens, EN2 at 90/10 has a token efficiency (TEff) of 2.'
    )
    assert 'of unknown error; at 50/50 it is 0.9' in finding
    assert finding.endswith(
        "The paper's TEff (GPT small, 1.2B tokens, no controls): 2.08, and 0.89 at 50/50."
    )


def test_without_a_control_the_finding_says_that_teff_cannot_tell(demo, controlled):
    words = 'TEff alone cannot tell what EN1 did from what more steps did: there is no control'
    assert words in demo[1].stdout and 'helped' not in demo[1].stdout
    assert 'cannot tell' not in controlled[1].stdout


def test_with_controls_the_finding_speaks_of_transfer(controlled):
    finding = controlled[1].stdout.strip().splitlines()[-1]
    value, low, high = map(
        float,
        re.search(
            r'EN2 at 90/10 is worth (\S+) times \(90% interval (\S+) to (\S+)\) what the same '
            r'sequences are worth alone in as many steps: EN1 helped',
            finding,
        ).groups(),
    )
    assert 1 < low < value < high and value == pytest.approx(1.6, abs=0.05)
    even = [
        float(x)
        for x in re.search(
            r'At 50/50 the transfer is (\S+) \(90% interval (\S+) to (\S+)\)', finding
        ).groups()
    ]
    assert even[0] == pytest.approx(1, abs=0.05) and even[1] < 1 < even[2] < low
    assert 'so EN2 gains from the imbalance' in finding
    teff, steps = re.search(
        r'Its TEff is (\S+) .*of which the steps alone give (\S+) ', finding
    ).groups()
    assert (float(teff), float(steps)) == (
        pytest.approx(2.4, abs=0.1),
        pytest.approx(1.5, abs=0.05),
    )


NOTHING = dict(transfer=None, teff=None, control_teff=None, extrapolated=False)
EXAMPLE = dict(
    ratio='90/10',
    languages=[
        dict(language='en1'),
        dict(language='en2', ppl=50.0, tokens_seen=1e5, control='', control_ppl=None),
    ],
)


def test_a_finding_of_transfer_claims_no_more_than_its_intervals():
    def words(value, even):
        known = dict(teff=(2.0, 1.0, 3.0), control_teff=(1.5, 1.2, 1.8))
        figures = NOTHING | known | dict(transfer=value)
        return sentence('docs', EXAMPLE, figures, NOTHING | dict(transfer=even))

    sure, unsure, low = (2.0, 1.8, 2.2), (2.0, 0.7, 5.0), (0.9, 0.8, 0.95)
    assert 'EN1 helped' in words(sure, low) and 'gains from the imbalance' in words(sure, low)
    assert 'no effect of EN1 is shown' in words(unsure, low) and 'intervals overlap' in words(
        unsure, low
    )
    assert 'EN1 cost it tokens' in words(low, sure) and 'loses by' in words(low, sure)
    for text in (words(sure, None), words((2.0, None, None), low), words(sure, (0.9, None, None))):
        assert 'gains' not in text and 'overlap' not in text
    assert 'helped' not in words((2.0, None, None), low) and 'unknown error' in words(
        (2.0, None, None), low
    )
    assert 'from 1.50 up' in words((math.inf, 1.5, math.inf), low)
    assert 'inf ' not in words((math.inf, 1.5, math.inf), low)


def test_a_finding_of_teff_claims_nothing_of_the_other_language():
    def words(value, even, extrapolated=False):
        figures = NOTHING | dict(teff=value, extrapolated=extrapolated)
        return sentence('docs', EXAMPLE, figures, NOTHING | dict(teff=even))

    sure, unsure, low = (2.0, 1.8, 2.2), (2.0, 0.7, 5.0), (0.9, 0.8, 0.95)
    assert 'above 1' in words(sure, low) and 'below 1' in words(low, sure)
    assert 'not to be told from 1' in words(unsure, low) and 'intervals overlap' in words(
        unsure, low
    )
    assert 'overlap' not in words(sure, (0.9, None, None)) and 'above' not in words(
        (2.0, None, None), low
    )
    assert 'extrapolated' in words(sure, low, True)
    for text in (words(sure, low), words(low, sure), words(unsure, None)):
        assert 'cannot tell' in text and 'helped' not in text and 'gains' not in text
    nothing = sentence('docs', EXAMPLE, NOTHING, NOTHING)
    assert 'token efficiency' not in nothing and 'perplexity of 50.0' in nothing


def test_two_runs_of_a_mix_count_with_the_wider_interval(tmp_path):
    write_controlled(tmp_path)
    write_run(tmp_path, 'turned', [[0.1, 0.9]], lambda seen, i: EN.ppl(seen * (1.2, 1.0)[i]))
    runs = load_runs(tmp_path)
    laws, rows = analyse(runs)
    by_name = {(row['run'], row['language']): row for row in rows}
    both = [by_name['uneven', 'en2'], by_name['turned', 'en1']]
    figures = report.together(
        [case for case in panels.cases_of(runs, laws, rows) if case['ratio'] == '90/10']
    )
    assert figures['transfer'] is None  # one of the two has no control
    value, low, high = figures['teff']
    assert value == pytest.approx(sum(row['teff'] for row in both) / 2)
    assert (low, high) == (both[1]['teff_interval'][0], both[0]['teff_interval'][1])


def test_a_run_with_unusual_settings_is_no_plain_mix(tmp_path):
    write_controlled(tmp_path)
    write_run(
        tmp_path, 'shared', [[0.9, 0.1]], lambda seen, i: EN.ppl(seen * 9), cloned_fraction=0.5
    )
    write_run(tmp_path, 'orders', [[0.9, 0.1]], lambda seen, i: EN.ppl(seen * 9), orders=['x', 'y'])
    runs = load_runs(tmp_path)
    laws, rows = analyse(runs)
    cases = panels.cases_of(runs, laws, rows)
    assert 'uneven-only_en2' not in {case['run'] for case in cases}
    found = findings(cases)
    assert len(found) == 3 and 'is worth 1.6' in found[0]
    rest = ' '.join(found[1:])
    assert '50% of the pieces shared' in rest and "orders ['x', 'y']" in rest
    assert mix_panels(cases, 'clones', 'share')[1] == {'even', 'uneven'}


def test_the_numbers_of_the_tables_are_those_of_the_runs(paper_like):
    folder, _, page = paper_like
    runs = load_runs(folder / 'out')
    _, rows = analyse(runs)
    shown = {(cells[0], cells[1]): cells for cells in page.tables[0] if len(cells) == 10}
    assert len(rows) == len(shown) - 1
    for row in rows:
        cells = shown[row['run'], row['language']]
        assert cells[2] == f'{row["tokens_seen"]:,}'
        assert cells[3].startswith(f'{row["ppl"]:.2f} ± 0.10' if row['ppl'] < 1e6 else '> 1B')
        if row['teff'] is None:
            assert cells[5] == cells[6] == '—', cells
        elif math.isfinite(row['teff']):
            assert cells[6].startswith(f'{row["teff"]:.2f}')
    [table] = [table for table in page.tables if len(table) > 1 and 'PPLEN1' in table[1]]
    lines = {cells[0]: cells for cells in table}
    row = next(row for row in rows if (row['run'], row['language']) == ('uneven_1', 'en2'))
    assert lines['5'][1:6] == ['two clones, 90/10', '22.5', '32.8', '1.00', '2.08']
    assert lines['5'][7] == f'{row["ppl"]:.1f} ± 0.1' and lines['5'][9].startswith('2.0')
    assert lines['8'][2] == '> 1B' and lines['8'][6] == '> 1B'
    assert lines['9'][6] == '— python train.py config/clones_90_10_then_10_90.py'
    assert lines['11'][6] == '— python train.py config/clones_90_10_then_10_90.py config/data_2x.py'
    assert lines['6'][6].startswith('35.0')


def test_runs_of_the_same_mix_in_another_model_stand_below_the_papers_row(demo):
    [table] = [table for table in demo[2].tables if len(table) > 1 and 'PPLEN1' in table[1]]
    at = next(i for i, cells in enumerate(table) if cells[0] == '5')
    assert table[at][6] == '— python train.py config/clones_90_10.py'
    assert table[at + 1][1].endswith('another model: demo_90_10') and table[at + 1][5].startswith(
        '2.'
    )
    assert not any('demo_mono' in cell for cells in table for cell in cells)


def test_the_controls_and_the_transfer_stand_in_the_tables(controlled):
    folder, _, page = controlled
    _, rows = analyse(load_runs(folder / 'out'))
    [row] = [row for row in rows if (row['run'], row['language']) == ('uneven', 'en2')]
    [cells] = [cells for cells in page.tables[0] if cells[:2] == ['uneven', 'en2']]
    for cell, key in zip(cells[6:9], ('teff', 'control_teff', 'transfer')):
        low, high = row[f'{key}_interval']
        assert cell == f'{row[key]:.2f} [{low:.2f}, {high:.2f}]'
    assert cells[9] == '…-only_en2, rate 0.0006'
    assert not any(cells[0].endswith('only_en2') for cells in page.tables[0])
    [table] = [table for table in page.tables if len(table) > 1 and 'PPLEN1' in table[1]]
    [line] = [cells for cells in table if cells[0] == '5']
    assert table[1][6:] == [
        f'{what}{name}'
        for what in ('PPL', 'TEff', "control's TEff", 'transfer')
        for name in ('EN1', 'EN2')
    ]
    assert line[10] == line[12] == '—' and [line[9], line[11], line[13]] == cells[6:9]


def axes_of(monkeypatch, draw):
    """The axes that `draw` filled, which the figures would close."""
    kept = []
    monkeypatch.setattr(panels.plt, 'close', kept.append)
    draw()
    return [figure.axes[0] for figure in kept]


def hollow(axes):
    return [
        value
        for line in axes.lines
        if line.get_markerfacecolor() == 'white'
        for value in line.get_ydata()
    ]


def test_the_papers_points_are_hollow_and_stand_only_where_the_axes_mean_the_same(
    tmp_path, monkeypatch
):
    write_demo(tmp_path)
    runs = load_runs(tmp_path)
    laws, rows = analyse(runs)
    cases = panels.cases_of(runs, laws, rows)
    ppl, teff, papers = axes_of(monkeypatch, lambda: mix_panels(cases, 'clones', 'share'))
    assert [axes.get_ylabel().split()[0] for axes in (ppl, teff, papers)] == [
        'perplexity',
        'token',
        'perplexity',
    ]
    assert hollow(ppl) == []
    assert sorted(hollow(papers)) == pytest.approx(
        [22.46, 23.95, 24.97, 26.13, 26.14, 27.63, 29.65, 32.81], abs=0.01
    )
    assert sorted(hollow(teff)) == pytest.approx(
        [0.885, 0.887, 0.894, 0.894, 0.927, 0.936, 1.000, 2.076], abs=1e-3
    )
    ours = [
        line
        for line in teff.lines
        if line.get_marker() == 's' and line.get_markerfacecolor() != 'white'
    ]
    assert ours[0].get_ydata() == pytest.approx([2.1, 0.9], abs=0.05)  # of EN2, by its share


def test_figure_1_shows_the_controls_and_the_transfer(tmp_path, monkeypatch):
    write_controlled(tmp_path)
    runs = load_runs(tmp_path)
    laws, rows = analyse(runs)
    cases = panels.cases_of(runs, laws, rows)
    _, teff, transfer = axes_of(monkeypatch, lambda: mix_panels(cases, 'clones', 'share'))
    assert (teff.get_ylabel(), transfer.get_ylabel()) == ('token efficiency TEff', 'transfer')
    [controls] = [line for line in teff.lines if line.get_marker() == 'x']
    assert controls.get_ydata() == pytest.approx([1.5, 1.0], abs=0.05)
    assert "EN2's control" in teff.get_legend_handles_labels()[1]
    [points] = [line for line in transfer.lines if line.get_marker() == 's']
    assert points.get_ydata() == pytest.approx([1.6, 1.0], abs=0.05) and hollow(transfer) == []
    assert any(list(line.get_ydata()) == [1, 1] for line in transfer.lines)


def test_a_hollow_marker_is_announced_where_it_is_drawn(paper_like):
    alts = [attributes['alt'] for tag, attributes in paper_like[2].tags if tag == 'img']
    marked = [alt for alt in alts if alt.endswith('hollow markers: the paper')]
    for words in (
        'GPT small, 1.2B tokens: perplexity',
        'GPT small, 1.2B tokens: token',
        'cola (the paper: of ten): accuracy',
        'books_en, GPT small: perplexity',
        'books_fr: perplexity',
        'books_en, EN1: perplexity on the test set by tokens',
    ):
        assert any(words in alt for alt in marked), (words, alts)


def test_an_interval_without_upper_end_is_drawn_as_an_arrow(monkeypatch):
    row = dict(
        ppl=20.0,
        ppl_se=0.1,
        teff=math.inf,
        teff_interval=(1.2, math.inf),
        largest_budget=1e9,
        tokens_seen=5e8,
    )
    assert panels.measured(row, 'teff') == (2.0, 2.0, math.inf)
    assert panels.measured(row | dict(teff=None), 'teff') is None
    assert panels.measured(row | dict(ppl=1e80), 'ppl') is None

    def draw():
        with panels.panel([], 'arrow') as axes:
            line = panels.Line('EN1', [(1, 2.0, 2.0, math.inf), (2, 1.0, 0.9, 1.1)], 'C0', 'o', '-')
            panels.draw_lines(axes, [line], 'teff')

    [axes] = axes_of(monkeypatch, draw)
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == '^'] == [[1]]
    assert all(np.isfinite(axes.get_ylim()))


def test_the_gaps_have_the_commands_of_the_readme_of_the_configs(tmp_path, monkeypatch, capsys):
    write_run(
        tmp_path / 'out',
        'a&b',
        [[1.0]],
        lambda seen, i: 50.0,
        corpora=['books_en'],
        languages=['en'],
    )
    (tmp_path / 'out' / 'report').mkdir()
    (tmp_path / 'out' / 'report' / 'figure9.png').write_bytes(b'of other runs')
    printed, page = made_here(tmp_path, monkeypatch, capsys)
    assert (
        'nothing can be said about imbalance yet; python demo.py'
        in printed.strip().splitlines()[-1]
    )
    assert 'a&amp;b' in page.text and 'a&b' not in page.text
    assert not (tmp_path / 'out' / 'report' / 'figure9.png').exists()

    shown = '\n'.join(page.commands)
    commands = read_commands(REPO / 'config' / 'README.md')
    for figure in FIGURES.values():
        assert commands[figure.commands] in shown
    assert (
        commands['Laws'] in shown
        and commands['Figure 6'] in shown
        and commands['Table 3', '20'][1] in shown
    )
    assert len([key for key in commands if key[:1] == ('Table 1',)]) == 13


def commands_of(markdown):
    """The command lines of a markdown file as bash would give them to python: lists of words."""
    blocks = re.findall(r'(?:^    .+\n|^\n(?=    ))+', markdown, re.M) + re.findall(
        r'`([^`\n]+\.py[^`\n]*)`', markdown
    )
    printing = 'python() { printf "%s\\x1f" "$@"; echo; }; torchrun() { python "$@"; }; '
    printing += 'srun() { "$@"; }; PATH=\n'  # no program can run but these functions
    found = []
    for block in blocks:
        block = re.sub(
            r'^(?!\s*(python |for |done|torchrun |alone=|configs=|srun |")).*$',
            '',
            block,
            flags=re.M,
        )
        block = block.replace('${configs[$SLURM_ARRAY_TASK_ID]}', '$configs')
        done = subprocess.run(
            ['bash', '-c', printing + block], text=True, capture_output=True, cwd=REPO
        )
        assert not done.returncode and not done.stderr, (block, done.stderr)
        found += [
            line.rstrip('\x1f').split('\x1f') for line in done.stdout.splitlines() if '.py' in line
        ]
    return [words[[word.endswith('.py') for word in words].index(True) :] for words in found]


@pytest.mark.parametrize('name', ['README.md', 'config/README.md'])
def test_every_config_and_every_command_of_the_readmes_is_accepted_by_its_script(name, monkeypatch):
    markdown = (REPO / name).read_text(encoding='utf-8')
    for config in set(re.findall(r'config/\w+\.py', markdown)) - {'config/NAME.py'}:
        assert (REPO / config).exists(), config
    monkeypatch.chdir(REPO)
    folders, count = {}, 0
    for script_name, *arguments in commands_of(markdown):
        if script_name == 'SCRIPT.py' or {'config/NAME.py', '--help'} & set(arguments):
            continue
        path = REPO / script_name
        values, stems, overrides = read_settings(path, defaults_of(path), arguments)
        count += 1
        if script_name == 'train.py':
            folder = values['out_dir'] or 'out/' + run_name(stems, overrides)
            assert folders.setdefault(folder, values) == values, folder  # no two runs in a folder
    assert count > (100 if 'config' in name else 10)
    if 'config' in name:
        assert {
            'out/en_alone-max_steps_1826',
            'out/clones_90_10-only_en2',
            'out/fr_anchored_10_90',
            'out/clones_shared_pieces-cloned_fraction_0.5',
            'out/clones_90_10-size_medium-data_4x',
        } <= set(folders)


@functools.cache
def defaults_of(path):
    """{setting: value} of a script, read without importing it."""
    values, names = {}, settings_of(path)
    for line in path.read_text(encoding='utf-8').splitlines():
        if line.split(' = ')[0] in names:
            exec(line, values)
    return {name: values[name] for name in names}


def test_a_damaged_file_is_named_and_stops_nothing(paper_like):
    _, done, page = paper_like
    assert 'torn/results.json' in done.stderr and 'Traceback' not in done.stderr
    assert 'damaged files: torn.' in page.sections['runs']
    assert 'torn' not in [cells[0] for cells in page.tables[0]] and 'ten' in [
        cells[0] for cells in page.tables[0]
    ]


def test_pictures_of_studies_stand_under_the_name_of_their_run(paper_like):
    folder, _, page = paper_like
    inside = page.text[page.text.index('id="studies"') :]
    picture = base64.b64encode((folder / 'out' / 'uneven_1' / f'{STUDY}.png').read_bytes()).decode()
    assert 0 < inside.index('<h3>uneven_1</h3>') < inside.index(picture)
    assert f'<figcaption>{STUDY}</figcaption>' in inside and 'No run yet' not in inside


def test_runs_without_a_law_still_show_their_perplexity(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    write_demo(out)
    for folder in out.glob('demo_mono_*'):
        shutil.rmtree(folder)
    printed, page = made_here(tmp_path, monkeypatch, capsys)
    assert 'EN2 at 90/10 reaches a perplexity of' in printed and 'token efficiency' not in printed
    assert '<img' in page.sections['figure1'] and 'No run yet for some laws' in page.text


def test_a_folder_without_runs_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / 'out').mkdir()
    refused(script('report', cwd=tmp_path), 'no finished run in out/', 'demo.py')
    assert not (tmp_path / 'out' / 'report').exists()
    monkeypatch.setattr(report, 'out', str(tmp_path / 'nowhere'))
    with pytest.raises(ConfigError, match='no finished run in .*nowhere'):
        report.main()
