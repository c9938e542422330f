"""The report: what the runs of out/ say, beside what the paper says, on one page.

    python report.py            # out/report/report.html, and each figure as out/report/figureN.png

The page holds its pictures itself, so that it can be sent as it is. What has not been run leaves a
gap with the commands of config/README.md that fill it. The last line printed is the finding that
the page begins with.
"""

import base64
import math
import re
from pathlib import Path

from lib.configurator import ConfigError
from lib.configurator import run as run_script

import numpy as np
from jinja2 import Environment

from figures import ALL_BUT_RATIO, FIGURES, cases_of, draw, grouped, mixes, standard, stitch
from fit_scaling import analyse, cell, describe, short
from lib.paper import load_paper_runs
from lib.runs import load_runs

out = 'out'  # folder of the runs; the page goes to its folder report/
law_schedule = ''  # measure all runs by the laws of this lr_schedule; empty: each by its own


# --- the finding ----------------------------------------------------------------------------------

NOTHING = (
    'There is no run of two languages at unequal shares: nothing can be said about imbalance yet; '
    'python demo.py makes the smallest set that can.'
)
RATIOS = ('teff', 'control_teff', 'transfer')


def findings(cases):
    """A sentence for each group of runs of two languages at unequal shares: plain mixes first, then
    those with controls, then those of most runs."""
    told = []
    for title, members in grouped(mixes(cases, 'clones', 'pair'), ALL_BUT_RATIO):
        unequal = [case for case in members if 0 < case['share'] < 0.5]
        if unequal:
            case = min(unequal, key=lambda c: (c['ratio'] != '90/10', c['share'], c['turned']))
            ratios = case['ratio'], '50/50'
            figures = [together([c for c in members if c['ratio'] == ratio]) for ratio in ratios]
            told.append((title, case, *figures))
    told.sort(key=lambda item: (item[1]['special'], item[2]['transfer'] is None))
    texts = [sentence(*about) + '.' for about in told]
    return [texts[0] + of_the_paper(told[0][1]), *texts[1:]] if told else [NOTHING]


def together(cases):
    """{name: (value, low, high)} of the second language's transfer, TEff and control's TEff: of
    several runs the mean and the widest interval; what is not known is None."""
    rows = [case['languages'][1] for case in cases]
    figures = dict(extrapolated=any(row['extrapolated'] for row in rows))
    for key in RATIOS:
        values, ends = [row[key] for row in rows], [row[f'{key}_interval'] for row in rows]
        known = rows and not any(value is None or math.isnan(value) for value in values)
        low = min(low for low, _ in ends) if known and all(ends) else None
        high = max(high for _, high in ends) if known and all(ends) else None
        figures[key] = (sum(values) / len(values), low, high) if known else None
    return figures


def say(figure, extrapolated=False, times=''):
    """2.03 (90% interval 1.85 to 2.24)"""
    value, low, high = figure
    text, about = f'{value:.2f}{times}' if math.isfinite(value) else 'beyond the law', []
    if low is not None and math.isfinite(low):
        upper = f'{low:.2f} to {high:.2f}' if math.isfinite(high) else f'from {low:.2f} up'
        about.append(f'90% interval {upper}')
    about += ['extrapolated'] if extrapolated else []
    return text + (f' ({", ".join(about)})' if about else '')


def compared(figure, other, above, below, neither, unknown):
    """The text that the intervals of two figures allow."""
    (_, low, high), (_, other_low, other_high) = figure, other
    if low is None or other_low is None:
        return unknown
    return above if low > other_high else below if high < other_low else neither


ONE, UNKNOWN = (1, 1, 1), ', of unknown error'  # a figure is 1 where nothing happened
OVERLAP = ', and the intervals overlap: these runs do not tell the two apart', ''


