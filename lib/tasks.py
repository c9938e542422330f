"""The classification tasks of Figure 1 (right), from GLUE and SuperGLUE: files, columns, metrics.

FOLDER       the tasks as GLUE and SuperGLUE distribute them: CoLA/train.tsv, BoolQ/val.jsonl; each
             may be JSON lines instead, with the columns named below
hf:DATASET   with Hugging Face `datasets`, a configuration for each task: hf:nyu-mll/glue

The labels of the test sets are not public, so the dev set is the test set. MNLI's two dev sets are
two tasks, each with its own training. A new task is a row of TASKS.
"""

import codecs
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.configurator import ConfigError, require

import numpy as np

from lib.formats import is_text, optional, readable


@dataclass
class Task:
    folder: str  # its name in GLUE or SuperGLUE
    texts: list  # the column of each of one or two texts; | separates alternative names
    label: str  # the column of the label; a number: a column (from 0) of a file without a header
    labels: tuple  # the classes; JSON lines and Hugging Face may give the index instead
    metric: str = 'accuracy'  # the task's own; f1 is of the second class
    dev: str = 'dev|val|validation'  # names of the dev set's file, or split
    unfold: Callable = lambda row: [row]  # a row of the file -> its examples
    has_torn_rows: bool = False  # rows with too few columns are skipped and counted


def multirc_answers(row):
    """Each answer of MultiRC is an example: the passage, and the question with the answer."""
    if 'passage' not in row:  # Hugging Face has it flat
        question = f'{row["question"]} {row["answer"]}'
        return [dict(passage=row['paragraph'], answer=question, label=row['label'])]
    text, questions = row['passage']['text'], row['passage']['questions']
    return [
        dict(passage=text, answer=f'{q["question"]} {answer["text"]}', label=answer['label'])
        for q in questions
        for answer in q['answers']
    ]


def wsc_pair(row):
    """WSC asks whether a pronoun refers to a noun: the text with asterisks around the pronoun, and
    the noun. The index marks the pronoun, since the text may have others with the same spelling."""
    target = row.get('target', row)  # Hugging Face has it flat
    words, index = row['text'].split(), target['span2_index']
    words[index] = f'* {words[index]} *'
    return [dict(text=' '.join(words), noun=target['span1_text'], label=row['label'])]


PAIR, ANSWER = ['sentence1|premise', 'sentence2|hypothesis'], ['passage', 'answer']
MNLI = ('MNLI', PAIR, 'gold_label|label', ('entailment', 'neutral', 'contradiction'), 'accuracy')
MRPC, QQP = ['#1 String|sentence1', '#2 String|sentence2'], ['question1', 'question2']
BINARY, BOOLEAN, NLI = ('0', '1'), ('false', 'true'), ('entailment', 'not_entailment')
ADVICE = "give the folder of GLUE's own files"  # what to do when a dataset cannot be loaded

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
    'multirc': Task('MultiRC', ANSWER, 'label', BINARY, 'f1', unfold=multirc_answers),
    'wsc': Task('WSC', ['text', 'noun'], 'label', BOOLEAN, unfold=wsc_pair),
}


def chosen_tasks(names, source):
    """Names of TASKS that a setting asks for: separated by commas, or 'all' that `source` has.

    Raises ConfigError."""
    if names.strip() != 'all':
        asked = dict.fromkeys(name.strip().lower() for name in names.split(',') if name.strip())
        unknown = ', '.join(name for name in asked if name not in TASKS)
        wrong, known = unknown or repr(names), ', '.join(TASKS)
        require(asked and not unknown, f'there is no task {wrong}; the tasks are {known}')
        return list(asked)
    if source.startswith('hf:'):
        with readable(source, ADVICE):
            configurations = optional('datasets').get_dataset_config_names(source[3:])
        present = [name for name in TASKS if name.partition('_')[0] in configurations]
    else:
        present = [name for name, task in TASKS.items() if _file(source, task, task.dev)]
    require(present, f'{source} holds none of the tasks: no CoLA/dev.tsv or the like')
    return present


def read_task(name, source, dev=False):
    """The training set of a task, or its dev set: (list of tuples of one or two texts, (N,) int64
    classes).

    Surrounding spaces are stripped. Raises ConfigError with the file and line of a bad row."""
    task, texts, classes = TASKS[name], [], []
    read = _hub_rows if source.startswith('hf:') else _file_rows
    for place, row in read(name, source, task.dev if dev else 'train'):
        try:
            examples = task.unfold(row)
        except (LookupError, TypeError, AttributeError) as error:
            reason = f'{type(error).__name__}: {error}'
            raise ConfigError(f'{place}: not a row of {task.folder} ({reason})') from None
        for example in examples:
            columns = [_column(example, column, place) for column in task.texts]
            for value in columns:
                require(is_text(value), f'{place}: expected text, found {value!r}')
            texts.append(tuple(text.strip() for text in columns))
            classes.append(_class(_column(example, task.label, place), task, place))
    part = 'dev' if dev else 'training'
    require(classes, f'the {part} set of {task.folder} in {source} is empty')
    return texts, np.array(classes)


