"""Zero-shot transfer: fine-tunes a run in one language and tests it in the others (Section 4.2, Figure 1 right).

    python finetune.py --out_dir=out/RUN --glue_dir=FOLDER                          # every task found in FOLDER
    python finetune.py --out_dir=out/RUN --glue_dir=FOLDER --tasks=cola,sst2 --train_language=en1 --seeds=[0,1,2]

A classification head on the last token is trained together with the model on the tasks of glue.py. A clone gets the
tokens of the training language through its own lookup table: it is tested on labels that it never saw. Training
stops early on the dev set of the training language; the test sets' labels are not public, so that dev set is also
where the model is scored, and the training language's own score is optimistic: it is the best of several looks. The
other languages are scored once, at the step that the training language chose.

Results go to out/RUN/finetune.json after each task and seed; what is there is not computed again.
"""
import copy
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from scipy.stats import t as student_t
from tqdm import tqdm

from checkpoint import load_run, lock, write_json
from configurator import ConfigError, run, settings_of
from data import DOCUMENT_END
from device import autocast, memory_advice, pick_device, pick_dtype
from glue import TASKS, accuracy, chosen_tasks, majority, read_task, scores
from model import PAD

out_dir = ''  # folder of a run of train.py, for example out/demo_90_10
tasks = 'all'  # names of tasks (see glue.py) with commas between them; all: those that glue_dir holds
glue_dir = ''  # folder with GLUE's and SuperGLUE's own folders in it, or hf:DATASET, for example hf:nyu-mll/glue
train_language = ''  # the language to fine-tune in; empty: the first of the run
seeds = [12]  # each fine-tunes once: order of the examples, the head's first weights, dropout
learning_rate = 5e-5  # constant
batch_size = 64  # examples of a step
max_epochs = 10  # passes over the training set, if early stopping does not come first
max_tokens = 128  # tokens of an example, at most (and at most the model's block_size)
eval_interval = 200  # steps between looks at the dev set
patience = 10  # looks without a higher accuracy before training stops
dropout = 0.1  # before the head
max_examples = 0  # train on so many examples, the same for all seeds; 0: all
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # bfloat16, float16, float32; auto: the first of them that the device is made for

FREE = {'out_dir', 'tasks', 'glue_dir', 'seeds', 'device'}  # settings that may change between calls


def check_settings():
    if not out_dir:
        raise ConfigError('say which run to fine-tune: --out_dir=out/RUN')
    if not glue_dir:
        raise ConfigError("say where the tasks are: --glue_dir=FOLDER with GLUE's own folders (CoLA, SST-2, ...), "
                          'or --glue_dir=hf:nyu-mll/glue')
    if not seeds or not all(type(seed) is int and 0 <= seed < 2 ** 32 for seed in seeds):
        raise ConfigError(f'seeds must be whole numbers, at least one, each of 0 to 4,294,967,295, not {seeds}')
    for name in ('batch_size', 'max_epochs', 'eval_interval', 'patience'):
        if globals()[name] < 1:
            raise ConfigError(f'{name} must be at least 1, not {globals()[name]}')
    if max_tokens < 4:
        raise ConfigError(f'max_tokens must be at least 4, for a pair and its two ends, not {max_tokens}')
    if max_examples < 0 or learning_rate <= 0 or not 0 <= dropout < 1:
        raise ConfigError(f'max_examples must not be negative, learning_rate positive and dropout between 0 and 1, '
                          f'not {max_examples}, {learning_rate}, {dropout}')


# --- examples ---------------------------------------------------------------------------------------------------------