def sentence(title, case, figures, even):
    """The finding in words, of the second language of a case. figures, even: of `together`, at the
    case's ratio and at 50/50."""
    row, far, even_far = case['languages'][1], figures['extrapolated'], even['extrapolated']
    other, name = (language['language'].upper() for language in case['languages'])
    start = f'On {title}, {name} at {case["ratio"]}'
    if figures['transfer']:
        said = f': {other} helped', f': {other} cost it tokens', f': no effect of {other} is shown'
        text = (
            f'{start} is worth {say(figures["transfer"], far, " times")} what the same sequences '
            'are worth alone in as many steps' + compared(figures['transfer'], ONE, *said, UNKNOWN)
        )
        text += f'. Its TEff is {say(figures["teff"])}, of which the steps alone give '
        text += say(figures['control_teff'])
        if not even['transfer']:
            return text + '. There is no transfer at 50/50 to compare it with'
        said = f', so {name} gains from the imbalance', f', so {name} loses by the imbalance'
        verdict = compared(figures['transfer'], even['transfer'], *said, *OVERLAP)
        return f'{text}. At 50/50 the transfer is {say(even["transfer"], even_far)}{verdict}'
    if figures['teff']:
        said = ', above 1', ', below 1', ', not to be told from 1', UNKNOWN
        text = f'{start} has a token efficiency (TEff) of {say(figures["teff"], far)}'
        text += compared(figures['teff'], ONE, *said)
        if even['teff']:
            verdict = compared(figures['teff'], even['teff'], '', '', *OVERLAP)
            text += f'; at 50/50 it is {say(even["teff"], even_far)}{verdict}'
        return (
            f'{text}. TEff alone cannot tell what {other} did from what more steps did: there is '
            f'no control (--only={row["language"]})'
        )
    control = f', its control {row["control_ppl"]:.1f}' if row['control'] else ''
    return (
        f'{start} reaches a perplexity of {row["ppl"]:.1f} after {short(row["tokens_seen"])} tokens'
        f'{control}; what that is worth, only a law of three budgets of one language can say'
    )


def of_the_paper(case):
    """The paper's TEff at the ratio of a case and at 50/50, as a sentence."""
    teff = {p['ratio']: p['languages'][1]['teff'] for p in standard(case)}
    if not (case['languages'][1]['teff'] and {case['ratio'], '50/50'} <= teff.keys()):
        return ''
    numbers = f'{teff[case["ratio"]]:.2f}, and {teff["50/50"]:.2f} at 50/50'
    return f" The paper's TEff (GPT small, 1.2B tokens, no controls): {numbers}."


# --- tables ---------------------------------------------------------------------------------------


def ppl_text(row, digits=1):
    ppl, error = row['ppl'], row.get('ppl_se')
    if ppl >= 1e6:
        return '> 1M' if ppl < 1e9 else '> 1B'
    return f'{ppl:,.{digits}f}' + (f' ± {error:.{digits}f}' if error else '')


def figure_text(row, key):
    """A figure with its interval; * where the law is extrapolated."""
    if row['monolingual'] and key in ('control_teff', 'transfer'):
        return ''
    text = cell(row, key).replace('inf]', '∞]')
    return '—' if text == '-' else text + '*' * (key == 'teff' and row['extrapolated'])


def all_runs(rows, cases):
    """{text and model: its lines}, short runs first."""
    about, groups = {case['run']: case for case in cases}, {}
    for row in sorted(rows, key=lambda row: about[row['run']]['tokens']):
        case, control = about[row['run']], ''
        if row['control']:
            control = row['control'].replace(row['run'], '…', 1)
            control += f', rate {row["control_learning_rate"]:g}'
        language = row['language'] + (f', {row["seeds"]} seeds' if row['seeds'] > 1 else '')
        cells = [figure_text(row, key) for key in ('mlpe', 'mlte', *RATIOS)]
        line = [row['run'], language, f'{row["tokens_seen"]:,.0f}', ppl_text(row, 2), *cells]
        groups.setdefault(f'{case["label"]}, {case["size"]}', []).append([*line, control])
    return dict(sorted(groups.items()))


TABLES = {  # number: (title, what the paper says, names of the two columns)
    '1': (
        'clones of English',
        'Sections 4.1 to 4.5, Takeaways 1, 3 and 5: equal parts cost tokens (row 4), the rarer of '
        'two is cheap (row 5), ten clones profit, more with a main language (rows 6 and 7), and a '
        'mix that is unequal at each time only can beat equal parts in both (rows 9 to 13).',
        ('EN1', 'EN2'),
    ),
    '3': (
        'English and French',
        'Sections 5.1 to 5.4, Takeaways 6 and 8: the rarer real language gains less, more with '
        'shared pieces (rows 7 to 13); no schedule was found that helps both (10, 14 to 20).',
        ('EN', 'FR'),
    ),
}