def _column(row, names, place):
    for name in names.split('|'):
        if name in row:
            return row[name]
    raise ConfigError(f'{place}: there is no column {names.replace("|", " or ")}')


def _class(value, task, place):
    value = str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    labels = ', '.join(task.labels) + (' (the test set has no labels)' if value == -1 else '')
    valid = isinstance(value, int) and 0 <= value < len(task.labels)
    require(valid, f'{place}: {value!r} is not a label of {task.folder}; these are {labels}')
    return value


def _hub_rows(name, source, stems):
    """(place, row as a dict) of a split of a Hugging Face dataset."""
    configuration = name.partition('_')[0]  # mnli_mm is a dev set of mnli
    with readable(source, ADVICE):
        splits = optional('datasets').load_dataset(source[3:], configuration)
    part = next((stem for stem in stems.split('|') if stem in splits), None)
    require(part, f'{source}, {configuration}: there is no split {stems.replace("|", " or ")}')
    for number, row in enumerate(splits[part]):
        yield f'{source}, {configuration}, {part}, row {number}', row


def _file(source, task, stems):
    """Path of the first file of a task that exists, .tsv or .jsonl; stems are separated by |."""
    names = [f'{stem}.{end}' for stem in stems.split('|') for end in ('tsv', 'jsonl')]
    paths = [Path(source, task.folder, name) for name in names]
    return next((path for path in paths if path.is_file()), None)


def _file_rows(name, source, stems):
    """(file and line, row as a dict) of a task's UTF-8 file, .tsv or .jsonl.

    Only \\n ends a line: other line ends of Unicode are part of a sentence. Nothing is quoted in
    GLUE's tables: a quotation mark is text."""
    task, header, torn = TASKS[name], None, []
    path = _file(source, task, stems)
    missing = f'{source}/{task.folder}/{stems.split("|")[0]}.tsv (or .jsonl)'
    require(path, f'there is no {missing}; glue_dir is the folder around {task.folder}')
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b'\n')
    for number, line in enumerate(lines, 1):
        place, is_table = f'{path}, line {number}', path.suffix == '.tsv'
        try:
            text = line.decode().rstrip('\r')
            row = text.split('\t') if is_table or not text else json.loads(text)
        except ValueError as error:
            raise ConfigError(f'{place}: not UTF-8 text or not JSON ({error})') from None
        if not text:
            continue
        if not is_table:
            require(isinstance(row, dict), f'{place}: not a JSON object')
        elif header is None and not task.label[0].isdigit():
            header = row
            continue
        else:
            header = header or [str(column) for column in range(len(row))]
            if len(row) < len(header) and task.has_torn_rows:
                torn.append(place)
                continue
            found = f'found {len(row)} columns, expected {len(header)} as in the first line'
            require(len(row) == len(header), f'{place}: {found}')
            row = dict(zip(header, row))
        yield place, row
    if torn:
        rows = f'{len(torn)} rows with too few columns are skipped'
        print(f'warning: {rows}, the first is {torn[0]}', file=sys.stderr)


# --- metrics --------------------------------------------------------------------------------------


def outcomes(truth, predicted):
    """What the metrics count, (..., 5): examples, right ones, of class 1, predicted 1, both."""
    truth, predicted = np.broadcast_arrays(truth, predicted)
    positive, marked = truth == 1, predicted == 1
    columns = [np.ones_like(positive), truth == predicted, positive, marked, positive & marked]
    return np.stack(columns, axis=-1).astype(float)


def accuracy(counts):
    """Fraction of examples with the right class. counts: (..., 5), sums or means of `outcomes`."""
    return counts[..., 1] / counts[..., 0]


def f1(counts):
    """F1 of class 1: 2 TP / (2 TP + FP + FN); 0 where class 1 neither occurs nor is predicted."""
    _, _, positive, marked, both = np.moveaxis(counts, -1, 0)
    return 2 * both / np.where(positive + marked, positive + marked, 1)


def matthews(counts):
    """Matthews correlation of two classes; 0 where the truth or the prediction is constant."""
    n, _, positive, marked, both = np.moveaxis(counts, -1, 0)
    spread = positive * (n - positive) * marked * (n - marked)
    return ((n * both - positive * marked) / np.sqrt(np.where(spread, spread, 1))).clip(-1, 1)


METRICS = dict(accuracy=accuracy, f1=f1, matthews=matthews)


def majority(metric, truth):
    """A metric of the dev set's most frequent class: no constant answer has a higher accuracy."""
    constant = np.full_like(truth, np.bincount(truth).argmax())
    return float(METRICS[metric](outcomes(truth, constant).sum(0)))


def mean_over_tasks(entries, language):
    """The mean accuracy of a language over the entries of tasks, whose errors are independent:
    dict(mean, interval, majority)."""
    found = [entry['languages'][language] for entry in entries]
    values = np.array([(one['mean'], *one['interval']) for one in found])
    mean, errors = values[:, 0].mean(), np.linalg.norm(values - values[:, :1], axis=0) / len(found)
    constant = np.mean([entry['majority'] for entry in entries])
    return dict(mean=mean, interval=(mean - errors[1], mean + errors[2]), majority=constant)
