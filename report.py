"""The report: what the runs of out/ say, beside what the paper says, on one page.

    python report.py            # out/report/report.html, and each figure as out/report/figureN.png

The page holds its pictures itself, so that it can be sent as it is. What has not been run leaves a gap with the
commands that fill it. The last line printed is the finding that the page begins with.
"""
import base64
import html
import math
from pathlib import Path

import numpy as np

from configurator import ConfigError, run
from figures import (FIGURES, MONOLINGUAL, STUDIES, TABLES, anchor_panels, combination_panels, glue_panels,
                     law_panels, ratio_panels, row_command, scale_panels)
from fit_scaling import analyse, describe, load_paper_runs, load_runs, paper_rows, trained, with_interval
from figures import cases_of, law_groups, mixes, paper_cases, stitch
from fit_scaling import UNIT, short

out = 'out'  # folder of the runs; the page goes to its folder report/
law_schedule = ''  # measure all runs by the laws of this lr_schedule, cosine or wsd; empty: each by those of its own


# --- the finding ----------------------------------------------------------------------------------------------------

def findings(cases, published):
    """A sentence for each group of runs of two languages at unequal shares, the most telling first; each compares
    the second language at 90/10 (or else the most unequal ratio) with 50/50 and claims no more than the 90% intervals
    bear."""
    groups = {}
    for case in mixes(cases, 'clones') + mixes(cases, 'pair'):
        groups.setdefault((law_groups(case), short(case['tokens'])), []).append(case)
    told = []
    for members in groups.values():
        unequal = [case for case in members if 0 < case['share'] < 0.5]
        if not unequal:
            continue
        first = min(unequal, key=lambda case: (case['ratio'] != '90/10', case['share'], case['turned']))
        value = pooled([case for case in unequal if case['ratio'] == first['ratio']])
        even = pooled([case for case in members if case['ratio'] == '50/50'])
        theirs = {p['ratio']: p['languages'][1]['teff'] for p in mixes(published, first['kind'])
                  if p['tokens'] == UNIT and p['vocabulary'] == first['vocabulary']}
        rank = (value is not None, even is not None, first['kind'] == 'clones', bool(value) and not value[3],
                first['paper_size'] == 'small' and first['tokens'] == UNIT, first['parameters'] * first['tokens'])
        paper = (f'. The paper (GPT small, 1.2B tokens): {theirs[first["ratio"]]:.2f} and {theirs["50/50"]:.2f}'
                 if value and theirs.keys() >= {first['ratio'], '50/50'} else '')
        told.append((rank, sentence(first, value, even), paper))
    told.sort(key=lambda item: item[0], reverse=True)
    return [text + paper * (i == 0) for i, (_, text, paper) in enumerate(told)]


def pooled(cases):
    """(TEff, low, high, extrapolated) of the second language; of several runs the mean and the widest interval. None
    where a TEff is missing; low and high are None without an interval."""
    rows = [case['languages'][1] for case in cases]
    if not rows or any(row['teff'] is None for row in rows):
        return None
    ends = [row['teff_interval'] for row in rows]
    low, high = (min(end[0] for end in ends), max(end[1] for end in ends)) if all(ends) else (None, None)
    return sum(row['teff'] for row in rows) / len(rows), low, high, any(row['extrapolated'] for row in rows)


def say(teff, low, high, extrapolated):
    """2.03 (90% interval 1.85 to 2.24)"""
    number = f'{teff:.2f}' if math.isfinite(teff) else 'beyond the reach of the law'
    about = [] if low is None or math.isinf(low) else [
        f'90% interval from {low:.2f} up' if math.isinf(high) else f'90% interval {low:.2f} to {high:.2f}']
    about += ['extrapolated'] * extrapolated
    return number + (f' ({", ".join(about)})' if about else '')