def paper_table(number, cases):
    """The lines of one of the paper's tables: dicts of row, mix, paper (4 cells), and ours (8
    cells), a command where there is no run of ours, or the name of a run of the same mix in another
    model, which stands below the first row of that mix."""
    lines, named = [], {c['run']: c['languages'][0]['paper_rows'].split(', ') for c in cases}
    others = [c for c in cases if named[c['run']] == [''] and not c['size'].startswith('GPT')]
    for published in load_paper_runs():
        if published['table'] != number:
            continue
        row, second = published['name'].split()[-1], published['kinds'] == ['fr']
        theirs = two_columns(published['languages'], second, lambda p: f'{p["teff"]:.2f}')
        mix, command = COMMANDS[f'Table {number}', row]
        line = dict(row=row, mix=mix, paper=theirs)
        exact = [case for case in cases if published['name'] in named[case['run']]]
        for case in exact:
            lines.append(line | dict(ours=our_cells(case, second)))
        if not exact:
            lines.append(line | dict(command=command))
        for case in [case for case in others if same_mix(case, published)]:
            lines.append(dict(name=case['run'], ours=our_cells(case, second)))
            others.remove(case)
    return lines


def our_cells(case, second):
    ratios = [lambda row, key=key: figure_text(row, key) for key in RATIOS]
    return two_columns(case['languages'], second, *ratios)


def two_columns(languages, second, *write):
    """Cells of perplexity and of each of `write` for two languages, or for one in the second
    column; of ten clones the second stands for all nine."""
    pair = [*([None] if second else []), *languages[:2], None][:2]
    return [text(row) if row else '' for text in (ppl_text, *write) for row in pair]


def same_mix(case, published):
    """Whether a run mixes as many clones, or two languages, in the stages of a published row."""
    stages = np.transpose([row['shares'] for row in case['languages']])
    same = case['vocabulary'] == published['vocabulary'] and not case['special']
    same = same and (case['kind'] == 'pair') == (len(set(published['kinds'])) > 1)
    same = same and stages.shape == np.shape(published['stages'])
    return same and np.allclose(stages, published['stages'], atol=1e-4)


# --- the page -------------------------------------------------------------------------------------


def read_commands(path):
    """{heading: the first block of commands below it, (heading, row): (mix, command) of a table's
    row} of config/README.md."""
    commands = {}
    for section in re.split(r'^## ', path.read_text(encoding='utf-8'), flags=re.M)[1:]:
        heading = section.splitlines()[0]
        block = re.search(r'(^    .*\n)+', section, re.M)
        commands[heading] = re.sub('^    ', '', block[0], flags=re.M) if block else ''
        for row, *about in re.findall(r'^\| (\d+) \| (.+) \| `(.+)` \|$', section, re.M):
            commands[heading, row] = about
    return commands


