"""Zero-shot transfer: fine-tunes a run in one language, tests it in the others (Figure 1 right).

    python finetune.py --out_dir=out/RUN --glue_dir=FOLDER      # every task found in FOLDER
    python finetune.py --out_dir=out/RUN --glue_dir=FOLDER --tasks=cola,sst2 --seeds=[0,1,2]

A classification head on the last token is trained together with the model on the tasks of
lib/tasks.py. A clone of the same order reads the same tokens through its own table. Training stops
early by the training language's accuracy on the dev set, which is also the test set: this accuracy
is optimistic. The other languages are scored once, at the step that the training language chose.

Results go to out/RUN/finetune.json after each task and seed, with every prediction; rerun to add
what is missing. The 90% intervals are over examples and seeds, with one seed over examples alone.
"""

import copy
import hashlib
import json
import math
from pathlib import Path

from lib.configurator import ConfigError, defaults_of, require, run

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from evaluate import load_run
from lib.estimate import Estimate, over_seeds
from lib.files import lock, write_json
from lib.machine import autocast, memory_advice, pick_device, pick_dtype
from lib.runs import differing
from lib.tables import align
from lib.tasks import TASKS, chosen_tasks, mean_over_tasks, read_task
from lib.tokenizer import DOCUMENT_END, PAD
from model import make_optimizer

out_dir = ''  # folder of a run of train.py, for example out/demo_90_10
data_dir = 'data'  # folder of the corpora; where it lacks them, that of the run
tasks = 'all'  # names of tasks (see lib/tasks.py), separated by commas; all: those in glue_dir
glue_dir = ''  # folder with the folders of GLUE and SuperGLUE, or hf:DATASET, as hf:nyu-mll/glue
train_language = ''  # the language to fine-tune in; empty: the first of the run
seeds = [12]  # one fine-tuning each: order of the examples, initial head, dropout
learning_rate = 5e-5  # constant
batch_size = 64  # examples of a step
max_epochs = 10  # epochs of the training set, unless early stopping ends the training
max_tokens = 128  # tokens of an example, at most (and at most the model's block_size)
eval_interval = 200  # steps between evaluations on the dev set
patience = 10  # evaluations without a higher accuracy before training stops
dropout = 0.1  # before the head
max_examples = 0  # train on so many examples, the same for all seeds; 0: all
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32

FREE = {'out_dir', 'data_dir', 'tasks', 'glue_dir', 'seeds', 'device', 'train_language'}


def encode(tokenizer, texts, limit):
    """Token ids of each example, at most `limit`: each text is followed by end of document.

    texts: tuples of one text or a pair. What is too long is cut at its end, of a pair the longer
    text first; an end of document is never cut. Returns a list of uint16 arrays."""
    room, encoded = limit - len(texts[0]), []
    for first, *second in zip(*(tokenizer.encode(list(column)) for column in zip(*texts))):
        second = [ids[: max(room - len(first), room // 2)] for ids in second]
        parts = [first[: room - sum(map(len, second))], *second]
        encoded.append(np.uint16([token for ids in parts for token in [*ids, DOCUMENT_END]]))
    return encoded


def load_task(name, tokenizer, limit):
    """(training set, dev set, the task's entry in the results before its first seed). A set is
    (token ids, classes). Dev examples with the same first text (passage, premise) are one group."""
    sets, digest, task = [], hashlib.sha256(), TASKS[name]
    fits = len(task.texts) <= 2 and len(task.labels) <= 10
    require(fits, f'{name} has more than two texts or ten classes')
    for part in ('train', 'dev'):
        texts, classes = read_task(name, glue_dir, part)
        if part == 'train' and max_examples:
            rows = np.random.default_rng(0).permutation(len(classes))[:max_examples]
            texts, classes = [texts[row] for row in rows], classes[rows]
        digest.update(json.dumps([texts, classes.tolist()]).encode())
        sets.append((encode(tokenizer, texts, limit), classes))
    _, groups = np.unique([first for first, *_ in texts], return_inverse=True)
    require(groups.any(), f'{name}: all dev examples have one first text: no interval is known')
    entry = dict(train_examples=len(sets[0][1]), dev_examples=len(classes), groups=groups.tolist())
    entry |= dict(majority=np.bincount(classes).max() / len(classes), data=digest.hexdigest())
    return *sets, entry | dict(truth=''.join(map(str, classes)), runs={})


# --- training -------------------------------------------------------------------------------------


def classifier(gpt, classes):
    """A copy of a GPT whose head for tokens is replaced by a head for classes."""
    model, head = copy.deepcopy(gpt), nn.Linear(gpt.config.n_embd, classes)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    model.head = nn.Sequential(nn.Dropout(dropout), head)
    return model


def classify(model, tokens, language):
    """Logits (B, classes) of examples (list of token ids) in a language and its order."""
    rows = [torch.from_numpy(language.ids(ids).astype(np.int64)) for ids in tokens]
    idx = pad_sequence(rows, batch_first=True, padding_value=PAD)
    # Round up to a multiple of 8: every new shape costs memory that a CPU's allocator keeps.
    idx = F.pad(idx, (0, -idx.shape[1] % 8), value=PAD)[:, : model.config.block_size]
    # Attention is causal: the padding behind the last token has no effect on it.
    logits = model(idx.to(model.wte.weight.device))
    return logits[torch.arange(len(rows)), [len(row) - 1 for row in rows]].float()


def batches_of(lengths, epochs, rng):
    """Generator of batches (arrays of rows): some epochs of examples of these lengths, shuffled. A
    batch is padded to its longest example, so it has examples of nearly the same length."""
    for _ in range(epochs):
        order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)))
        batches = np.split(order, range(batch_size, len(order), batch_size))
        yield from (batches[i] for i in rng.permutation(len(batches)))


