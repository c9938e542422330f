"""The classification tasks of Figure 1 (right), from GLUE and SuperGLUE: files, columns, scores.

FOLDER       the tasks as GLUE and SuperGLUE distribute them, a folder each: CoLA/train.tsv,
             BoolQ/val.jsonl; any of them may be JSON lines instead, with the columns named below
hf:DATASET   with Hugging Face `datasets`, a configuration a task: hf:nyu-mll/glue, or a copy of
             SuperGLUE that is stored as Parquet

The labels of the test sets are not public: the dev set is the test. MNLI's two dev sets are two
tasks, each with a training of its own. A new task is one more row of TASKS.
"""

import codecs
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.configurator import ConfigError

import numpy as np

from lib.sources import hub, is_text


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
    text, questions = row['passage']['text'], row['passage']['questions']
    return [
        dict(passage=text, answer=f'{q["question"]} {answer["text"]}', label=answer['label'])
        for q in questions
        for answer in q['answers']
    ]


def wsc_pair(row):
    """WSC asks whether a pronoun means a noun: the text with asterisks around the pronoun, and the
    noun. The place of the pronoun counts: the text may have others that are spelled alike."""
    target = row.get('target', row)  # Hugging Face has no such level
    words, place = row['text'].split(), target['span2_index']
    words[place] = f'* {words[place]} *'
    return [dict(text=' '.join(words), noun=target['span1_text'], label=row['label'])]


PAIR, NLI = ['sentence1|premise', 'sentence2|hypothesis'], ('entailment', 'not_entailment')
MNLI = ('MNLI', PAIR, 'gold_label|label', ('entailment', 'neutral', 'contradiction'), 'accuracy')
MRPC, QQP = ['#1 String|sentence1', '#2 String|sentence2'], ['question1', 'question2']
MULTIRC = ('MultiRC', ['passage', 'answer'])
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
    'multirc': Task(*MULTIRC, 'label', BINARY, 'f1', unfold=multirc_answers),
    'wsc': Task('WSC', ['text', 'noun'], 'label', BOOLEAN, unfold=wsc_pair),
}


def chosen_tasks(names, source):
    """Names of TASKS that a setting asks for: separated by commas, or 'all' that `source` has.

    Raises ConfigError."""
    if names.strip() != 'all':
        asked = dict.fromkeys(name.strip().lower() for name in names.split(',') if name.strip())
        unknown = ', '.join(name for name in asked if name not in TASKS)
        if unknown or not asked:
            wrong, known = unknown or repr(names), ', '.join(TASKS)
            raise ConfigError(f'there is no task {wrong}; the tasks are {known}')
        return list(asked)
    if source.startswith('hf:'):
        with hub(source[3:], ADVICE) as datasets:
            configurations = datasets.get_dataset_config_names(source[3:])
        present = [name for name in TASKS if name.partition('_')[0] in configurations]
    else:
        present = [name for name, task in TASKS.items() if _file(source, task, task.dev)]
    if not present:
        raise ConfigError(f'{source} holds none of the tasks: no CoLA/dev.tsv or the like')
    return present


def read_task(name, source, dev=False):
    """The training set of a task, or its dev set: (list of tuples of one or two texts, (N,) int64
    classes).

    Spaces around a text are dropped. Raises ConfigError with the file and line of a bad row."""
    task, texts, classes = TASKS[name], [], []
    read = _hub_rows if source.startswith('hf:') else _file_rows
    for place, row in read(name, source, task.dev if dev else 'train'):
        try:
            examples = task.unfold(row)
        except (LookupError, TypeError, AttributeError) as error:
            reason = f'{type(error).__name__}: {error}'
            raise ConfigError(f'{place}: not a row as {task.folder} has them ({reason})') from None
        for example in examples:
            columns = [_column(example, column, place) for column in task.texts]
            wrong = [value for value in columns if not is_text(value)]
            if wrong:
                raise ConfigError(f'{place}: {wrong[0]!r} stands where a text should')
            texts.append(tuple(text.strip() for text in columns))
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


def _file(source, task, stems):
    """Path of the first file of a task that is there: a stem (several behind |), .tsv or .jsonl."""
    names = [f'{stem}.{end}' for stem in stems.split('|') for end in ('tsv', 'jsonl')]
    paths = [Path(source, task.folder, name) for name in names]
    return next((path for path in paths if path.is_file()), None)


def _file_rows(name, source, stems):
    """(file and line, row as a dict) of a task's file below the folder `source`."""
    task = TASKS[name]
    path = _file(source, task, stems)
    if path is None:
        missing = f'{source}/{task.folder}/{stems.split("|")[0]}.tsv (or .jsonl)'
        raise ConfigError(f'there is no {missing}; glue_dir is the folder around {task.folder}')
    if path.suffix == '.tsv':
        yield from _table_rows(path, task)
        return
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
        if header is None:
            has_header = not task.label[0].isdigit()
            header = cells if has_header else [str(column) for column in range(len(cells))]
            if has_header:
                continue
        if len(cells) == len(header):
            yield place, dict(zip(header, cells))
        elif len(cells) < len(header) and task.has_torn_rows:
            torn.append(place)
        else:
            found = f'{len(cells)} columns, separated by tabs'
            raise ConfigError(f'{place}: {found}, where the first line has {len(header)}')
    if torn:
        rows = f'{len(torn)} rows with too few columns are left out'
        print(f'warning: {rows}, the first is {torn[0]}', file=sys.stderr)


def _lines(path):
    """(file and line number, text) of the lines of a UTF-8 file that are not empty, without a
    byte-order mark. Only \\n ends a line: other ends that Unicode knows are part of a sentence."""
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b'\n')
    for number, line in enumerate(lines, 1):
        place = f'{path}, line {number}'
        try:
            text = line.decode().rstrip('\r')
        except UnicodeDecodeError as error:
            raise ConfigError(f'{place}: not UTF-8 text ({error.reason})') from None
        if text:
            yield place, text


# --- Hugging Face ---------------------------------------------------------------------------------

ADVICE = "give the folder of GLUE's own files"  # what to do when a dataset cannot be loaded


def _hub_rows(name, source, stems):
    configuration = name.partition('_')[0]  # mnli_mm is a dev set of mnli
    with hub(source[3:], ADVICE) as datasets:
        splits = datasets.load_dataset(source[3:], configuration)
    part = next((stem for stem in stems.split('|') if stem in splits), None)
    if part is None:
        missing = stems.replace('|', ' or ')
        raise ConfigError(f'{source}, {configuration}: there is no split {missing}')
    for number, row in enumerate(splits[part]):
        yield f'{source}, {configuration}, {part}, row {number}', row


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
