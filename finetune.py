"""Zero-shot transfer: fine-tunes a run in one language and tests it in the others (Section 4.2,
Figure 1 right).

    python finetune.py --out_dir=out/RUN --glue_dir=FOLDER      # every task found in FOLDER
    python finetune.py --out_dir=out/RUN --glue_dir=FOLDER --tasks=cola,sst2 --seeds=[0,1,2]

A classification head on the last token is trained together with the model on the tasks of glue.py.
A clone gets the tokens of the training language through its own lookup table: it is tested on
labels that it never saw. Training stops early on the dev set of the training language. The test
sets' labels are not public, so the model is scored on that dev set, too, and the training
language's own score is optimistic: it is the best of several looks. The other languages are scored
once, at the step that the training language chose.

Results go to out/RUN/finetune.json after each task and seed; what is there is not computed again.
Intervals (90%) are those of a mean over examples and seeds, see `interval`.
"""

import copy
import hashlib
import itertools
import json
import math
import time
from pathlib import Path

from lib.configurator import ConfigError, run, settings_of

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from scipy.stats import t as student_t
from tqdm import tqdm

from evaluate import load_run
from lib.files import lock, write_json
from lib.machine import autocast, memory_advice, pick_device, pick_dtype
from lib.tasks import METRICS, TASKS, chosen_tasks, majority, outcomes, read_task, scores
from lib.tokenizer import DOCUMENT_END, PAD
from model import make_optimizer

out_dir = ''  # folder of a run of train.py, for example out/demo_90_10
tasks = 'all'  # names of tasks (see glue.py) with commas between; all: those that glue_dir holds
glue_dir = ''  # folder with the folders of GLUE and SuperGLUE, or hf:DATASET, as hf:nyu-mll/glue
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

FREE = {'out_dir', 'tasks', 'glue_dir', 'seeds', 'device', 'train_language'}  # may change
RESAMPLES = 1000  # draws of the dev set's examples


def check_settings():
    whole = seeds and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    least = dict(batch_size=1, max_epochs=1, eval_interval=1, patience=1, max_tokens=4)
    low = [(name, n) for name, n in dict(least, max_examples=0).items() if globals()[name] < n]
    for wrong, message in (
        (not out_dir, 'say which run to fine-tune: --out_dir=out/RUN'),
        (not glue_dir, 'say where the tasks are: --glue_dir=FOLDER or --glue_dir=hf:nyu-mll/glue'),
        (not whole, f'seeds must be whole numbers of 0 to 4,294,967,295, not {seeds}'),
        (learning_rate <= 0, f'learning_rate must be positive, not {learning_rate}'),
        (not 0 <= dropout < 1, f'dropout must lie between 0 and 1, not {dropout}'),
        *((True, f'{name} must be at least {n}, not {globals()[name]}') for name, n in low),
    ):
        if wrong:
            raise ConfigError(message)


# --- examples -------------------------------------------------------------------------------------


