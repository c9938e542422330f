"""The report: one page that holds all it shows, says no more than the runs bear, and names the command for what is
missing."""
import base64
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import train
from conftest import REPO, refused, script
from test_fit_scaling import EN, FOUR, SMALL, write_mono, write_run

import figures as panels
import report
from configurator import ConfigError, read_settings
from figures import FIGURES, ratio_panels
from fit_scaling import analyse, load_paper_laws, load_runs
from fit_scaling import PowerLaw
from report import findings, mix_text, sentence

TINY = dict(n_layer=4, n_head=4, head_dim=32, n_embd=128, mlp_dim=512, block_size=128, vocab_size=2048)
DOCS = PowerLaw(0.00068, 0.36, 0.0208)
BOTH = dict(corpora=('books_en', 'books_fr'), languages=('en', 'fr'), vocabulary='anchored')


def write_demo(out):
    """What demo.py leaves: one language alone at four budgets and two clones at two ratios."""
    tiny = dict(model=TINY, batch_size=32, learning_rate=2e-3, min_learning_rate=2e-5)
    for steps in (5, 12, 25, 50):  # of 128 x 512 tokens, the steps of write_run
        write_run(out, f'demo_mono_{16 * steps}', [[1.0]],
                  lambda seen, _: DOCS.ppl(seen) * (1 + 0.002 * math.sin(seen)), corpora=['docs'],
                  languages=['en'], steps=steps, max_steps=16 * steps, ppl_se=1.0, **tiny)
    for name, stage, teff in (('demo_50_50', [0.5, 0.5], (0.9, 0.9)), ('demo_90_10', [0.9, 0.1], (1.0, 2.1))):
        write_run(out, name, [stage], lambda seen, i, teff=teff: DOCS.ppl(seen * teff[i]), corpora=['docs', 'docs'],
                  steps=50, max_steps=800, ppl_se=1.0, **tiny)


def write_paper_like(out):
    """A few runs for each figure, in the paper's setting."""
    french = load_paper_laws()['fr']
    write_mono(out, FOUR)
    write_mono(out, FOUR, corpus='books_fr', law=french)
    for times in (1, 2):
        for name, stage, teff in (('even', [0.5, 0.5], (0.9, 0.9)), ('uneven', [0.9, 0.1], (1.0, 1.0 + times))):
            write_run(out, f'{name}_{times}', [stage], lambda seen, i, teff=teff: EN.ppl(seen * teff[i]),
                      steps=times * 18265)
            write_run(out, f'fr_{name}_{times}', [stage], steps=times * 18265, **BOTH,
                      ppl=lambda seen, i, teff=teff: (EN, french)[i].ppl(seen * teff[i]))
    for name, stage in (('even', [0.5, 0.5]), ('uneven', [0.9, 0.1])):
        mini = SMALL | dict(n_layer=4, n_embd=512)
        write_run(out, f'mini_{name}', [stage], lambda seen, i: 40.0 + i, model=mini)
        write_run(out, f'fr_mini_{name}', [stage], lambda seen, i: 40.0 + i, model=mini, **BOTH)
    write_run(out, 'anchors', [[0.5, 0.5]], lambda seen, i: 24.0, cloned_fraction=0.9)
    write_run(out, 'ten', [[0.1] * 10], lambda seen, i: 35.0, corpora=['books_en'] * 10,
              languages=[f'en{i + 1}' for i in range(10)])
    write_run(out, 'forgotten', [[1.0, 0.0], [0.0, 1.0]], lambda seen, i: (9e10, 31.4)[i])
    for name, scores in (('even_1', (0.7, 0.53)), ('uneven_1', (0.71, 0.65))):
        languages = {f'en{i + 1}': dict(scores=[s], mean=s, interval=[s - 0.01, s + 0.01])
                     for i, s in enumerate(scores)}
        (out / name / 'finetune.json').write_text(json.dumps(dict(tasks=dict(
            cola=dict(metric='matthews', majority=0.69, languages=languages), half=dict(metric='accuracy')))))
    (out / 'fr_even_1' / 'finetune.json').write_text('{"tasks": ')
    panels.plt.imsave(out / 'uneven_1' / 'hidden_similarity.png', np.ones((2, 3, 3)))
    (out / 'torn').mkdir()
    (out / 'torn' / 'results.json').write_text('{"run": "to')