@torch.no_grad()
def predict(model, tokens, language, context):
    """Logits (N, classes) float32 of all examples in a language, without dropout."""
    model.eval()
    order = np.argsort([-len(ids) for ids in tokens])  # memory errors first
    batches = np.split(order, range(batch_size, len(order), batch_size))
    with context:
        logits = [classify(model, [tokens[row] for row in rows], language) for rows in batches]
    return torch.cat(logits).cpu().numpy()[order.argsort()]


def fine_tune(gpt, name, train, dev, language, tested, seed, place, compute_dtype):
    """Fine-tunes a copy of `gpt` on a task in one language; tests it in each language of `tested`.

    Returns dict(steps, best_step, curve: (step, dev accuracy in the training language) of each
    evaluation, predictions: {name: the class of each dev example, a digit}). Raises ConfigError."""
    (tokens, classes), (dev_tokens, truth), curve = train, dev, []
    torch.manual_seed(seed)
    context, model = autocast(place, compute_dtype), classifier(gpt, len(TASKS[name].labels))
    optimizer = make_optimizer(model.to(place), learning_rate)
    scaler = torch.amp.GradScaler(place.type, enabled=compute_dtype == torch.float16)
    batches = batches_of(np.array([*map(len, tokens)]), max_epochs, np.random.default_rng(seed))
    total = max_epochs * math.ceil(len(tokens) / batch_size)
    with tqdm(batches, f'{name}, seed {seed}', total, unit=' steps', leave=False) as bar:
        for step, rows in enumerate(bar, 1):
            model.train()
            with context:  # uncompiled: a CPU would save a tenth of a step; compiling takes 250
                logits = classify(model, [tokens[row] for row in rows], language)
            loss = F.cross_entropy(logits, torch.from_numpy(classes[rows]).to(place))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if step % eval_interval and step < total:
                continue
            logits = predict(model, dev_tokens, language, context)
            finite = np.isfinite(logits).all()
            require(finite, f'{name}, seed {seed}: diverged by step {step}; lower learning_rate')
            curve.append((step, float(np.mean(truth == logits.argmax(1)))))
            best_step, best = max(curve, key=lambda point: point[1])  # the first of equals
            if best_step == step:
                weights = copy.deepcopy(model.state_dict())
            bar.set_postfix_str(f'loss {loss.item():.3f}, {language.name} {best:.3f}')
            if sum(point[0] > best_step for point in curve) == patience:
                break
    model.load_state_dict(weights)
    logits = {other.name: predict(model, dev_tokens, other, context) for other in tested}
    predictions = {key: ''.join(map(str, rows.argmax(1))) for key, rows in logits.items()}
    return dict(steps=step, best_step=best_step, curve=curve, predictions=predictions)


# --- results --------------------------------------------------------------------------------------


def summary(estimate):
    """An Estimate (S,) as JSON: the values of the seeds, their mean and its 90% interval."""
    ends = np.clip(over_seeds(list(estimate)).interval(), -1, 1).tolist()
    return dict(values=estimate.value.tolist(), mean=estimate.value.mean(), interval=ends)


def summarise(entry, trained):
    """Adds the results in each language to a task's entry, from the predictions of its seeds: the
    `summary` of the accuracy, and of its difference to the language `trained`, over paired
    examples. Whole groups of dev examples are resampled."""
    found = [entry['runs'][seed]['predictions'] for seed in sorted(entry['runs'], key=int)]
    truth, accuracy = list(entry['truth']), {}
    for name in min(found, key=len):  # older results have languages of other orders, too
        right = np.array([list(predictions[name]) for predictions in found]) == truth  # (S, N)
        accuracy[name] = Estimate.of(right.T, entry['groups'])
    entry['languages'] = {
        name: summary(here) | dict(difference=summary(here - accuracy[trained]))
        for name, here in accuracy.items()
    }


