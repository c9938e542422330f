"""The classification tasks of Figure 1 (right), from GLUE and SuperGLUE: where they lie, their columns, their scores.

    FOLDER              the tasks as GLUE and SuperGLUE distribute them, a folder each: CoLA/train.tsv, BoolQ/val.jsonl;
                        any of them may be JSON lines instead, with the columns named below
    hf:DATASET          with Hugging Face `datasets`, a configuration a task: hf:nyu-mll/glue, or a copy of SuperGLUE
                        that is stored as Parquet

The labels of the test sets are not public: the dev set is the test. MNLI's two dev sets are two tasks, each with a
training of its own. A new task is one more row of TASKS.
"""
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configurator import ConfigError


@dataclass
class Task:
    folder: str  # its name in GLUE or SuperGLUE
    texts: list  # the column of the sentence, or of each of the two; other names that it goes by follow behind |
    label: str  # the column of the label; a number is a column (from 0) of a file without a header
    labels: tuple  # the classes; JSON lines and Hugging Face may say the place in this order instead
    metric: str = 'accuracy'  # the task's own; f1 is of the second class
    dev: str = 'dev|val|validation'  # names of the dev set's file, or split
    unfold: object = None  # function of a row that is no flat table -> its flat rows
    has_torn_rows: bool = False  # rows with too few columns are left out, and counted


def multirc_answers(row):
    """An answer of MultiRC is an example: the passage, and the question with the answer behind it."""
    if 'passage' not in row:  # flat already, as Hugging Face has it
        return [dict(passage=row['paragraph'], answer=f'{row["question"]} {row["answer"]}', label=row['label'])]
    return [dict(passage=row['passage']['text'], answer=f'{question["question"]} {answer["text"]}',
                 label=answer['label']) for question in row['passage']['questions'] for answer in question['answers']]


def wsc_pair(row):
    """WSC asks whether a pronoun means a noun: as a pair, the text with the pronoun between asterisks, and the noun.
    Several pronouns of a text are spelled alike, so the place counts, not the spelling."""
    target = row.get('target', row)  # Hugging Face has no such level
    words, place = row['text'].split(), target['span2_index']
    if not 0 <= place < len(words):
        raise IndexError(f'the text has no word {place}')
    words[place] = f'* {words[place]} *'
    return [dict(text=' '.join(words), noun=target['span1_text'], label=row['label'])]


NLI = ['sentence1|premise', 'sentence2|hypothesis']
MNLI = ('MNLI', NLI, 'gold_label|label', ('entailment', 'neutral', 'contradiction'), 'accuracy')

TASKS = {
    'cola': Task('CoLA', ['3|sentence'], '1|label', ('0', '1'), 'matthews'),
    'sst2': Task('SST-2', ['sentence'], 'label', ('0', '1')),
    'mrpc': Task('MRPC', ['#1 String|sentence1', '#2 String|sentence2'], 'Quality|label', ('0', '1'), 'f1'),
    'qqp': Task('QQP', ['question1', 'question2'], 'is_duplicate|label', ('0', '1'), 'f1', has_torn_rows=True),
    'mnli': Task(*MNLI, 'dev_matched|validation_matched'),
    'mnli_mm': Task(*MNLI, 'dev_mismatched|validation_mismatched'),
    'qnli': Task('QNLI', ['question', 'sentence'], 'label', ('entailment', 'not_entailment')),
    'rte': Task('RTE', NLI, 'label', ('entailment', 'not_entailment')),
    'boolq': Task('BoolQ', ['passage', 'question'], 'label', ('false', 'true')),
    'multirc': Task('MultiRC', ['passage', 'answer'], 'label', ('0', '1'), 'f1', unfold=multirc_answers),
    'wsc': Task('WSC', ['text', 'noun'], 'label', ('false', 'true'), unfold=wsc_pair),
}


def chosen_tasks(names, source):
    """Names of TASKS that a setting asks for: separated by commas, or 'all' that `source` has. Raises ConfigError."""
    if names.strip() == 'all':
        if source.startswith('hf:'):
            there = _hub(source, lambda datasets, name: datasets.get_dataset_config_names(name))
            found = [name for name in TASKS if _configuration(name) in there]
        else:
            found = [name for name, task in TASKS.items() if _file(Path(source) / task.folder, task.dev)]
        if not found:
            raise ConfigError(f'{source} holds none of the tasks: there is no {TASKS["cola"].folder}/dev.tsv or the like')
        return found
    asked = list(dict.fromkeys(name.strip().lower() for name in names.split(',') if name.strip()))
    unknown = [name for name in asked if name not in TASKS]
    if unknown or not asked:
        raise ConfigError(f'there is no task {", ".join(unknown) or repr(names)}; the tasks are {", ".join(TASKS)}')
    return asked


def read_task(name, source, dev=False):
    """The training set of a task, or its dev set: (list of tuples of one or two texts, (N,) int64 classes).

    Spaces around a text are dropped. Raises ConfigError with the file and the line of a row that is malformed."""
    task = TASKS[name]
    rows = _hub_rows(name, source, dev) if source.startswith('hf:') else _file_rows(task, source, dev)
    texts, classes, place = [], [], ''
    for place, row in rows:
        try:
            flat = task.unfold(row) if task.unfold else [row]
        except (LookupError, TypeError, AttributeError) as error:
            raise ConfigError(f'{place}: not a row as {task.folder} has them '
                              f'({type(error).__name__}: {error})') from None
        for one in flat:
            texts.append(tuple(_text(_column(one, column, place), place) for column in task.texts))
            classes.append(_class(_column(one, task.label, place), task, place))
    if not classes:
        raise ConfigError(f'the {"dev" if dev else "training"} set of {task.folder} in {source} is empty')
    return texts, np.array(classes)


