"""The classification tasks of Figure 1 (right), from GLUE and SuperGLUE: files, columns, scores.

FOLDER       the tasks as GLUE and SuperGLUE distribute them, a folder each: CoLA/train.tsv,
             BoolQ/val.jsonl; any of them may be JSON lines instead, with the columns named below
hf:DATASET   with Hugging Face `datasets`, a configuration a task: hf:nyu-mll/glue, or a copy of
             SuperGLUE that is stored as Parquet

The labels of the test sets are not public: the dev set is the test. MNLI's two dev sets are two
tasks, each with a training of its own. A new task is one more row of TASKS.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configurator import ConfigError
from sources import hub


@dataclass
class Task:
    folder: str  # its name in GLUE or SuperGLUE
    texts: list  # the column of each of one or two texts, other names of the column behind |
    label: str  # the column of the label; a number: a column (from 0) of a file without a header
    labels: tuple  # the classes; JSON lines and Hugging Face may give the place in this order
    metric: str = 'accuracy'  # the task's own; f1 is of the second class
    dev: str = 'dev|val|validation'  # names of the dev set's file, or split
    unfold: Callable = lambda row: [row]  # a row of the file -> its examples
    has_torn_rows: bool = False  # rows with too few columns are left out, and counted


def multirc_answers(row):
    """An answer of MultiRC is an example: the passage, and the question with the answer behind."""
    if 'passage' not in row:  # flat already, as Hugging Face has it
        question = f'{row["question"]} {row["answer"]}'
        return [dict(passage=row['paragraph'], answer=question, label=row['label'])]
    text = row['passage']['text']
    pairs = [
        (q['question'], answer) for q in row['passage']['questions'] for answer in q['answers']
    ]
    return [
        dict(passage=text, answer=f'{question} {answer["text"]}', label=answer['label'])
        for question, answer in pairs
    ]


def wsc_pair(row):
    """WSC asks whether a pronoun means a noun: the text with asterisks around the pronoun, and the
    noun. The place of the pronoun counts: the text may have others that are spelled alike."""
    target = row.get('target', row)  # Hugging Face has no such level
    words, place = row['text'].split(), target['span2_index']
    if not 0 <= place < len(words):
        raise IndexError(f'the text has no word {place}')
    words[place] = f'* {words[place]} *'
    return [dict(text=' '.join(words), noun=target['span1_text'], label=row['label'])]


PAIR, NLI = ['sentence1|premise', 'sentence2|hypothesis'], ('entailment', 'not_entailment')
MNLI = ('MNLI', PAIR, 'gold_label|label', ('entailment', 'neutral', 'contradiction'), 'accuracy')
MRPC = ['#1 String|sentence1', '#2 String|sentence2']
QQP = ['question1', 'question2']
BINARY, BOOLEAN = ('0', '1'), ('false', 'true')

TASKS = {
    'cola': Task('CoLA', ['3|sentence'], '1|label', BINARY, 'matthews'),
    'sst2': Task('SST-2', ['sentence'], 'label', BINARY),
    'mrpc': Task('MRPC', MRPC, 'Quality|label', BINARY, 'f1'),
    'qqp': Task('QQP', QQP, 'is_duplicate|label', BINARY, 'f1', has_torn_rows=True),
    'mnli': Task(*MNLI, 'dev_matched|validation_matched'),
    'mnli_mm': Task(*MNLI, 'dev_mismatched|validation_mismatched'),
    'qnli': Task('QNLI', ['question', 'sentence'], 'label', NLI),
    'rte': Task('RTE', PAIR, 'label', NLI),
    'boolq': Task('BoolQ', ['passage', 'question'], 'label', BOOLEAN),
    'multirc': Task(
        'MultiRC', ['passage', 'answer'], 'label', BINARY, 'f1', unfold=multirc_answers
    ),
    'wsc': Task('WSC', ['text', 'noun'], 'label', BOOLEAN, unfold=wsc_pair),
}


def chosen_tasks(names, source):
    """Names of TASKS that a setting asks for: separated by commas, or 'all' that `source` has.

    Raises ConfigError."""
    if names.strip() == 'all':
        if source.startswith('hf:'):
            with hub(source[3:], ADVICE) as datasets:
                configurations = datasets.get_dataset_config_names(source[3:])
            present = [name for name in TASKS if _configuration(name) in configurations]
        else:
            folder = Path(source)
            present = [
                name for name, task in TASKS.items() if _file(folder / task.folder, task.dev)
            ]
        if not present:
            raise ConfigError(f'{source} holds none of the tasks: no CoLA/dev.tsv or the like')
        return present
    asked = list(dict.fromkeys(name.strip().lower() for name in names.split(',') if name.strip()))
    unknown = [name for name in asked if name not in TASKS]
    if unknown or not asked:
        unknown = ', '.join(unknown) or repr(names)
        raise ConfigError(f'there is no task {unknown}; the tasks are {", ".join(TASKS)}')
    return asked


def read_task(name, source, dev=False):
    """The training set of a task, or its dev set: (list of tuples of one or two texts, (N,) int64
    classes).

    Spaces around a text are dropped. Raises ConfigError with the file and line of a bad row."""
    task = TASKS[name]
    rows = (
        _hub_rows(name, source, dev) if source.startswith('hf:') else _file_rows(task, source, dev)
    )
    texts, classes = [], []
    for place, row in rows:
        try:
            examples = task.unfold(row)
        except (LookupError, TypeError, AttributeError) as error:
            reason = f'{type(error).__name__}: {error}'
            raise ConfigError(f'{place}: not a row as {task.folder} has them ({reason})') from None
        for example in examples:
            columns = [_column(example, column, place) for column in task.texts]
            texts.append(tuple(_text(value, place) for value in columns))
            classes.append(_class(_column(example, task.label, place), task, place))
    if not classes:
        part = 'dev' if dev else 'training'
        raise ConfigError(f'the {part} set of {task.folder} in {source} is empty')
    return texts, np.array(classes)


# --- rows -----------------------------------------------------------------------------------------


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
    labels = ', '.join(task.labels)
    if value == -1:
        labels += ' (the labels of test sets are not public)'
    raise ConfigError(f'{place}: {value!r} is not a label of {task.folder}; these are {labels}')


def _file(folder, stems):
    """Path of the first file that is there of a stem (several behind |), as .tsv or .jsonl."""
    paths = [folder / f'{stem}.{end}' for stem in stems.split('|') for end in ('tsv', 'jsonl')]
    return next((path for path in paths if path.is_file()), None)


def _file_rows(task, source, dev):
    """(file and line, row as a dict) of a task's file below the folder `source`."""
    folder, stems = Path(source) / task.folder, task.dev if dev else 'train'
    path = _file(folder, stems)
    if path is None:
        name = f'{folder}/{stems.split("|")[0]}.tsv (or .jsonl)'
        raise ConfigError(f'there is no {name}; glue_dir is the folder around {task.folder}')
    yield from _json_rows(path) if path.suffix == '.jsonl' else _table_rows(path, task)