class Page(HTMLParser):
    """The page as a reader's program sees it: tags with attributes, tables, commands, text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.tables, self.commands, self.open, self.section = text, [], [], [], [], None
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


@pytest.fixture(scope='module', params=['demo', 'paper_like'])
def each(request):
    return request.getfixturevalue(request.param)


def test_the_page_needs_nothing_but_itself(each):
    _, _, page = each
    ids = {attributes.get('id') for _, attributes in page.tags}
    assert not {tag for tag, _ in page.tags} & {'script', 'link', 'iframe', 'object', 'base'}
    assert not re.search(r'https?:|@import|url\(', page.text)
    pictures = [attributes['src'] for tag, attributes in page.tags if tag == 'img']
    assert len(pictures) > 3 and all(tag == 'img' or 'src' not in attributes for tag, attributes in page.tags)
    for source in pictures:
        kind, _, data = source.partition(',')
        assert kind == 'data:image/png;base64' and base64.b64decode(data, validate=True).startswith(b'\x89PNG')
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
        assert '<table' in page.sections[f'table{number}'] and 'Takeaways' in page.sections[f'table{number}']


def test_a_full_set_of_runs_makes_every_figure_and_the_demo_makes_two(demo, paper_like):
    drawn = [{number for number in FIGURES if '<img' in page.sections[f'figure{number}']}
             for _, _, page in (demo, paper_like)]
    assert drawn == [{'1', '5'}, set(FIGURES)]
    assert 'No run yet for accuracy on GLUE' in demo[2].sections['figure1']
    assert 'No run yet' not in paper_like[2].sections['figure1'] + paper_like[2].sections['figure4']
    assert '<details gap>' in demo[2].sections['table3'] and '<details gap>' not in demo[2].sections['table1']


def test_the_finding_is_the_first_line_of_the_page_and_the_last_of_the_output(demo):
    _, done, page = demo
    finding = done.stdout.strip().splitlines()[-1]
    assert f'<p class="finding">{finding}</p>' in page.text
    assert finding.startswith('On docs (4 layers of 128, 3.28M tokens), EN2 at 90/10 has a token efficiency of 2.')
    assert 'above 1: EN1 helped; at 50/50 it is 0.9' in finding and 'so EN2 gains from the imbalance' in finding
    assert finding.endswith('The paper (GPT small, 1.2B tokens): 2.08 and 0.89.')


def test_the_finding_claims_no_more_than_the_intervals_bear():
    case = dict(label='docs', size='tiny', tokens=1e6, ratio='90/10', languages=[
        dict(language='en1'), dict(language='en2', ppl=50.0, tokens_seen=1e5)])

    def words(value, even):
        return sentence(case, value, even)
    sure, unsure = (2.0, 1.8, 2.2, False), (2.0, 0.7, 5.0, False)
    low = (0.9, 0.8, 0.95, False)
    assert 'above 1' in words(sure, low) and 'gains' in words(sure, low)
    assert 'not to be told from 1' in words(unsure, low) and 'intervals overlap' in words(unsure, low)
    assert 'below 1' in words(low, sure) and 'loses' in words(low, sure)
    for text in (words(sure, None), words((2.0, None, None, False), low), words(sure, (0.9, None, None, False))):
        assert 'gains' not in text and 'overlap' not in text
    assert 'above 1' not in words((2.0, None, None, False), low)
    assert 'extrapolated' in words((2.0, 1.8, 2.2, True), low)
    assert 'from 1.50 up' in words((math.inf, 1.5, math.inf, True), low) and 'inf ' not in words(
        (math.inf, 1.5, math.inf, True), low)
    assert 'token efficiency' not in words(None, low) and 'perplexity of 50.0' in words(None, low)


def test_two_runs_of_a_mix_count_with_the_wider_interval(tmp_path):
    write_demo(tmp_path)
    write_run(tmp_path, 'again', [[0.9, 0.1]], lambda seen, i: DOCS.ppl(seen), corpora=['docs', 'docs'],
              model=TINY, batch_size=32, learning_rate=2e-3, min_learning_rate=2e-5, steps=50, max_steps=800)
    runs = load_runs(tmp_path)
    laws, rows = analyse(runs)
    [finding] = findings(panels.cases_of(runs, laws, rows), panels.paper_cases())
    assert 'efficiency of 1.5' in finding and 'not to be told from 1' in finding


def test_the_numbers_of_the_tables_are_those_of_the_runs(paper_like):
    folder, _, page = paper_like
    runs = load_runs(folder / 'out')
    _, rows = analyse(runs)
    shown = {(cells[0], cells[1]): cells for cells in page.tables[0] if len(cells) == 7}
    assert len(rows) == len(shown) - 1
    for row in rows:
        cells = shown[row['run'], row['language']]
        assert cells[2] == f'{row["tokens_seen"]:,}'
        assert cells[3].startswith(f'{row["ppl"]:.2f} ± 0.10' if row['ppl'] < 1e6 else '> 1B')
        if row['teff'] is None:
            assert cells[5] == cells[6] == '—'
        elif math.isfinite(row['teff']):
            assert cells[6].startswith(f'{row["teff"]:.2f}')
    [table] = [table for table in page.tables if len(table) > 1 and 'PPLEN1' in table[1]]
    lines = {cells[0]: cells for cells in table}
    row = next(row for row in rows if (row['run'], row['language']) == ('uneven_1', 'en2'))
    assert lines['5'][1:6] == ['90/10, 1.2B', '22.5', '32.8', '1.00', '2.08']
    assert lines['5'][7] == f'{row["ppl"]:.1f} ± 0.1' and lines['5'][9].startswith('2.0')
    assert lines['8'][2] == '> 1B' and lines['8'][6] == '> 1B'
    assert lines['9'][6] == '— python train.py config/table1_row09.py'
    assert lines['11'][6] == '— python train.py config/table1_row09.py config/data_2x.py'
    assert lines['6'][6].startswith('35.0')


def test_runs_of_the_same_mix_in_another_model_stand_below_the_papers_row(demo):
    [table] = [table for table in demo[2].tables if len(table) > 1 and 'PPLEN1' in table[1]]
    at = next(i for i, cells in enumerate(table) if cells[0] == '5')
    assert table[at][6] == '— python train.py config/table1_row05.py'
    assert table[at + 1][1].endswith('another model: demo_90_10') and table[at + 1][-1].startswith('2.')
    assert not any('demo_mono' in cell for cells in table for cell in cells)


def test_the_mixes_of_the_tables_are_readable():
    rows = dict(kinds=['en'] * 10, stages=[[0.5] + [0.055556] * 9], steps=18265, vocabulary='disjoint')
    assert mix_text(rows) == '50%, nine of 5.6%, 1.2B'
    assert mix_text(rows | dict(stages=[[0.1] * 10])) == 'ten of 10%, 1.2B'
    rows |= dict(kinds=['en', 'fr'], stages=[[0.9, 0.1], [0.1, 0.9]])
    assert mix_text(rows) == '90/10, 10/90, 1.2B, disjoint'


def axes_of(monkeypatch, draw):
    """The axes that `draw` filled, which the figures would close."""
    kept = []
    monkeypatch.setattr(panels.plt, 'close', kept.append)
    draw()
    return [figure.axes[0] for figure in kept]


def hollow(axes):
    return [value for line in axes.lines if line.get_markerfacecolor() == 'white' for value in line.get_ydata()]


def test_the_papers_points_are_hollow_and_stand_only_where_the_axes_mean_the_same(tmp_path, monkeypatch):
    write_demo(tmp_path)
    runs = load_runs(tmp_path)
    laws, rows = analyse(runs)
    cases, published = panels.cases_of(runs, laws, rows), panels.paper_cases()
    ppl, teff, papers = axes_of(monkeypatch, lambda: ratio_panels(cases, published, 'clones'))
    assert [axes.get_ylabel().split()[0] for axes in (ppl, teff, papers)] == ['perplexity', 'token', 'perplexity']
    assert hollow(ppl) == []
    assert sorted(hollow(papers)) == pytest.approx([22.46, 23.95, 24.97, 26.13, 26.14, 27.63, 29.65, 32.81], abs=0.01)
    assert sorted(hollow(teff)) == pytest.approx([0.885, 0.887, 0.894, 0.894, 0.927, 0.936, 1.000, 2.076], abs=1e-3)
    ours = [line for line in teff.lines if line.get_marker() == 's' and line.get_markerfacecolor() != 'white']
    assert ours[0].get_ydata() == pytest.approx([2.1, 0.9], abs=0.05)  # of EN2, by its share


def test_a_hollow_marker_is_announced_where_it_is_drawn(paper_like):
    alts = [attributes['alt'] for tag, attributes in paper_like[2].tags if tag == 'img']
    marked = [alt for alt in alts if alt.endswith('hollow markers: the paper')]
    for words in ('GPT small, 1.2B tokens: perplexity', 'GPT small, 1.2B tokens: token', 'cola (the paper: of ten): accuracy',
                  'books_en, GPT small: perplexity', 'books_fr: perplexity',
                  'books_en: perplexity on the test set by model'):
        assert any(words in alt for alt in marked), (words, alts)


def test_an_interval_without_upper_end_is_drawn_as_an_arrow(monkeypatch):
    row = dict(ppl=20.0, ppl_se=0.1, teff=math.inf, teff_interval=(1.2, math.inf), largest_budget=1e9,
               tokens_seen=5e8)
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


def test_the_commands_of_the_gaps_are_accepted_by_the_scripts_they_name(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / 'out', 'a&b', [[1.0]], lambda seen, i: 50.0, corpora=['books_en'], languages=['en'])
    (tmp_path / 'out' / 'report').mkdir()
    (tmp_path / 'out' / 'report' / 'figure9.png').write_bytes(b'of other runs')
    printed, page = made_here(tmp_path, monkeypatch, capsys)
    assert 'nothing can be said about imbalance yet; python demo.py' in printed.strip().splitlines()[-1]
    assert 'a&amp;b' in page.text and 'a&b' not in page.text
    assert not (tmp_path / 'out' / 'report' / 'figure9.png').exists()

    texts = [text.removeprefix('— ') for text in page.commands if text.startswith(('python ', 'for ', '— python'))]
    assert len(texts) > 40
    echo = 'python() { printf "%s\\n" "$*"; }\n' + '\n'.join(texts).replace('CONFIG.py', 'config/eltec.py')
    done = subprocess.run(['bash', '-euc', echo], text=True, capture_output=True, check=True, cwd=tmp_path)
    lines = done.stdout.split('\n')
    monkeypatch.chdir(REPO)
    folders, defaults = {}, {name: getattr(train, name) for name in train.SETTINGS}
    for line in {line for line in lines if line.startswith('train.py')}:
        values, stems, _ = read_settings(REPO / 'train.py', defaults, line.split()[1:])
        folder = values['out_dir'] or 'out/' + '-'.join(stems)
        assert folders.setdefault(folder, values) == values, folder  # no two runs in a folder
    assert {'out/table1_row03', 'out/table3_row14-data_3x', 'out/clones_70', 'out/fr_disjoint_20', 'out/anchors_0.5',
            'out/table1_row05-size_medium-data_4x', 'out/mono_fr_54795'} <= set(folders)
    assert folders['out/fr_disjoint_20']['stages'] == [[0.2, 0.8]]
    others = {line.split()[0] for line in lines if line} - {'train.py'}
    assert others == {'fit_scaling.py', 'finetune.py', 'analyze.py', 'report.py'}


def test_a_damaged_file_is_named_and_stops_nothing(paper_like):
    _, done, page = paper_like
    assert 'torn/results.json' in done.stderr and 'Traceback' not in done.stderr
    assert 'Not readable, left out: torn.' in page.text
    assert 'torn' not in [cells[0] for cells in page.tables[0]] and 'ten' in [cells[0] for cells in page.tables[0]]


def test_pictures_of_studies_stand_under_the_name_of_their_run(paper_like):
    folder, _, page = paper_like
    inside = page.text[page.text.index('id="studies"'):]
    picture = base64.b64encode((folder / 'out' / 'uneven_1' / 'hidden_similarity.png').read_bytes()).decode()
    assert 0 < inside.index('<h3>uneven_1</h3>') < inside.index(picture)
    assert '<figcaption>hidden similarity</figcaption>' in inside and 'No run yet' not in inside


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