class Examples:
    """Tokens of a task's examples (uint16 ids of the corpus, before any language's table), and their classes."""

    def __init__(self, tokens, classes):
        self.tokens, self.classes = tokens, classes
        self.lengths = np.array([len(one) for one in tokens])

    def batch(self, rows, table):
        """Examples `rows` in the language of `table`: ids (B, T) int64, padded on the right, and the place of the last
        token of each, (B,) int64."""
        # of all lengths only each eighth: for every shape that a CPU meets, some memory stays taken
        longest = min(-(-self.lengths[rows].max() // 8) * 8, self.lengths.max())
        ids = np.full((len(rows), longest), PAD)
        for line, row in zip(ids, rows):
            line[:self.lengths[row]] = self.tokens[row]
        return torch.from_numpy(table[ids].astype(np.int64)), torch.from_numpy(self.lengths[rows] - 1)


def encode(pieces, texts, limit):
    """Tokens of each example: a text, or both of a pair, each followed by <D>, at most `limit` in all.

    What is too long is cut at the end, of a pair the longer text first; no <D> is cut. `texts`: tuples of one or two.
    Returns a list of uint16 arrays."""
    room = limit - len(texts[0])
    columns = [pieces.encode([example[i] for example in texts]) for i in range(len(texts[0]))]
    encoded = []
    for first, *second in zip(*columns):
        second = [ids[:max(room - len(first), room // 2)] for ids in second]
        parts = [first[:room - sum(map(len, second))], *second]
        encoded.append(np.array([token for ids in parts for token in ids + [DOCUMENT_END]], dtype=np.uint16))
    return encoded


def epoch_batches(lengths, batch_size, rng, pool=16):
    """The batches (arrays of rows) of one pass over examples of these lengths, in random order.

    A batch is as long as its longest example. So that little of it is padding, each `pool` batches drawn at random
    are sorted by length and then cut into batches."""
    order, batches = rng.permutation(len(lengths)), []
    for start in range(0, len(order), pool * batch_size):
        drawn = order[start:start + pool * batch_size]
        drawn = drawn[np.argsort(lengths[drawn], kind='stable')]
        batches += [drawn[i:i + batch_size] for i in range(0, len(drawn), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def load_examples(name, pieces, limit):
    """(training examples, dev examples, hash of both) of a task."""
    texts, classes = read_task(name, glue_dir)
    if max_examples and max_examples < len(classes):
        rows = np.random.default_rng(0).permutation(len(classes))[:max_examples]
        texts, classes = [texts[row] for row in rows], classes[rows]
    sets, digest = [], hashlib.sha256()
    for those, truth in ((texts, classes), read_task(name, glue_dir, dev=True)):
        digest.update(json.dumps([those, truth.tolist()]).encode())
        sets.append(Examples(encode(pieces, those, limit), truth))
    return *sets, digest.hexdigest()


# --- the model --------------------------------------------------------------------------------------------------------

class Classifier(nn.Module):
    """A GPT with a head for classes in place of the one for tokens, which it takes off."""

    def __init__(self, gpt, classes, dropout):
        super().__init__()
        self.gpt, self.dropout = gpt, nn.Dropout(dropout)
        self.gpt.head = None
        self.head = nn.Linear(gpt.config.n_embd, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, idx, last):
        """idx: (B, T) ids; last: (B,) place of each row's last token. Returns logits (B, classes).

        Attention is causal: what is padded behind the last token cannot change them."""
        for x in self.gpt.residual_stream(idx):
            pass
        x = x[torch.arange(len(idx), device=idx.device), last]
        return self.head(self.dropout(self.gpt.ln_f(x)))


def predict(model, examples, table, context):
    """Logits (N, classes) float32 of all examples in the language of `table`, without dropout."""
    where, training = model.head.weight.device, model.training
    model.eval()
    logits = np.empty((len(examples.tokens), model.head.out_features), np.float32)
    order = np.argsort(examples.lengths, kind='stable')[::-1]  # the longest first: memory that suffices once suffices
    while len(order):
        count = max(1, (4096 if where.type == 'cpu' else 65536) // examples.lengths[order[0]])
        rows, order = order[:count], order[count:]
        ids, last = examples.batch(rows, table)
        with torch.no_grad(), context:
            logits[rows] = model(ids.to(where), last.to(where)).float().cpu()
    model.train(training)
    return logits


def fine_tune(gpt, name, train, dev, language, tested, seed, where, number_format):
    """Fine-tunes a copy of `gpt` on a task in one language and scores it on the dev set in each language of `tested`.

    Returns dict(steps, best_step, seconds, curve of (step, dev accuracy in the training language), languages:
    {name: scores}). Raises ConfigError when training diverges."""
    task, started = TASKS[name], time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Classifier(copy.deepcopy(gpt), len(task.labels), dropout).to(where).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), eps=1e-8,
                                 fused=where.type in ('cpu', 'cuda'))
    scaler = torch.amp.GradScaler(where.type, enabled=number_format == torch.float16)
    context = autocast(where, number_format)
    total = max_epochs * math.ceil(len(train.tokens) / batch_size)
    batches = (rows for _ in range(max_epochs) for rows in epoch_batches(train.lengths, batch_size, rng))
    curve, best, best_step, worse_looks, weights = [], -1.0, 0, 0, None
    with tqdm(batches, total=total, desc=f'{name}, seed {seed}', unit=' steps', dynamic_ncols=True, leave=False) as bar:
        for step, rows in enumerate(bar, 1):
            ids, last = train.batch(rows, language.table)
            with context:  # not compiled: of a CPU's time for a step that saves a tenth, and compiling takes 250 steps
                logits = model(ids.to(where), last.to(where))
            loss = F.cross_entropy(logits.float(), torch.from_numpy(train.classes[rows]).to(where))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if step % eval_interval and step < total:
                continue
            logits = predict(model, dev, language.table, context)
            if not np.isfinite(logits).all():
                raise ConfigError(f'{name}, seed {seed}: training has diverged by step {step}; lower learning_rate')
            curve.append((step, accuracy(dev.classes, logits.argmax(1))))
            worse_looks += 1
            if curve[-1][1] > best:
                best, best_step, worse_looks = curve[-1][1], step, 0
                weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
            bar.set_postfix_str(f'loss {loss.item():.3f}, {language.name} {curve[-1][1]:.3f}, best {best:.3f}')
            if worse_looks == patience:
                break
    model.load_state_dict(weights)
    found = {one.name: predict(model, dev, one.table, context).argmax(1) for one in tested}
    return dict(steps=step, best_step=best_step, seconds=round(time.perf_counter() - started, 1), curve=curve,
                languages={key: scores(task, dev.classes, classes) for key, classes in found.items()})


# --- results ----------------------------------------------------------------------------------------------------------

def interval(values, examples):
    """90% interval [low, high] of a mean accuracy: Student's t over seeds; Wilson's over the examples of the dev set
    where there is one seed only."""
    mean = np.mean(values)
    if len(values) > 1:
        half = student_t.ppf(0.95, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    else:
        z2 = 1.6449 ** 2 / examples
        half = math.sqrt(z2 * mean * (1 - mean) + z2 ** 2 / 4) / (1 + z2)
        mean = (mean + z2 / 2) / (1 + z2)
    return [float(max(0, mean - half)), float(min(1, mean + half))]


def summarise(entry):
    """Adds to a task's entry what its finished seeds say of each language: the lists are in the order of `seeds`."""
    entry['runs'] = dict(sorted(entry['runs'].items(), key=lambda item: int(item[0])))
    entry['seeds'] = [int(seed) for seed in entry['runs']]
    entry['interval_over'] = 'seeds' if len(entry['seeds']) > 1 else 'examples'
    runs, entry['languages'] = list(entry['runs'].values()), {}
    for language in runs[0]['languages']:
        by_metric = {metric: [one['languages'][language][metric] for one in runs]
                     for metric in runs[0]['languages'][language]}
        values = by_metric['accuracy']
        entry['languages'][language] = dict(scores=by_metric[entry['metric']], **by_metric, mean=float(np.mean(values)),
                                            interval=interval(values, entry['dev_examples']))


def table(results, names):
    """The tasks `names` as lines of text: mean accuracy and its interval in each language, and below it the mean of
    the task's own metric where that is another; at the end the mean accuracy over the tasks."""
    entries = {name: results['tasks'][name] for name in names}
    languages = list(next(iter(entries.values()))['languages'])
    lines = [f'{"task":<9}{"metric":<10}{"majority":>8}  ' + ''.join(f'{name:<24}' for name in languages) + 'seeds']
    for name, entry in entries.items():
        cells = [f'{one["mean"]:.3f} [{one["interval"][0]:.3f}, {one["interval"][1]:.3f}]'
                 for one in map(entry['languages'].get, languages)]
        lines.append(f'{name:<9}{"accuracy":<10}{entry["majority"]:>8.3f}  ' + ''.join(f'{cell:<24}' for cell in cells)
                     + str(len(entry['seeds'])))
        if entry['metric'] != 'accuracy':
            cells = [f'{np.mean(entry["languages"][language]["scores"]):.3f}' for language in languages]
            lines.append(f'{"":<9}{entry["metric"]:<10}{entry["majority_score"]:>8.3f}  '
                         + ''.join(f'{cell:<24}' for cell in cells).rstrip())
    if len(entries) > 1:
        means = [np.mean([entry['languages'][language]['mean'] for entry in entries.values()]) for language in languages]
        lines.append(f'{"mean":<9}{"accuracy":<10}{np.mean([e["majority"] for e in entries.values()]):>8.3f}  '
                     + ''.join(f'{mean:<24.3f}' for mean in means).rstrip())
    return '\n'.join(lines)


def weights_hash(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def open_results(path, about):
    """The results in `path`, or new ones, for a run described by `about`. Raises ConfigError when the file is damaged
    or of other settings or other weights."""
    if not path.exists():
        return dict(about, tasks={})
    try:
        results = json.loads(path.read_text())
        stored = results['settings'] | {key: results[key] for key in ('train_language', 'step', 'weights')}
        results['tasks'].items()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f'{path} is damaged; delete it to fine-tune again') from None
    now = about['settings'] | {key: about[key] for key in ('train_language', 'step', 'weights')}
    differ = [f'{name} is {stored.get(name)!r} there and {now[name]!r} now' for name in now
              if stored.get(name) != now[name]]
    if differ:
        raise ConfigError(f'{path} holds results of other settings: {"; ".join(differ)}; rename it or delete it')
    return results


def main():
    check_settings()
    names = chosen_tasks(tasks, glue_dir)
    gpt, languages, state = load_run(out_dir)
    by_name = {language.name: language for language in languages}
    language = by_name.get(train_language or languages[0].name)
    if language is None:
        raise ConfigError(f'{out_dir} has no language {train_language!r}; it has {", ".join(by_name)}')
    limit = min(max_tokens, gpt.config.block_size)
    if limit < 4:
        raise ConfigError(f'the sequences of {out_dir} have {limit} tokens, too few for a pair of sentences')
    tested = [one for one in languages if one.corpus is language.corpus]
    where = pick_device(device)
    number_format = pick_dtype(dtype, where)
    pieces, path = language.corpus.load_tokenizer(), Path(out_dir) / 'finetune.json'
    about = dict(run=Path(out_dir).name, train_language=language.name, step=state['step'], weights=weights_hash(gpt),
                 settings={name: globals()[name] for name in settings_of(__file__)
                           if name not in FREE | {'train_language'}})
    with lock(out_dir), memory_advice('lower batch_size or max_tokens'):
        results, todo = open_results(path, about), {}
        for name in names:
            entry = results['tasks'].get(name)
            missing = [seed for seed in dict.fromkeys(seeds) if not entry or str(seed) not in entry['runs']]
            if missing:  # all files are read first: what is wrong with one shall be known before hours of work
                todo[name] = missing, *load_examples(name, pieces, limit)
                if entry and entry['data'] != todo[name][-1]:
                    raise ConfigError(f'the data of {name} in {glue_dir} is not what the results in {path} were made '
                                      'with; give that folder, or rename or delete the results')
        for name, (missing, train, dev, digest) in todo.items():
            task = TASKS[name]
            constant = majority(task, dev.classes)
            for seed in missing:
                done = fine_tune(gpt, name, train, dev, language, tested, seed, where, number_format)
                entry = results['tasks'].setdefault(name, dict(
                    metric=task.metric, majority=constant['accuracy'], majority_score=constant[task.metric],
                    train_examples=len(train.tokens), dev_examples=len(dev.tokens), data=digest, runs={}))
                entry['runs'][str(seed)] = done
                summarise(entry)
                write_json(path, results)
                print(f'{name}, seed {seed}: ' + ', '.join(f'{key} {value["accuracy"]:.3f}' for key, value
                                                            in done['languages'].items())
                      + f' (majority {entry["majority"]:.3f}), step {done["best_step"]} of {done["steps"]}, '
                      f'{done["seconds"]:,.0f} s')
    print(table(results, names))


if __name__ == '__main__':
    run(globals(), main)