def _json_rows(path):
    for place, line in _lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f'{place}: not JSON ({error})') from None
        if not isinstance(row, dict):
            raise ConfigError(f'{place}: not a JSON object')
        yield place, row


def _table_rows(path, task):
    header, torn = None, []
    for place, line in _lines(path):
        cells = line.split('\t')  # nothing is quoted in GLUE's files: a quotation mark is text
        if header is None and task.label[0].isdigit():
            header = [str(column) for column in range(len(cells))]
        elif header is None:
            header = cells
            continue
        if len(cells) < len(header) and task.has_torn_rows:
            torn.append(place)
            continue
        if len(cells) != len(header):
            found = f'{len(cells)} columns, separated by tabs'
            raise ConfigError(f'{place}: {found}, where the first line has {len(header)}')
        yield place, dict(zip(header, cells))
    if torn:
        rows = f'{len(torn)} rows with too few columns are left out'
        print(f'warning: {rows}, the first is {torn[0]}', file=sys.stderr)


def _lines(path):
    """(file and line number, text) of the lines of a UTF-8 file that are not empty, without a
    byte-order mark. Only \\n ends a line: other ends that Unicode knows are part of a sentence."""
    with open(path, 'rb') as file:
        for number, line in enumerate(file, 1):
            place = f'{path}, line {number}'
            try:
                text = line.decode('utf-8-sig' if number == 1 else 'utf-8').rstrip('\r\n')
            except UnicodeDecodeError as error:
                raise ConfigError(f'{place}: not UTF-8 text ({error.reason})') from None
            if text:
                yield place, text


# --- Hugging Face ---------------------------------------------------------------------------------

ADVICE = "give the folder of GLUE's own files"  # what to do when a dataset cannot be loaded


def _configuration(name):
    return name.partition('_')[0]  # mnli_mm is a dev set of mnli


def _hub_rows(name, source, dev):
    configuration = _configuration(name)
    with hub(source[3:], ADVICE) as datasets:
        splits = datasets.load_dataset(source[3:], configuration)
    stems = TASKS[name].dev if dev else 'train'
    present = [stem for stem in stems.split('|') if stem in splits]
    if not present:
        missing = stems.replace('|', ' or ')
        raise ConfigError(f'{source}, {configuration}: there is no split {missing}')
    for number, row in enumerate(splits[present[0]]):
        yield f'{source}, {configuration}, {present[0]}, row {number}', row


# --- scores ---------------------------------------------------------------------------------------


def outcomes(truth, predicted):
    """What the metrics count, (..., 5): examples, right ones, of class 1, predicted 1, both."""
    truth, predicted = np.broadcast_arrays(truth, predicted)
    positive, marked = truth == 1, predicted == 1
    columns = [np.ones_like(positive), truth == predicted, positive, marked, positive & marked]
    return np.stack(columns, axis=-1).astype(float)


def accuracy(sums):
    """Share of the examples whose class was predicted. sums: (..., 5) of `outcomes`, as below."""
    return sums[..., 1] / sums[..., 0]


def f1(sums):
    """F1 of class 1: 2 TP / (2 TP + FP + FN); 0 where class 1 is neither there nor predicted."""
    _, _, positive, marked, both = np.moveaxis(sums, -1, 0)
    return 2 * both / np.maximum(positive + marked, 1)


def matthews(sums):
    """Matthews correlation of two classes; 0 where either the truth or the answer is constant."""
    n, _, positive, marked, both = np.moveaxis(sums, -1, 0)
    spread = positive * (n - positive) * marked * (n - marked)
    return (n * both - positive * marked) / np.sqrt(np.maximum(spread, 1))


METRICS = dict(accuracy=accuracy, f1=f1, matthews=matthews)


def scores(task, truth, predicted):
    """{metric: value}: the accuracy, which Figure 1 averages, and the task's own metric."""
    sums = outcomes(truth, predicted).sum(0)
    return {metric: float(METRICS[metric](sums)) for metric in ('accuracy', task.metric)}


def majority(task, truth):
    """Scores of the dev set's most frequent class: no constant answer has a higher accuracy."""
    return scores(task, truth, np.full_like(truth, np.bincount(truth).argmax()))