# --- rows -------------------------------------------------------------------------------------------------------------

def _column(row, names, place):
    for name in names.split('|'):
        if name in row:
            return row[name]
    names = ' or '.join(name for name in names.split('|') if not name.isdigit())
    raise ConfigError(f'{place}: there is no column {names}')


def _text(value, place):
    if not isinstance(value, str) or re.search('[\ud800-\udfff]', value):
        raise ConfigError(f'{place}: {value!r} stands where a text should')
    return value.strip()


def _class(value, task, place):
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    if isinstance(value, int) and 0 <= value < len(task.labels):
        return value
    raise ConfigError(f'{place}: {value!r} is not a label of {task.folder}, whose labels are {", ".join(task.labels)}'
                      + (' (the labels of test sets are not public)' if value == -1 else ''))


def _file(folder, stems):
    """Path of the first file that is there of a stem (several behind |), as .tsv or .jsonl; None without one."""
    paths = [folder / f'{stem}.{end}' for stem in stems.split('|') for end in ('tsv', 'jsonl')]
    return next((path for path in paths if path.is_file()), None)


def _file_rows(task, source, dev):
    """(file and line, row as a dict) of a task's file below the folder `source`."""
    folder, stems = Path(source) / task.folder, task.dev if dev else 'train'
    path = _file(folder, stems)
    if path is None:
        raise ConfigError(f'there is no {folder}/{stems.split("|")[0]}.tsv (or .jsonl); GLUE and SuperGLUE have a '
                          f'folder {task.folder}, and glue_dir is the folder around it')
    headless = task.label[0].isdigit()
    header, torn = None, []
    for number, line in _lines(path):
        place = f'{path}, line {number}'
        if path.suffix == '.jsonl':
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f'{place}: not JSON ({error})') from None
            if not isinstance(row, dict):
                raise ConfigError(f'{place}: not a JSON object')
            yield place, row
            continue
        cells = line.split('\t')  # nothing is quoted in GLUE's files: a quotation mark is text
        if header is None:
            header = [str(column) for column in range(len(cells))] if headless else cells
            if not headless:
                continue
        if len(cells) < len(header) and task.has_torn_rows:
            torn.append(number)
            continue
        if len(cells) != len(header):
            raise ConfigError(f'{place}: {len(cells)} columns, separated by tabs, where the first line has {len(header)}')
        yield place, dict(zip(header, cells))
    if torn:
        print(f'warning: {path} has {len(torn)} rows with too few columns, the first in line {torn[0]}; they are left out',
              file=sys.stderr)


def _lines(path):
    """(number, text) of the lines of a UTF-8 file that are not empty, a byte-order mark dropped. Only \\n ends a line:
    other ends that Unicode knows are part of a sentence."""
    with open(path, 'rb') as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode('utf-8-sig' if number == 1 else 'utf-8').rstrip('\r\n')
            except UnicodeDecodeError as error:
                raise ConfigError(f'{path}, line {number}: not UTF-8 text ({error.reason})') from None
            if text:
                yield number, text


# --- Hugging Face -----------------------------------------------------------------------------------------------------

def _configuration(name):
    return name.partition('_')[0]  # mnli_mm is a dev set of mnli


def _hub(source, ask):
    """ask(datasets module, dataset's name), with every failure as a ConfigError."""
    try:
        import datasets
    except ImportError:
        raise ConfigError('hf: sources need the package datasets: pip install datasets') from None
    name = source.removeprefix('hf:')
    try:
        return ask(datasets, name)
    except Exception as error:  # the library raises many kinds; to the user they are one
        raise ConfigError(f'the dataset {name} cannot be loaded ({type(error).__name__}: '
                          f'{str(error).splitlines()[0] if str(error) else "no reason given"}); check the name and the '
                          "connection, or give the folder of GLUE's own files") from None


def _hub_rows(name, source, dev):
    splits = _hub(source, lambda datasets, dataset: datasets.load_dataset(dataset, _configuration(name)))
    stems = TASKS[name].dev if dev else 'train'
    split = next((stem for stem in stems.split('|') if stem in splits), None)
    if split is None:
        raise ConfigError(f'{source}, {_configuration(name)}: there is no split {stems.replace("|", " or ")}')
    for number, row in enumerate(splits[split]):
        yield f'{source}, {_configuration(name)}, {split}, row {number}', row


# --- scores -----------------------------------------------------------------------------------------------------------

def accuracy(truth, predicted):
    """Share of the examples whose class (N,) was predicted."""
    return float(np.mean(truth == predicted))


def f1(truth, predicted):
    """F1 of class 1: 2 TP / (2 TP + FP + FN); 0 where class 1 is neither there nor predicted."""
    hits, marked = np.sum((truth == 1) & (predicted == 1)), np.sum(truth == 1) + np.sum(predicted == 1)
    return float(2 * hits / marked) if marked else 0.0


def matthews(truth, predicted):
    """Matthews correlation of two classes: Pearson's correlation of truth and prediction; 0 where either is constant."""
    truth, predicted = truth - np.mean(truth), predicted - np.mean(predicted)
    spread = np.sqrt(np.sum(truth ** 2) * np.sum(predicted ** 2))
    return float(np.sum(truth * predicted) / spread) if spread else 0.0


METRICS = dict(accuracy=accuracy, f1=f1, matthews=matthews)


def scores(task, truth, predicted):
    """{metric: value}: the accuracy, which Figure 1 averages, and the task's own metric where that is another."""
    return {metric: METRICS[metric](truth, predicted) for metric in dict.fromkeys(['accuracy', task.metric])}


def majority(task, truth):
    """The scores of always saying the most frequent class of the dev set: no constant answer has a higher accuracy."""
    return scores(task, truth, np.full_like(truth, np.bincount(truth).argmax()))