def table(results, names):
    """The tasks `names` as text, and the mean accuracy over them."""
    trained, entries = results['train_language'], [results['tasks'][name] for name in names]
    lines = [('task', 'language', 'accuracy [90%]', 'majority', f'minus {trained}', 'seeds')]
    cell = '{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]'.format_map
    for name, entry in zip(names, entries):
        for language, found in entry['languages'].items():
            gap = '' if language == trained else cell(found['difference'])
            numbers = f'{entry["majority"]:.3f}', gap, str(len(entry['runs']))
            lines.append((name, language, cell(found), *numbers))
    for language in entries[0]['languages'] if len(names) > 1 else ():
        found = mean_over_tasks(entries, language)
        lines.append(('mean', language, cell(found), f'{found["majority"]:.3f}', '', ''))
    return align(lines, left=2)


def open_results(path, about):
    """The results in `path`, or new ones, of a run that `about` describes. Raises ConfigError when
    the file is damaged, or of other settings or weights."""
    advice = 'rename it or delete it'
    try:
        results = json.loads(path.read_text()) if path.exists() else dict(about, tasks={})
        for entry in results['tasks'].values():
            summarise(entry, results['train_language'])
        stored, now = (one | one['settings'] for one in (results, about))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f'{path} is damaged or of an older version; {advice}') from None
    names = differing(stored, now, {'run', 'settings', 'tasks'})
    pairs = (f'{name} is {stored.get(name)!r} there and {now.get(name)!r} now' for name in names)
    require(not names, f'{path} differs: {"; ".join(pairs)}; {advice}')
    return results


def main():
    require(out_dir, 'say which run to fine-tune: --out_dir=out/RUN')
    require(glue_dir, 'say where the tasks are: --glue_dir=FOLDER or --glue_dir=hf:nyu-mll/glue')
    whole = seeds and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    require(whole, f'seeds must be whole numbers from 0 to 4,294,967,295, not {seeds}')
    require(learning_rate > 0 <= dropout < 1, 'learning_rate must be above 0, dropout 0 to below 1')
    least = dict(batch_size=1, max_epochs=1, eval_interval=1, patience=1, max_examples=0)
    for name, minimum in dict(least, max_tokens=4).items():  # a pair of a token each, and ends
        require(globals()[name] >= minimum, f'{name} must be at least {minimum}')
    names, out = chosen_tasks(tasks, glue_dir), Path(out_dir)
    gpt, languages, state = load_run(out_dir, data_dir)
    by_name = {language.name: language for language in languages}
    trained = by_name.get(train_language or languages[0].name)
    require(trained, f'train_language={train_language!r} is none of {", ".join(by_name)}')
    same = (one for one in languages if one.corpus is trained.corpus)
    tested = [one for one in same if one.order == trained.order]
    if others := ', '.join(one.name for one in languages if one not in tested):
        print(f'not tested: {others}, since the tasks are in {trained.name} and its order')
    limit, tokenizer = min(max_tokens, gpt.config.block_size), trained.corpus.load_tokenizer()
    place, weights = pick_device(device), hashlib.sha256()
    compute_dtype = pick_dtype(dtype, place)
    for name, tensor in sorted(gpt.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    fixed = {name: globals()[name] for name in defaults_of(__file__) if name not in FREE}
    about = dict(run=out.name, train_language=trained.name, step=state['step'])
    about |= dict(weights=weights.hexdigest(), settings=fixed)
    with lock(out), memory_advice('lower batch_size or max_tokens'):
        results, jobs = open_results(out / 'finetune.json', about), []
        for name in names:  # a broken file is found before hours of work on the others
            train, dev, new = load_task(name, tokenizer, limit)
            entry = results['tasks'].get(name, new)
            same = entry['data'] == new['data']
            require(same, f'the data of {name} in {glue_dir} is not that of {out}/finetune.json')
            missing = [seed for seed in dict.fromkeys(seeds) if str(seed) not in entry['runs']]
            jobs += [(entry, name, train, dev, trained, tested, seed) for seed in missing]
        for entry, name, *job, seed in jobs:
            found = fine_tune(gpt, name, *job, seed, place, compute_dtype)
            entry['runs'][str(seed)], results['tasks'][name] = found, entry
            summarise(entry, trained.name)
            write_json(out / 'finetune.json', results)
            print(f'{name}: seed {seed} is finished')
    print(table(results, names))


if __name__ == '__main__':
    run(globals(), main)