class Examples:
    """Examples of a task: tokens (uint16 ids of the corpus, before any language's table), classes
    (N,) and groups (N,): examples with the same first text (a passage, a premise) are a group."""

    def __init__(self, tokens, classes=None, texts=()):
        self.tokens, self.classes = tokens, classes
        self.lengths = np.array([len(ids) for ids in tokens])
        numbers = {}
        self.groups = np.array([numbers.setdefault(text[0], len(numbers)) for text in texts])

    def batch(self, rows, language):
        """Examples `rows` in a language and its order: ids (B, T) int64, padded on the right, and
        the place of the last token of each, (B,) int64."""
        longest = self.lengths[rows].max()
        # Round up to a multiple of 8: every new shape costs memory that a CPU's allocator keeps.
        longest = min(-(-longest // 8) * 8, self.lengths.max())
        ids = np.full((len(rows), longest), PAD, np.int64)
        for line, row in zip(ids, rows):
            line[: self.lengths[row]] = language.ids(self.tokens[row])
        last = torch.from_numpy(self.lengths[rows] - 1)
        return torch.from_numpy(ids), last


def encode(pieces, texts, limit):
    """Tokens of each example: a text, or both of a pair, each followed by <D>, at most `limit`.

    What is too long is cut at its end, of a pair the longer text first; no <D> is cut. texts:
    tuples of one or two. Returns a list of uint16 arrays."""
    room = limit - len(texts[0])
    columns = [pieces.encode([example[i] for example in texts]) for i in range(len(texts[0]))]
    encoded = []
    for first, *second in zip(*columns):
        second = [ids[: max(room - len(first), room // 2)] for ids in second]
        parts = [first[: room - sum(map(len, second))], *second]
        tokens = [token for ids in parts for token in [*ids, DOCUMENT_END]]
        encoded.append(np.array(tokens, dtype=np.uint16))
    return encoded


def epoch_batches(lengths, batch_size, rng, pool=16):
    """The batches (arrays of rows) of one pass over examples of these lengths, in random order.

    A batch is as long as its longest example. So that little of it is padding, each `pool` batches
    drawn at random are sorted by length and then cut into batches."""
    order, batches = rng.permutation(len(lengths)), []
    for start in range(0, len(order), pool * batch_size):
        drawn = order[start : start + pool * batch_size]
        drawn = drawn[np.argsort(lengths[drawn], kind='stable')]
        batches += [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def load_task(name, pieces, limit):
    """(training examples, dev examples, what the results say of a task before its first seed)."""
    sets, digest, task = [], hashlib.sha256(), TASKS[name]
    for dev in (False, True):
        texts, classes = read_task(name, glue_dir, dev)
        if not dev and 0 < max_examples < len(classes):
            rows = np.random.default_rng(0).permutation(len(classes))[:max_examples]
            texts, classes = [texts[row] for row in rows], classes[rows]
        digest.update(json.dumps([texts, classes.tolist()]).encode())
        sets.append(Examples(encode(pieces, texts, limit), classes, texts))
    train, dev = sets
    constant = majority(task, dev.classes)
    entry = dict(
        metric=task.metric,
        majority=constant['accuracy'],
        majority_score=constant[task.metric],
        train_examples=len(train.tokens),
        dev_examples=len(dev.tokens),
        data=digest.hexdigest(),
        truth=''.join(map(str, dev.classes)),
        groups=dev.groups.tolist(),
        runs={},
    )
    return train, dev, entry


# --- the model ------------------------------------------------------------------------------------


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
        for x in self.gpt.residual_stream(idx):  # noqa: B007
            pass
        x = x[torch.arange(len(idx), device=idx.device), last]
        return self.head(self.dropout(self.gpt.ln_f(x)))


def predict(model, examples, language, context):
    """Logits (N, classes) float32 of all examples in a language, without dropout."""
    model_device, training = model.head.weight.device, model.training
    model.eval()
    logits = np.empty((len(examples.tokens), model.head.out_features), np.float32)
    tokens_at_once = 4096 if model_device.type == 'cpu' else 65536
    # The longest come first: memory that suffices for them suffices for the others.
    order = np.argsort(examples.lengths, kind='stable')[::-1]
    while len(order):
        count = max(1, tokens_at_once // examples.lengths[order[0]])
        rows, order = order[:count], order[count:]
        ids, last = examples.batch(rows, language)
        with torch.no_grad(), context:
            logits[rows] = model(ids.to(model_device), last.to(model_device)).float().cpu()
    model.train(training)
    return logits


def fine_tune(gpt, name, train, dev, language, tested, seed, compute_device, compute_dtype):
    """Fine-tunes a copy of `gpt` on a task in one language; scores it in each language of `tested`.

    Returns dict(steps, best_step, seconds, curve of (step, dev accuracy in the training language),
    languages: {name: scores}, predictions: {name: the class of each dev example, a digit}).
    Raises ConfigError when training diverges."""
    task, started = TASKS[name], time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Classifier(copy.deepcopy(gpt), len(task.labels), dropout).to(compute_device).train()
    optimizer = make_optimizer(model.parameters(), learning_rate)
    scaler = torch.amp.GradScaler(compute_device.type, enabled=compute_dtype == torch.float16)
    context = autocast(compute_device, compute_dtype)
    total = max_epochs * math.ceil(len(train.tokens) / batch_size)
    epochs = (epoch_batches(train.lengths, batch_size, rng) for _ in range(max_epochs))
    batches = itertools.chain.from_iterable(epochs)
    curve, best, best_step, best_look = [], -1.0, 0, 0
    with tqdm(batches, total=total, desc=f'{name}, seed {seed}', unit=' steps', leave=False) as bar:
        for step, rows in enumerate(bar, 1):
            ids, last = train.batch(rows, language)
            # Not compiled: a CPU would save a tenth of a step, and compiling takes 250 steps.
            with context:
                logits = model(ids.to(compute_device), last.to(compute_device))
            truth = torch.from_numpy(train.classes[rows]).to(compute_device)
            loss = F.cross_entropy(logits.float(), truth)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if step % eval_interval and step < total:
                continue
            logits = predict(model, dev, language, context)
            if not np.isfinite(logits).all():
                advice = f'training has diverged by step {step}; lower learning_rate'
                raise ConfigError(f'{name}, seed {seed}: {advice}')
            accuracy = float(np.mean(dev.classes == logits.argmax(1)))
            curve.append((step, accuracy))
            if accuracy > best:
                best, best_step, best_look = accuracy, step, len(curve)
                weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
            bar.set_postfix_str(f'loss {loss.item():.3f}, {language.name} {accuracy:.3f}')
            if len(curve) - best_look == patience:
                break
    model.load_state_dict(weights)
    answers = {other.name: predict(model, dev, other, context).argmax(1) for other in tested}
    return dict(
        steps=step,
        best_step=best_step,
        seconds=round(time.perf_counter() - started, 1),
        curve=curve,
        languages={key: scores(task, dev.classes, answer) for key, answer in answers.items()},
        predictions={key: ''.join(map(str, answer)) for key, answer in answers.items()},
    )


# --- intervals ------------------------------------------------------------------------------------


def resampled(entry, language):
    """{metric: (values, draws)} of a task's finished seeds in a language.

    values: (S,), one for each seed; draws: (RESAMPLES, S) of them on resampled examples of the dev
    set. Whole groups are drawn, the same for all seeds, languages and runs with this dev set: the
    difference of two draws is one of paired examples."""
    truth = np.array(list(entry['truth']), int)
    predictions = [list(result['predictions'][language]) for result in entry['runs'].values()]
    columns = outcomes(truth, np.array(predictions, int))  # (S, N, 5)
    groups = np.array(entry['groups'])
    count = groups.max() + 1
    sums = np.zeros((count, *columns[:, 0].shape))  # (groups, S, 5)
    np.add.at(sums, groups, columns.swapaxes(0, 1))
    rng, draws = np.random.default_rng(0), np.empty((RESAMPLES, *sums[0].shape))
    for draw in draws:
        weights = np.bincount(rng.integers(count, size=count), minlength=count)
        draw[:] = np.tensordot(weights, sums, 1)
    metrics = {name: METRICS[name] for name in ('accuracy', entry['metric'])}
    return {name: (metric(sums.sum(0)), metric(draws)) for name, metric in metrics.items()}


def interval(values, draws, lowest=-1):
    """90% interval [low, high], within `lowest` and 1, of a mean over examples and seeds.

    values: (S,), draws: (RESAMPLES, S), as of `resampled`. The spread over seeds holds their own
    noise and the part of the examples' error that differs by seed; it enters with Student's t. What
    all seeds share of the examples' error, the covariance of their draws, is added to it. With one
    seed the interval is over the examples alone. Where all examples agree there is nothing to
    resample, and the interval has no width."""
    deviations, count = draws.mean(1) - draws.mean(), len(values)
    if count > 1:
        covariance = np.cov(draws.T)
        shared = (covariance.sum() - np.trace(covariance)) / (count * (count - 1))
        deviations *= math.sqrt(max(shared, 0) / max(deviations.var(), 1e-12))
        quantiles = student_t.ppf((np.arange(RESAMPLES) + 0.5) / RESAMPLES, count - 1)
        noise = np.random.default_rng(1).permutation(quantiles)
        deviations += noise * np.std(values, ddof=1) / math.sqrt(count)
    ends = np.mean(values) + np.percentile(deviations, [5, 95])
    return np.clip(ends, lowest, 1).tolist()


def summarise(entry, trained):
    """Adds to a task's entry what its finished seeds, in their order, say of each language.

    `difference` is a language's accuracy less that of the language `trained`, with its interval."""
    entry['runs'] = dict(sorted(entry['runs'].items(), key=lambda item: int(item[0])))
    entry['seeds'] = [int(seed) for seed in entry['runs']]
    entry['interval_over'] = 'examples and seeds' if len(entry['seeds']) > 1 else 'examples'
    languages = next(iter(entry['runs'].values()))['languages']
    drawn = {language: resampled(entry, language) for language in languages}
    base, base_draws = drawn[trained]['accuracy']
    entry['languages'] = {}
    for language, metrics in drawn.items():
        (values, draws), (own, own_draws) = metrics['accuracy'], metrics[entry['metric']]
        difference = interval(values - base, draws - base_draws)
        lowest = -1 if entry['metric'] == 'matthews' else 0
        entry['languages'][language] = dict(
            {metric: values.tolist() for metric, (values, _) in metrics.items()},
            mean=values.mean(),
            interval=interval(values, draws, 0),
            difference=dict(mean=(values - base).mean(), interval=difference),
            scores=own.tolist(),
            score=own.mean(),
            score_interval=interval(own, own_draws, lowest),
        )


def mean_over_tasks(cells):
    """(mean, interval) over tasks, whose errors are independent. cells: (value, interval) each."""
    values = np.array([value for value, _ in cells])
    ends = np.array([ends for _, ends in cells])
    low, high = np.sqrt(((ends - values[:, None]) ** 2).sum(0)) / len(values)
    return values.mean(), (values.mean() - low, values.mean() + high)


def table(results, names):
    """The tasks `names` as text, a line for each language: accuracy, how far it is from that of the
    training language, and the task's own metric; at the end the mean accuracy over the tasks."""
    trained, accuracies = results['train_language'], {}
    lines = ['task     metric    language      mean [90% interval]       majority  interval over']

    def add(task, metric, language, mean, ends, constant='', over=''):
        cell = f'{mean:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]'
        lines.append(f'{task:<9}{metric:<10}{language:<14}{cell:<26}{constant:>8}  {over}'.rstrip())

    for name in names:
        entry = results['tasks'][name]
        over = f'{entry["interval_over"]} ({len(entry["seeds"])})'
        for language, summary in entry['languages'].items():
            accuracy = summary['mean'], summary['interval']
            accuracies.setdefault(language, []).append(accuracy)
            add(name, 'accuracy', language, *accuracy, f'{entry["majority"]:.3f}', over)
            if language != trained:
                add(name, 'accuracy', f'{language} - {trained}', *summary['difference'].values())
            if entry['metric'] != 'accuracy':
                own = summary['score'], summary['score_interval'], f'{entry["majority_score"]:.3f}'
                add(name, entry['metric'], language, *own)
    if len(names) > 1:
        constant = np.mean([results['tasks'][name]['majority'] for name in names])
        for language, cells in accuracies.items():
            add('mean', 'accuracy', language, *mean_over_tasks(cells), f'{constant:.3f}')
    return '\n'.join(lines)


# --- the script -----------------------------------------------------------------------------------


def weights_hash(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def open_results(path, about):
    """The results in `path`, or new ones, of a run that `about` describes.

    Raises ConfigError when the file is damaged, or of other settings or weights."""
    if not path.exists():
        return dict(about, tasks={})

    def identity(results):
        return results['settings'] | {k: results[k] for k in ('train_language', 'step', 'weights')}

    try:
        results = json.loads(path.read_text())
        stored, now = identity(results), identity(about)
        whole = all(entry['truth'] and entry['groups'] for entry in results['tasks'].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ConfigError(f'{path} is damaged or of an older version; rename it or delete it')
    changed = {key: stored.get(key) for key in now if stored.get(key) != now[key]}
    if changed:
        pairs = [f'{key} is {old!r} there and {now[key]!r} now' for key, old in changed.items()]
        raise ConfigError(f'{path} differs: {"; ".join(pairs)}; rename it or delete it')
    return results


def main():
    check_settings()
    names = chosen_tasks(tasks, glue_dir)
    gpt, languages, state = load_run(out_dir)
    by_name = {language.name: language for language in languages}
    trained = by_name.get(train_language or languages[0].name)
    if trained is None:
        known = ', '.join(by_name)
        raise ConfigError(f'{out_dir} has no language {train_language!r}; it has {known}')
    limit = min(max_tokens, gpt.config.block_size)
    if limit < 4:
        raise ConfigError(f'the sequences of {out_dir} have {limit} tokens, too few for a pair')
    tested = [language for language in languages if language.corpus is trained.corpus]
    machine = pick_device(device), pick_dtype(dtype, pick_device(device))
    pieces, path = trained.corpus.load_tokenizer(), Path(out_dir) / 'finetune.json'
    fixed = {name: globals()[name] for name in settings_of(__file__) if name not in FREE}
    about = dict(run=Path(out_dir).name, train_language=trained.name, step=state['step'])
    about |= dict(weights=weights_hash(gpt), settings=fixed)
    with lock(out_dir), memory_advice('lower batch_size or max_tokens'):
        results, todo = open_results(path, about), {}
        for name in names:
            done = results['tasks'].get(name, dict(runs={}))['runs']
            missing = [seed for seed in dict.fromkeys(seeds) if str(seed) not in done]
            if missing:  # a broken file is found before hours of work on the others
                train, dev, new = load_task(name, pieces, limit)
                entry = results['tasks'].get(name, new)
                if entry['data'] != new['data']:
                    made = f'not what the results in {path} were made with'
                    advice = 'give that folder, or rename or delete the results'
                    raise ConfigError(f'the data of {name} in {glue_dir} is {made}; {advice}')
                todo[name] = missing, train, dev, entry
        for name, (missing, train, dev, entry) in todo.items():
            results['tasks'][name] = entry
            for seed in missing:
                result = fine_tune(gpt, name, train, dev, trained, tested, seed, *machine)
                entry['runs'][str(seed)] = result
                summarise(entry, trained.name)
                write_json(path, results)
                found = [f'{key} {run["accuracy"]:.3f}' for key, run in result['languages'].items()]
                steps = f'step {result["best_step"]} of {result["steps"]}'
                cells = ', '.join([*found, steps, f'{result["seconds"]:,.0f} s'])
                print(f'{name}, seed {seed}: {cells}')
    print(table(results, names))


if __name__ == '__main__':
    run(globals(), main)
