"""The classification tasks of Figure 1 (right), from GLUE and SuperGLUE: files and columns.

FOLDER       the tasks as GLUE and SuperGLUE distribute them: CoLA/train.tsv, BoolQ/val.jsonl; each
             may be JSON lines instead
hf:DATASET   with Hugging Face `datasets`, a configuration for each task: hf:nyu-mll/glue

The labels of the test sets are not public, so the dev set is the test set. MNLI's two dev sets are
two tasks, each with its own training. A new task is a row of TASKS.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lib.configurator import ConfigError, require

import numpy as np

from lib.formats import is_text, lines, optional, readable, rows

# Columns that some distributions call otherwise.
SAME = {'premise': 'sentence1', 'hypothesis': 'sentence2', 'gold_label': 'label'}
SAME |= {'#1 String': 'sentence1', '#2 String': 'sentence2', 'Quality': 'label'}
SAME |= {'is_duplicate': 'label'}


class Task(NamedTuple):
    folder: str  # its name in GLUE or SuperGLUE
    texts: tuple  # the column of each of one or two texts; that of the class is `label`
    labels: tuple  # the classes; JSON lines and Hugging Face may give the index instead
    dev: tuple = ('dev', 'val', 'validation')  # names of the dev set's file, or split
    header: tuple = ()  # the columns of a .tsv file that does not name them
    unfold: Callable = lambda row: [row]  # a row of the file -> its examples
    has_torn_rows: bool = False  # rows with too few columns are skipped and counted


def multirc_answers(row):
    """Each answer of MultiRC is an example: the passage, and the question with the answer."""
    if 'passage' not in row:  # Hugging Face has it flat
        questions = [dict(question=row['question'], answers=[dict(row, text=row['answer'])])]
        row = dict(passage=dict(text=row['paragraph'], questions=questions))
    for question in row['passage']['questions']:
        for answer in question['answers']:
            text = f'{question["question"]} {answer["text"]}'
            yield dict(passage=row['passage']['text'], answer=text, label=answer['label'])


def wsc_pair(row):
    """WSC asks whether a pronoun refers to a noun: the text with asterisks around the pronoun, and
    the noun. The index marks the pronoun, since the text may have others with the same spelling."""
    target = row.get('target', row)  # Hugging Face has it flat
    words, index = row['text'].split(), target['span2_index']
    words[index] = f'* {words[index]} *'
    yield dict(text=' '.join(words), noun=target['span1_text'], label=row['label'])


ONE, PAIR = ('sentence',), ('sentence1', 'sentence2')
BINARY, BOOLEAN, NLI = ('0', '1'), ('false', 'true'), ('entailment', 'not_entailment')
MNLI = ('MNLI', PAIR, ('entailment', 'neutral', 'contradiction'))

TASKS = {
    'cola': Task('CoLA', ONE, BINARY, header=('source', 'label', 'mark', 'sentence')),
    'sst2': Task('SST-2', ONE, BINARY),
    'mrpc': Task('MRPC', PAIR, BINARY),
    'qqp': Task('QQP', ('question1', 'question2'), BINARY, has_torn_rows=True),
    'mnli': Task(*MNLI, ('dev_matched', 'validation_matched')),
    'mnli_mm': Task(*MNLI, ('dev_mismatched', 'validation_mismatched')),
    'qnli': Task('QNLI', ('question', 'sentence'), NLI),
    'rte': Task('RTE', PAIR, NLI),
    'boolq': Task('BoolQ', ('passage', 'question'), BOOLEAN),
    'multirc': Task('MultiRC', ('passage', 'answer'), BINARY, unfold=multirc_answers),
    'wsc': Task('WSC', ('text', 'noun'), BOOLEAN, unfold=wsc_pair),
}
ADVICE = "give the folder of GLUE's own files"  # when a dataset cannot be loaded


def chosen_tasks(names, source):
    """Names of TASKS that a setting asks for: separated by commas, or 'all' that `source` has.
    Raises ConfigError."""
    if names.strip() != 'all':
        asked = dict.fromkeys(name.strip().lower() for name in names.split(','))
        wrong = ', '.join(name for name in asked if name not in TASKS)
        require(asked.keys() <= TASKS.keys(), f'no task {wrong!r}; there are {", ".join(TASKS)}')
        return list(asked)
    if source.startswith('hf:'):
        with readable(source, ADVICE):
            found = optional('datasets').get_dataset_config_names(source[3:])
        found = [name for name in TASKS if name.removesuffix('_mm') in found]
    else:
        found = [name for name, task in TASKS.items() if task_file(source, task, task.dev)]
    require(found, f'{source} holds none of the tasks: no CoLA/dev.tsv or the like')
    return found


def read_task(name, source, part):
    """One part of a task, 'train' or 'dev': (list of tuples of one or two stripped texts, (N,)
    int64 classes). Raises ConfigError with the file and line of a bad row."""
    task, texts, classes = TASKS[name], [], []
    known = {key: i for i, label in enumerate(task.labels) for key in (label, i)}  # true is 1
    read = hub_rows if source.startswith('hf:') else file_rows
    for place, row in read(name, source, task.dev if part == 'dev' else (part,)):
        try:
            for example in task.unfold(row):
                example = {SAME.get(column, column): value for column, value in example.items()}
                parts = [example[SAME.get(column, column)] for column in task.texts]
                label = example['label']
                require(all(map(is_text, parts)), f'{place}: expected text, found {parts}')
                there = f'the labels are {", ".join(task.labels)}; a test set has none'
                require(label in known, f'{place}: the label is {label!r}, {there}')
                texts.append(tuple(text.strip() for text in parts))
                classes.append(known[label])
        except (LookupError, TypeError, AttributeError) as error:
            raise ConfigError(f'{place}: not a row of {task.folder} ({error!r})') from None
    require(classes, f'the {part} set of {task.folder} in {source} is empty')
    return texts, np.array(classes)


def hub_rows(name, source, parts):
    """(place, row as a dict) of the first of some splits that a Hugging Face dataset has."""
    configuration = name.removesuffix('_mm')  # a dev set of mnli
    with readable(source, ADVICE):
        splits = optional('datasets').load_dataset(source[3:], configuration)
    part = next((part for part in parts if part in splits), None)
    require(part, f'{source}, {configuration}: there is no split {" or ".join(parts)}')
    for number, row in enumerate(splits[part]):
        yield f'{source}, {configuration}, {part}, row {number}', row


def task_file(source, task, parts):
    """Path of the first file of a task that exists, PART.tsv or PART.jsonl, or None."""
    folder = Path(source, task.folder)
    paths = (folder / f'{part}.{end}' for part in parts for end in ('tsv', 'jsonl'))
    return next((path for path in paths if path.is_file()), None)


def file_rows(name, source, parts):
    """(file and line, row as a dict) of a task's UTF-8 file, .tsv or .jsonl.

    Only \\n ends a line: other line ends of Unicode are part of a sentence. Nothing is quoted in
    GLUE's tables: a quotation mark is text."""
    task, torn = TASKS[name], []
    path, header = task_file(source, task, parts), task.header
    missing = f'no {" or ".join(parts)} (.tsv or .jsonl) in {source}/{task.folder}'
    require(path, f'{missing}; glue_dir is the folder around {task.folder}')
    with open(path, 'rb') as file:
        if path.suffix == '.jsonl':
            yield from rows(file, 'rows', path)
            return
        for number, line in enumerate(lines(file, path), 1):
            place, cells = f'{path}, line {number}', line.rstrip('\r\n').split('\t')
            if not header:
                header = cells
            elif len(cells) == len(header):
                yield place, dict(zip(header, cells))
            elif 1 < len(cells) < len(header) and task.has_torn_rows:
                torn.append(place)
            elif cells != ['']:
                raise ConfigError(f'{place}: {len(cells)} columns, expected {len(header)}')
    if torn:
        print(f'warning: skipped {len(torn)} short rows from {torn[0]} on', file=sys.stderr)


def mean_over_tasks(entries, language):
    """The mean accuracy of a language over tasks (`entries` of finetune.json): dict(mean, interval,
    majority). Errors count as independent, which those of MNLI's two dev sets are not quite."""
    found = [entry['languages'][language] for entry in entries]
    values = np.array([(one['mean'], *one['interval']) for one in found])
    mean, errors = values[:, 0].mean(), np.linalg.norm(values - values[:, :1], axis=0) / len(found)
    constant = np.mean([entry['majority'] for entry in entries])
    return dict(mean=mean, interval=(mean - errors[1], mean + errors[2]), majority=constant)