COMMANDS = read_commands(Path(__file__).resolve().parent / 'config' / 'README.md')
SECTIONS = {
    'Cloned languages': ('Figure 1', 'Table 1', 'Figure 2'),
    'Real languages': ('Table 3', 'Figure 3', 'Figure 4'),
    'Laws, anchor points, scale': ('Figure 5', 'Figure 8', 'Figure 9', 'Figure 10'),
}

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Language imbalance</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 972px; margin: 0 auto; padding: 0 14px; }
.finding { border-left: 5px solid #0072B2; background: #eef5fa; padding: 12px 16px; }
.note, small, .gap, figcaption { color: #555; font-size: .88em; } td small { display: block; }
.gap { border: 1px dashed #aaa; padding: 8px 14px; } nav a { margin-right: .6em; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 10px; }
img { width: 100%; max-width: 560px; border: 1px solid #ddd; } figure { margin: 0; }
.scroll, pre { overflow-x: auto; } pre { background: #f5f5f5; padding: 8px 10px; }
table { border-collapse: collapse; font-size: .82em; line-height: 1.35; } code { font-size: .9em; }
th, td { padding: 3px 6px; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; } td.paper { color: #777; } td[colspan] { background: #f5f5f5; }
.name, th:nth-child(-n+2) { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; }
</style></head><body>
{% macro cells(texts, name='') %}{% for text in texts %}
{% set parts = text.partition(' [' if ' [' in text else ' ±') %}
<td class="{{ name }}">{{ parts[0] }}{% if parts[1] %} <small>{{ parts[1][1] }}{{ parts[2] -}}
</small>{% endif %}</td>{% endfor %}{% endmacro %}
{% macro gap(what, heading) %}<div class="gap">No run yet{% if what %} for {{ what }}{% endif %}.
The commands:<pre>{{ commands[heading] }}</pre></div>{% endmacro %}
{% macro picture(png, alt) %}<img alt="{{ alt }}" src="data:image/png;base64,{{ png|b64 }}">
{%- endmacro %}

<h1>Language imbalance: our runs beside the paper</h1>
<p class="finding">{{ findings[0] }}</p>
{% if findings[1:] %}<details class="note"><summary>More groups of runs</summary>
<ul>{% for text in findings[1:] %}<li>{{ text }}</li>{% endfor %}</ul></details>{% endif %}
<p class="note">The tokens of a language in a mix are worth as many tokens (MLTE) as a run on this
language alone needs for the same perplexity; MLPE is the perplexity of such a run on the tokens
seen, TEff is MLTE over the tokens seen. The mix has more steps than that run, and more steps
help, too: a control has the same sequences of the language at the same steps, without the other
languages. Transfer is the MLTE of the run over that of its control: above 1 the others helped.
Brackets and bars are 90% intervals. Perplexities compare only on the same text and tokens.</p>
<nav><a href="#runs">All runs</a>{% for names in sections.values() %}{% for name in names %}
<a href="#{{ name|replace(' ', '')|lower }}">{{ name }}</a>{% endfor %}{% endfor %}
<a href="#studies">Inside the models</a></nav>

<h2 id="runs">All runs</h2>
<details{{ ' open' if rows|length <= 60 }}><summary>The table of all runs</summary>
<div class="scroll"><table><tr>{% for head in ('run', 'language', 'tokens seen', 'PPL ± s.e.',
'MLPE', 'MLTE', 'TEff', "control's TEff", 'transfer', 'control') %}<th>{{ head }}</th>{% endfor %}
</tr>
{% for group, lines in all_runs.items() %}<tr><td class="name" colspan="10">{{ group }}</td></tr>
{% for line in lines %}<tr>{{ cells(line[:2], 'name') }}{{ cells(line[2:9]) }}
{{- cells(line[9:], 'name') }}</tr>{% endfor %}{% endfor %}</table></div></details>
<p class="note">± is one standard error. The TEff of a run on one language is 1 by definition; its
MLTE shows how far the law is from it. * marks tokens seen or an MLTE outside the budgets of the
law. {% for note in notes %}{{ note[0]|upper }}{{ note[1:] }}. {% endfor %}
{% if rowless %}Without a row, as copies, further seeds or damaged files: {{ rowless|join(', ') }}.
{% endif %}</p>
<h3>Their laws</h3>
<ul class="note">{% for entry in laws %}<li>{{ entry.label }}:
{{ describe(entry.law) if entry.law else 'no law: ' + entry.problem }}.</li>{% endfor %}</ul>
{% if laws|rejectattr('law')|list %}{{ gap('some laws', 'Laws') }}{% endif %}

{% for title, names in sections.items() %}<h2>{{ title }}</h2>
{% for name in names %}{% set shown = parts[name] %}
<h3 id="{{ name|replace(' ', '')|lower }}">{{ name }}: {{ shown.title }}</h3>
<p>The paper, {{ shown.claim }}</p>
{% if name.startswith('Figure') %}
{% if shown.panels %}<div class="panels">
{% for panel in shown.panels %}{{ picture(panel.png, panel.alt) }}{% endfor %}</div>
<p class="note">Ours: {{ shown.drawn|join(', ') }}. As a file: {{ shown.file }}</p>{% endif %}
{% if shown.missing %}{{ gap(shown.missing|select|join(' and '), shown.commands) }}{% else %}
<details class="note"><summary>The commands in the paper's setting</summary>
<pre>{{ commands[shown.commands] }}</pre></details>{% endif %}
{% else %}{% set filled = shown.lines|selectattr('ours')|list %}
{% if not filled %}<details class="gap"><summary>No run yet of any row. The rows and their
commands</summary>{% endif %}
<div class="scroll"><table><tr><th colspan="2"></th><th colspan="4">the paper</th>
<th colspan="8">ours</th></tr><tr><th>row</th><th>training data</th>
{% for what in ('PPL', 'TEff', 'PPL', 'TEff', "control's TEff", 'transfer') %}
{% for name in shown.names %}<th>{{ what }}<br>{{ name }}</th>{% endfor %}{% endfor %}</tr>
{% for line in shown.lines %}<tr>{% if line.name %}<td></td>
<td class="name" colspan="5">the same mix in another model: {{ line.name }}</td>
{%- else %}{{ cells([line.row, line.mix], 'name') }}{{ cells(line.paper, 'paper') }}{% endif %}
{% if line.command %}<td class="name" colspan="8">— <code>{{ line.command }}</code></td>
{%- else %}{{ cells(line.ours) }}{% endif %}</tr>
{% endfor %}</table></div>{% if not filled %}</details>{% endif %}{% endif %}
{% endfor %}{% endfor %}

<h2 id="studies">Inside the models</h2>
<p>The paper, Sections 4.2 and 5.2, Appendices C, F and G (Figures 6, 7, 11 to 14, Tables 2 and 4):
unequal clones are represented more alike, and so are their gradients; for English and French no
such effect was found.</p>
{% for run, pictures in studies.items() %}<h3>{{ run }}</h3><div class="panels">
{% for name, png in pictures %}<figure>{{ picture(png, name) }}<figcaption>{{ name }}</figcaption>
</figure>{% endfor %}</div>{% else %}{{ gap('', 'Figure 6') }}{% endfor %}
</body></html>
"""


def page(root, folder, runs):
    """The page as text, and the finding that it begins with; writes the figures into `folder`."""
    laws, rows = analyse(runs, law_schedule)
    cases = cases_of(runs, laws, rows)
    parts, studies, found = {}, {}, findings(cases)
    for number, figure in FIGURES.items():
        made = {name: draw(part, cases, laws, root) for name, part in figure.parts.items()}
        panels = [panel for drawn, _ in made.values() for panel in drawn]
        file = folder / f'figure{number}.png'
        if panels:
            file.write_bytes(stitch(panels))
        drawn = sorted(set().union(*(names for _, names in made.values())))
        missing = [name for name, (_, names) in made.items() if not names]
        about = dict(panels=panels, file=file.name, drawn=drawn, missing=missing)
        parts[f'Figure {number}'] = figure._asdict() | about
    for number, (title, claim, names) in TABLES.items():
        about = dict(title=title, claim=claim, names=names)
        parts[f'Table {number}'] = about | dict(lines=paper_table(number, cases))
    for path in sorted(root.glob('*/*.png')):
        if path.parent != folder:
            studies.setdefault(path.parent.name, []).append((path.stem, path.read_bytes()))
    results = {path.parent.name for path in root.glob('*/results.json')}
    notes = dict.fromkeys(row['note'] for row in rows if not row['monolingual'] and row['note'])
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters['b64'] = lambda png: base64.b64encode(png).decode()
    environment.globals |= dict(commands=COMMANDS, sections=SECTIONS, describe=describe)
    about = dict(
        findings=found, notes=notes, rowless=sorted(results - {run['run'] for run in runs})
    )
    about |= dict(rows=rows, all_runs=all_runs(rows, cases), laws=laws.values())
    text = environment.from_string(PAGE).render(about, parts=parts, studies=studies)
    return text, found[0]


def main():
    root = Path(out)
    runs = load_runs(root)
    if not runs:
        raise ConfigError(
            f'there is no finished run in {out}/ to report on (no {out}/RUN/results.json); '
            "python demo.py makes a small set, config/README.md has the paper's"
        )
    folder = root / 'report'
    folder.mkdir(exist_ok=True)
    for old in folder.glob('figure*.png'):
        old.unlink()
    text, finding = page(root, folder, runs)
    (folder / 'report.html').write_text(text, encoding='utf-8')
    print(f'wrote {folder}/report.html')
    print(finding)


if __name__ == '__main__':
    run_script(globals(), main)