def sentence(case, value, even):
    """The finding in words; `value` is the pooled figure of the case's ratio, `even` that of 50/50."""
    row, ratio = case['languages'][1], case['ratio']
    name, other = (language['language'].upper() for language in reversed(case['languages']))
    text = f'On {case["label"]} ({case["size"]}, {short(case["tokens"])} tokens), {name} at {ratio} '
    if value is None:
        return text + (f'reaches a perplexity of {row["ppl"]:.1f} after {short(row["tokens_seen"])} tokens; what '
                       'that is worth, only a law of monolingual runs of at least three budgets can say')
    text, low, high = f'{text}has a token efficiency of {say(*value)}', value[1], value[2]
    if low is None:
        text += ', of unknown error'
    else:
        text += (f', above 1: {other} helped' if low > 1 else f', below 1: {other} cost it tokens' if high < 1 else
                 ', not to be told from 1')
    if even is None:
        text += '; there is no TEff at 50/50 to compare it with'
    else:
        text += f'; at 50/50 it is {say(*even)}'
        if low is not None and even[1] is not None:
            text += (f', so {name} gains from the imbalance' if low > even[2] else
                     f', so {name} loses by the imbalance' if high < even[1] else
                     ', and the intervals overlap: these runs do not tell the two apart')
    return text


# --- cells and pictures ---------------------------------------------------------------------------------------------

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 972px; margin: 0 auto; padding: 0 14px 60px; }
h1 { font-size: 1.5em; line-height: 1.25; margin: 1em 0 .6em; }
h2 { margin: 1.8em 0 .2em; } h3 { margin: 1.6em 0 .3em; } p { margin: .5em 0; }
.finding { border-left: 5px solid #0072B2; background: #eef5fa; padding: 12px 16px; font-size: 1.12em; }
.note, .ours { color: #555; font-size: .88em; }
nav { font-size: .9em; } nav a { margin-right: .6em; white-space: nowrap; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 10px; }
.study { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 10px; }
.panels img, .study img { width: 100%; height: auto; border: 1px solid #e4e4e4; } .panels img { max-width: 560px; }
figure { margin: 0; } figcaption { font-size: .85em; color: #555; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .82em; line-height: 1.35; }
th, td { padding: 3px 8px; text-align: right; white-space: nowrap; vertical-align: top; }
td { border-bottom: 1px solid #e4e4e4; } th { border-bottom: 1px solid #999; vertical-align: bottom; }
th:first-child, .left, .name { text-align: left; } th.centre { text-align: center; }
.name { white-space: normal; overflow-wrap: anywhere; min-width: 120px; max-width: 240px; }
td.paper { color: #777; } tr.head td { background: #f5f5f5; }
code, pre { font: 12.5px/1.45 ui-monospace, monospace; }
td code { font-size: 11.5px; white-space: normal; } td code span { white-space: nowrap; }
pre { background: #f5f5f5; padding: 8px 10px; overflow-x: auto; margin: 6px 0; }
.gap { border: 1px dashed #aaa; padding: 8px 14px; margin: 10px 0; color: #555; } summary { cursor: pointer; }
"""


def escape(text):
    return html.escape(str(text))


def picture(png, alt):
    """An img element that holds the PNG itself."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def ppl_text(value, digits=1):
    if value >= 1e6:
        return '> 1M' if value < 1e9 else '> 1B'
    return f'{value:.{digits}f}' if value < 1e4 else f'{value:,.0f}'


def ppl_cell(row, digits=1):
    known = 0 < row['ppl_se'] and row['ppl'] < 1e6
    return escape(ppl_text(row['ppl'], digits) + (f' ± {row["ppl_se"]:.{digits}f}' if known else ''))


def token_cell(row, what):
    """MLTE or TEff with its interval and marks; beyond the law's reach it is above that of the largest budget."""
    def write(value):
        if math.isinf(value):
            limit = row['largest_budget']
            return '> ' + (short(limit) if what == 'mlte' else f'{limit / row["tokens_seen"]:.2f}')
        return short(value) if what == 'mlte' else f'{value:.2f}'
    if row[what] is None:
        return '—'
    text = with_interval(row[what], row[f'{what}_interval'], write).replace('inf]', '∞]')
    if what == 'teff' and not row['monolingual']:
        text += '*' * row['extrapolated'] + '†' * row['unknown_noise']
    return escape(text)


def gap(parts):
    """A box for what has not been run; parts: (what, commands)."""
    what, lines = ' and '.join(part for part, _ in parts if part), []
    for _, commands in parts:  # the parts of a figure share runs
        lines += [line for line in commands.split('\n') if not (line.startswith('python') and line in lines)]
    text = escape('\n'.join(lines))
    return f'<div class="gap">No run yet{" for " * bool(what)}{what}. The commands:<pre>{text}</pre></div>'


# --- tables ---------------------------------------------------------------------------------------------------------

def runs_table(rows, cases):
    """All runs, those together that share text and model, short ones first."""
    about = {case['run']: (f'{case["label"]}, {case["size"]}', case['tokens']) for case in cases}
    lines = ['<tr><th>run</th><th class="left">language</th><th>tokens seen</th><th>PPL ± s.e.</th>'
             '<th>MLPE [90%]</th><th>MLTE [90%]</th><th>TEff [90%]</th></tr>']
    previous = None
    for row in sorted(rows, key=lambda row: about.get(row['run'], ('others', 0))):
        group, _ = about.get(row['run'], ('others', 0))
        if group != previous:
            lines.append(f'<tr class="head"><td class="left" colspan="7">{escape(group)}</td></tr>')
        previous = group
        mlpe = '—' if row['mlpe'] is None else with_interval(row['mlpe'], row['mlpe_interval'], ppl_text)
        lines.append(f'<tr><td class="name">{escape(row["run"])}</td><td class="left">{escape(row["language"])}</td>'
                     f'<td>{row["tokens_seen"]:,.0f}</td><td>{ppl_cell(row, 2)}</td><td>{escape(mlpe)}</td>'
                     f'<td>{token_cell(row, "mlte")}</td><td>{token_cell(row, "teff")}</td></tr>')
    legend = ['Brackets are 90% intervals, ± one standard error. The TEff of a monolingual run is 1 by definition; '
              'its MLTE shows how far the law is from it.']
    if any(row['extrapolated'] for row in rows):
        legend.append('* the tokens seen or the MLTE lie outside the budgets that the law was fitted to.')
    if any(row['unknown_noise'] for row in rows):
        legend.append('† a law of three budgets has no residuals: only the error of the perplexity is counted.')
    table = f'<div class="scroll"><table>{"".join(lines)}</table></div>'
    if len(lines) > 60:
        count = len({row['run'] for row in rows})
        table = f'<details><summary>The table of all {count} runs</summary>{table}</details>'
    return f'{table}<p class="note">{" ".join(legend)}</p>'


def mix_text(published):
    """The training data of a published row in words."""
    tokens = short(published['steps'] * 128 * 512)
    if len(published['kinds']) == 1:
        return f'{published["kinds"][0].upper()} alone, {tokens}'
    if len(published['kinds']) > 2:
        main, rest = (100 * share for share in published['stages'][0][:2])
        return f'ten of 10%, {tokens}' if main == rest else f'{main:g}%, nine of {rest:.1f}%, {tokens}'
    stages = ', '.join('/'.join(f'{100 * p:g}' for p in stage) for stage in published['stages'])
    return f'{stages}, {tokens}' + (f', {published["vocabulary"]}' if len(set(published['kinds'])) > 1 else '')


def paper_table(number, runs, rows, cases):
    """One of the paper's tables with ours beside it, and how many of its rows have a run of ours. Runs of the same
    mix in models that are none of the paper's stand below the first row of that mix."""
    named = {one['run']: [p['name'] for p in paper_rows(one)] for one in runs}
    of_run = {one['run']: [row for row in rows if row['run'] == one['run'] and row['language'] in trained(one)]
              for one in runs}
    heads = ''.join(f'<th>{what}<br>{name}</th>' for what in ('PPL', 'TEff')
                    for name in (('EN1', 'EN2') if number == '1' else ('EN', 'FR')))
    lines = ['<tr><th colspan="2"></th><th class="centre" colspan="4">the paper</th>'
             '<th class="centre" colspan="4">ours</th></tr>'
             f'<tr><th>row</th><th class="left">training data, tokens</th>{heads}{heads}</tr>']
    others = [case for case in cases if not named[case['run']] and not case['paper_size']]
    taken, filled = set(), 0
    for published in load_paper_runs():
        if published['table'] != number:
            continue
        row = int(published['name'].split()[-1])
        second = published['kinds'] == ['fr']  # the only language stands in the second column
        start = (f'<tr><td class="left">{row}</td><td class="left">{mix_text(published)}</td>'
                 + figure_cells(published['languages'], second, paper=True))
        exact = [one['run'] for one in runs if published['name'] in named[one['run']]]
        lines += [f'{start}{figure_cells(of_run[name], second)}</tr>' for name in exact] or [
            f'{start}<td class="left" colspan="4">— {command_cell(row_command(number, row))}</td></tr>']
        akin = [case for case in others if case['run'] not in taken and same_mix(case, published)]
        lines += [f'<tr><td></td><td class="name" colspan="5"><span class="ours">the same mix in another model: '
                  f'{escape(case["run"])}</span></td>{figure_cells(case["languages"], second)}</tr>' for case in akin]
        taken |= {case['run'] for case in akin}
        filled += bool(exact or akin)
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>', filled


def command_cell(command):
    """A command that breaks between its words only."""
    return f'<code>{" ".join(f"<span>{escape(word)}</span>" for word in command.split())}</code>'


def figure_cells(languages, second, paper=False):
    """Four cells: PPL and TEff of two languages; of ten clones the second stands for all nine."""
    cells = []
    for what in ('ppl', 'teff'):
        for index in (-1, 0) if second else (0, 1):
            text = ''
            if 0 <= index < len(languages):
                row = languages[index]
                text = (escape(ppl_text(row['ppl'])) if what == 'ppl' else f'{row["teff"]:.2f}') if paper else (
                    ppl_cell(row) if what == 'ppl' else token_cell(row, 'teff'))
            cells.append(f'<td{" class=paper" * paper}>{text}</td>')
    return ''.join(cells)


def same_mix(case, published):
    """Whether a run mixes as many clones, or two real languages, in the same stages as a published row."""
    shares, kinds = [row['shares'] for row in case['languages']], published['kinds']
    texts = {row['corpus'] for row in case['languages']}
    return (len(kinds) > 1 and (len(shares), len(texts)) == (len(kinds), len(set(kinds))) and not case['anchors']
            and case['vocabulary'] == published['vocabulary'] and len(shares[0]) == len(published['stages'])
            and bool(np.allclose(np.transpose(shares), published['stages'], atol=1e-4)))


# --- the page -------------------------------------------------------------------------------------------------------

def figure_html(number, parts, folder):
    """A figure: its panels, what the paper says, the runs drawn and the commands; a gap for what has no run.

    parts: (panels, names of the runs drawn), one for each part that FIGURES has."""
    title, claim, made_by = FIGURES[number]
    panels = [one for part, _ in parts for one in part]
    text = [f'<h3 id="figure{number}">Figure {number}: {title}</h3><p>The paper, {claim}</p>']
    if panels:
        (folder / f'figure{number}.png').write_bytes(stitch(panels))
        names = sorted(set().union(*(drawn for _, drawn in parts)))
        listed = ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')
        made = '\n'.join(lines for (drawn, _), (_, lines) in zip(parts, made_by) if drawn)
        text.append(f'<div class="panels">{"".join(picture(one.png, one.alt) for one in panels)}</div>'
                    f'<p class="ours">Ours: {escape(listed)}. As a file: figure{number}.png</p>'
                    '<details class="ours"><summary>the commands of the paper\'s setting</summary>'
                    f'<pre>{escape(made)}\npython report.py</pre></details>')
    missing = [part for (drawn, _), part in zip(parts, made_by) if not drawn]
    return ''.join(text) + (gap(missing) if missing else '')


def table_html(number, runs, rows, cases):
    """One of the paper's tables; folded while none of its rows has a run."""
    title, claim = TABLES[number]
    table, filled = paper_table(number, runs, rows, cases)
    if not filled:
        table = ('<details class="gap"><summary>No run yet of any row. The rows and their commands</summary>'
                 f'{table}</details>')
    return f'<h3 id="table{number}">Table {number}: {title}</h3><p>The paper, {claim}</p>{table}'


def laws_html(laws):
    lines = ''.join(f'<li>{escape(entry["label"])}: '
                    f'{escape(describe(entry["law"]) if entry["law"] else "no law: " + entry["problem"])}.</li>'
                    for entry in laws.values())
    missing = not all(entry['law'] for entry in laws.values())
    return f'<h3>Their laws</h3><ul class="note">{lines}</ul>' + (
        gap([('some laws; three budgets make one', MONOLINGUAL)]) if missing else '')


def studies_html(root):
    """The pictures that analyze.py left in the folders of the runs, a heading for each run."""
    folders = {}
    for path in sorted(root.glob('*/*.png')):
        if path.parent.name != 'report':
            folders.setdefault(path.parent.name, []).append(path)
    text = ['<h2 id="studies">Inside the models</h2><p>The paper, Sections 4.2 and 5.2, Appendices C, F and G '
            '(Figures 6, 7, 11 to 14, Tables 2 and 4): unequal clones are represented more alike, and so are their '
            'gradients; for English and French no such effect was found.</p>']
    for name, paths in folders.items():
        shown = ''.join(f'<figure>{picture(path.read_bytes(), path.stem)}<figcaption>'
                        f'{escape(path.stem.replace("_", " "))}</figcaption></figure>' for path in paths)
        text.append(f'<h3>{escape(name)}</h3><div class="study">{shown}</div>')
    return ''.join(text) + ('' if folders else gap([('', STUDIES)]))


READING = """A language's tokens in a multilingual run are worth as many tokens as a monolingual run needs for the
same perplexity (MLTE). TEff is MLTE over the tokens seen: above 1 the other languages helped. MLPE is the perplexity
of a monolingual run on the tokens seen. In the pictures filled markers are ours, with 90% intervals, and hollow ones
the paper's. Perplexities compare only on the same text in the same tokens; TEff is a ratio and compares further."""
SECTIONS = {'Cloned languages': ('Figure 1', 'Table 1', 'Figure 2'),
            'Real languages': ('Table 3', 'Figure 3', 'Figure 4'),
            'Laws, anchor points, scale': ('Figure 5', 'Figure 8', 'Figure 9', 'Figure 10')}


def anchor(name):
    return name.replace(' ', '').lower()


def page(root, folder, runs):
    """The page as text, and the finding that it begins with; writes the figures into `folder`."""
    laws, rows = analyse(runs, law_schedule)
    cases, published = cases_of(runs, laws, rows), paper_cases()
    found = findings(cases, published) or [
        f'{len(runs)} run{"s" * (len(runs) > 1)}, none of two languages at unequal shares: nothing can be said about '
        'imbalance yet; python demo.py makes the smallest set that can']
    others = f'<ul class="note">{"".join(f"<li>{escape(text)}.</li>" for text in found[1:])}</ul>'
    if len(found) > 4:
        others = f'<details class="note"><summary>{len(found) - 1} more groups of runs</summary>{others}</details>'
    scale = ('tokens', 'parameters')
    drawn = {'1': [ratio_panels(cases, published, 'clones'), glue_panels(cases, root)],
             '2': [scale_panels(cases, published, 'clones', by) for by in scale],
             '3': [ratio_panels(cases, published, 'pair')],
             '4': [scale_panels(cases, published, 'pair', by) for by in scale],
             '5': [law_panels(cases, published)], '8': [anchor_panels(cases, published)],
             '9': [combination_panels(cases, published, 'clones')],
             '10': [combination_panels(cases, published, 'pair')]}
    parts = {f'figure{number}': figure_html(number, panels, folder) for number, panels in drawn.items()}
    parts |= {f'table{number}': table_html(number, runs, rows, cases) for number in TABLES}
    unread = sorted({path.parent.name for path in root.glob('*/results.json')} - {one['run'] for one in runs})
    links = {'runs': 'All runs', **{anchor(name): name for names in SECTIONS.values() for name in names},
             'studies': 'Inside the models'}
    body = [f'<h1>Language imbalance: our runs beside the paper</h1><p class="finding">{escape(found[0])}.</p>',
            others if found[1:] else '',
            f'<p class="note">{READING}</p>',
            f'<nav>{" ".join(f"<a href=#{there}>{text}</a>" for there, text in links.items())}</nav>',
            '<h2 id="runs">All runs</h2>', runs_table(rows, cases),
            f'<p class="note">Not readable, left out: {escape(", ".join(unread))}.</p>' if unread else '',
            laws_html(laws)]
    for title, names in SECTIONS.items():
        body += [f'<h2>{title}</h2>', *(parts[anchor(name)] for name in names)]
    return ('<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Language imbalance</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{STYLE}</style></head><body>{"".join(body)}{studies_html(root)}</body></html>\n', found[0])


def main():
    root = Path(out)
    runs = load_runs(root)
    if not runs:
        raise ConfigError(f'there is no finished run in {out}/ to report on (no {out}/RUN/results.json); '
                          'python demo.py makes a small set, config/README.md has the paper\'s')
    folder = root / 'report'
    folder.mkdir(exist_ok=True)
    for old in folder.glob('figure*.png'):
        old.unlink()
    text, found = page(root, folder, runs)
    (folder / 'report.html').write_text(text, encoding='utf-8')
    print(f'wrote {folder}/report.html')
    print(f'{found}.')


if __name__ == '__main__':
    run(globals(), main)
