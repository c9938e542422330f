"""Trains a GPT on a mix of languages.

    python train.py config/table1_row05.py                     # one process
    python train.py config/table1_row05.py --size=mini --out_dir=out/mini
    torchrun --nproc_per_node=8 train.py config/table1_row05.py   # eight, with the same result

The same command again goes on where the run stopped, or prints the result of a finished run. In out/RUN: log.jsonl
(a line a step with the loss of each language, and the quick perplexities), checkpoints, results.json.
"""
import contextlib
import json
import math
import os
import platform
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from checkpoint import (check_corpora, checkpoint_paths, corpora_identity, last_checkpoint, lock, save_checkpoint,
                        write_json)
from configurator import ConfigError, run
from device import Processes, Signals, autocast, available_bytes, can_compile, describe, measure_peak, memory_advice, pick_dtype
from evaluate import perplexities, table
from data import LanguageMix, build_languages
from model import GPT, SIZES, GPTConfig
from schedule import decay_start, language_probabilities, learning_rate as learning_rate_at

# the languages (Sections 4 and 5)
corpora = ['docs', 'docs']  # the corpus of each language; a corpus named twice makes clones
languages = ['en1', 'en2']  # a name for each
vocabulary = 'disjoint'  # disjoint, or anchored: pieces spelled alike in two corpora are one entry (Appendix D.2)
cloned_fraction = 1.0  # share of the pieces that clones have each for themselves; the rest they share (Appendix D.1)
stages = [[0.9, 0.1]]  # p(language), a row for each of the equally long stages of the run (Section 4.5)
# the model (Section 3)
size = 'small'  # mini, small or medium; the next five, where not 0, override its numbers
n_layer = 0  # blocks
n_head = 0  # attention heads
head_dim = 0  # width of a head
n_embd = 0  # width of the residual stream
mlp_dim = 0  # width of the MLP's hidden layer
block_size = 512  # tokens of a sequence
# the optimisation
batch_size = 128  # sequences of a step, over all processes
micro_batch_size = 0  # sequences of one pass of one process; 0: the largest that fits the device
max_steps = 18265  # steps; 18,265 of 128 x 512 tokens are the paper's 1.2B
warmup_steps = 500  # steps of linear warm-up
learning_rate = 6e-4  # its peak
min_learning_rate = 6e-6  # where it ends
lr_schedule = 'cosine'  # cosine, or wsd: constant, then down over the last decay_fraction of the run
decay_fraction = 0.2  # of a wsd run
init_from = ''  # folder of a longer wsd run with the same settings: branch off it instead of starting at step 0
branch_step = 0  # its checkpoint to branch from; 0: the last one before the learning rate falls
# the run
out_dir = ''  # where everything goes; empty: out/ and the names of the config files
eval_interval = 1000  # steps between quick perplexities of each language; 0: none before the end
eval_windows = 256  # windows of a quick perplexity
final_windows = 0  # windows of the perplexity at the end; 0: the whole test set
checkpoint_interval = 1000  # steps between checkpoints
keep_checkpoints = []  # steps whose checkpoints are kept for good, for branches and studies of training
log_interval = 10  # steps between looks at the loss: each costs a GPU a wait
seed = 0  # of weights, languages drawn and order of the text
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # bfloat16, float16, float32; auto: the first of them that the device is made for
compile = True  # torch.compile the model
wandb_project = ''  # log to this project of Weights & Biases as well

FREE = {'out_dir', 'eval_interval', 'eval_windows', 'final_windows', 'checkpoint_interval', 'keep_checkpoints',
        'log_interval', 'device', 'compile', 'micro_batch_size', 'wandb_project'}  # settings that may change between a run and its resumption


# --- what the settings mean -------------------------------------------------------------------------------------------

def check_settings():
    """Raises ConfigError for settings that contradict each other or the paper's definitions."""
    if not stages or any(len(row) != len(languages) for row in stages):
        raise ConfigError(f'stages must have rows of {len(languages)} probabilities, one a language, not {stages}')
    for row in stages:
        if not all(isinstance(p, (int, float)) and 0 <= p <= 1 for p in row) or abs(sum(row) - 1) > 1e-6:
            raise ConfigError(f'the probabilities of a stage must lie between 0 and 1 and add up to 1, not {row}')
    for name in ('block_size', 'batch_size', 'max_steps', 'checkpoint_interval', 'log_interval'):
        if globals()[name] < 1:
            raise ConfigError(f'{name} must be at least 1, not {globals()[name]}')
    for name in ('warmup_steps', 'eval_interval', 'eval_windows', 'final_windows', 'micro_batch_size', 'seed', 'branch_step'):
        if globals()[name] < 0:
            raise ConfigError(f'{name} must not be negative: {globals()[name]}')
    if not 0 <= min_learning_rate <= learning_rate:
        raise ConfigError(f'min_learning_rate {min_learning_rate} must lie between 0 and learning_rate {learning_rate}')
    if lr_schedule not in ('cosine', 'wsd'):
        raise ConfigError(f'lr_schedule must be cosine or wsd, not {lr_schedule!r}')
    if not 0 < decay_fraction <= 1:
        raise ConfigError(f'decay_fraction must lie between 0 and 1, not {decay_fraction}')


def model_config(entries):
    """GPTConfig of the settings, for a vocabulary of `entries`."""
    if size and size not in SIZES:
        raise ConfigError(f'size must be one of {", ".join(SIZES)}, or empty with all numbers given, not {size!r}')
    shape = dict(SIZES.get(size, {}))
    for name in ('n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim'):
        if globals()[name] > 0:
            shape[name] = globals()[name]
        elif name not in shape or globals()[name] < 0:
            raise ConfigError(f'{name} must be a positive number, or size one of {", ".join(SIZES)}')
    return GPTConfig(**shape, block_size=block_size, vocab_size=entries)


def run_folder(stems):
    return Path(out_dir or os.path.join('out', '-'.join(stems) or 'default'))


def refuse_other_settings(stored, settings, out):
    """Raises ConfigError when a run was made with settings that would give another result."""
    differ = [f'{name} is {stored[name]!r} there and {settings[name]!r} now' for name in settings
              if name not in FREE and name in stored and stored[name] != settings[name]]
    if differ:
        raise ConfigError(f'{out} is a run of other settings: {"; ".join(differ)}; choose another out_dir')


# --- one step ---------------------------------------------------------------------------------------------------------

def activation_bytes(config, dtype):
    """What one sequence keeps for the backward pass, bytes, estimated from the tensors of a block."""
    width = config.n_head * config.head_dim
    element = 4 if dtype == torch.float32 else 2
    a_token = config.n_layer * ((4 * config.n_embd + 5 * width + 3 * config.mlp_dim) * element + 3 * config.n_embd * 4)
    return 1.3 * config.block_size * (a_token + 8 * config.n_embd)


def largest_micro_batch(config, share, dtype, where, parameters):
    """The largest divisor of a process's share of the batch that should fit its device.

    Kept free: gradients, Adam's moments and copies for the products (16 bytes a parameter), a chunk of logits."""
    free = available_bytes(where) * (0.85 if where.type == 'cuda' else 0.5 / int(os.environ.get('LOCAL_WORLD_SIZE', 1)))
    fits = (free - 16 * parameters - (1 << 30)) / activation_bytes(config, dtype)
    if where.type != 'cuda':  # larger passes are not faster there, and the caches are small
        fits = min(fits, 16384 / config.block_size)
    return max(d for d in range(1, share + 1) if share % d == 0 and (d <= fits or d == 1))


def compute_gradients(model, batch, micro, context, scaler, where, stops):
    """Forward and backward passes over a process's share of the batch. Returns the losses of its tokens, averaged
    over each sequence: (rows,) on the device; None when stops() said so between two passes. The gradient is that of
    the mean over the share."""
    losses = []
    inputs, targets = (t.to(where, non_blocking=True) for t in batch)
    for start in range(0, len(inputs), micro):
        last = start + micro >= len(inputs)
        quiet = model.no_sync() if isinstance(model, DistributedDataParallel) and not last else contextlib.nullcontext()
        with quiet:
            with context:
                loss, per_token = model(inputs[start:start + micro], targets[start:start + micro], per_token=True)
            scaler.scale(loss * (micro / len(inputs))).backward()
        losses.append(per_token.detach().float().mean(1))
        if not last and stops():
            return None
    return torch.cat(losses)


class Batches:
    """The batches of a run in order, each made in a thread while the device works on the one before."""

    def __init__(self, mix, rows, where, first, end):
        self.mix, self.rows, self.pinned, self.end = mix, rows, where.type == 'cuda', end
        self.pool = ThreadPoolExecutor(1)
        self.step, self.now, self.next = first - 1, None, self.pool.submit(self.make, first)

    def make(self, step):
        inputs, targets, drawn = self.mix.batch(step, self.rows)
        tensors = [torch.from_numpy(np.ascontiguousarray(t)) for t in (inputs, targets)]
        return [t.pin_memory() for t in tensors] if self.pinned else tensors, drawn

    def take(self, step):
        """(inputs, targets) and the languages of a step: the one after the step taken last, or that one again."""
        if step != self.step:
            self.step, self.now = step, self.next.result()
            if step + 1 < self.end:
                self.next = self.pool.submit(self.make, step + 1)
        return self.now


# --- the log ----------------------------------------------------------------------------------------------------

class Log:
    """out/RUN/log.jsonl (written by the first process) and Weights & Biases.

    Losses stay on the device until `flush`, so that a GPU is not waited for at every step."""

    def __init__(self, out, processes, names, first_step, settings, wandb_project=''):
        """names: of the languages. What a killed run logged beyond `first_step` is dropped."""
        self.processes, self.names, self.path = processes, names, out / 'log.jsonl'
        self.pending = []  # (step, losses of the sequences, their languages, learning rate)
        self.loss, self.wandb = float('nan'), None
        if processes.rank:
            return
        self._cut(first_step)
        if wandb_project:
            try:
                import wandb
            except ImportError:
                raise ConfigError('wandb_project needs the package wandb: pip install wandb') from None
            self.wandb = wandb.init(project=wandb_project, name=out.name, id=out.name, config=settings, resume='allow')

    def _cut(self, first_step):
        """Drops what a killed run had logged beyond the checkpoint that it goes on from."""
        kept = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                with contextlib.suppress(ValueError, KeyError):
                    if json.loads(line)['step'] < first_step:
                        kept.append(line + '\n')
        aside = self.path.with_suffix('.tmp')
        aside.write_text(''.join(kept))
        aside.replace(self.path)

    def write(self, entries):
        if self.processes.rank == 0 and entries:
            with open(self.path, 'a') as file:
                file.writelines(json.dumps(entry) + '\n' for entry in entries)
            if self.wandb:
                for entry in entries:
                    self.wandb.log({k: v for k, v in entry.items() if k != 'step'}, step=entry['step'])

    def flush(self, tokens_per_second):
        """Writes the pending steps. Raises ConfigError at a loss that is not finite, naming step and languages."""
        if not self.pending:
            return
        names = self.names
        losses = torch.stack([p[1] for p in self.pending]).cpu().numpy().astype(np.float64)
        sums = np.zeros((len(self.pending), 2, len(names)))
        for i, (_, _, drawn, _) in enumerate(self.pending):
            np.add.at(sums[i, 0], drawn, losses[i])
            np.add.at(sums[i, 1], drawn, 1)
        sums = self.processes.sum(sums)
        entries, broken = [], None
        for (step, _, _, rate), (total, count) in zip(self.pending, sums):
            self.loss = total.sum() / count.sum()
            if not math.isfinite(self.loss):
                broken = step, [name for name, c in zip(names, count) if c], self.loss
                break
            of_each = {name: t / c for name, t, c in zip(names, total, count) if c}
            entries.append(dict(step=step, loss=self.loss, losses=of_each, learning_rate=rate,
                                tokens_per_second=round(tokens_per_second)))
        self.pending = []
        self.write(entries)
        if broken:
            raise ConfigError(f'the loss of step {broken[0]} is {broken[2]}; languages in the batch: '
                              f'{", ".join(broken[1])}; the last checkpoint before it is kept. Lower learning_rate or '
                              'look at the data')


# --- the run ----------------------------------------------------------------------------------------------------------

def start_state(out, settings, languages_, config):
    """The checkpoint to go on from: of this run, or of the trunk it branches off; None to begin at step 0."""
    state = last_checkpoint(out)
    if state is not None:
        refuse_other_settings(state['settings'], settings, out)
    elif init_from:
        state = branch_point(settings)
    if state is not None:
        check_corpora(state, languages_, out)
        if state['model_config'] != vars(config):
            raise ConfigError(f'the model in {out} has other sizes: {state["model_config"]}')
    return state


def branch_point(settings):
    """The checkpoint of a wsd trunk at or before the step where this run's learning rate begins to fall: up to there
    the two runs are the same."""
    fall = decay_start(max_steps, decay_fraction)
    if lr_schedule != 'wsd':
        raise ConfigError("init_from branches off a run of constant learning rate: set lr_schedule='wsd' in both")
    if not Path(init_from).is_dir():
        raise ConfigError(f'init_from: there is no run {init_from}')
    steps = [step for step in checkpoint_paths(init_from) if step <= fall]
    if branch_step and branch_step not in steps or not steps:
        raise ConfigError(f'{init_from} has no checkpoint {f"of step {branch_step} " if branch_step else ""}at or '
                          f'before step {fall}, where the learning rate falls; keep_checkpoints=[{fall}] keeps it')
    state = last_checkpoint(init_from, at_most=branch_step or fall)
    trunk = state['settings']
    if state['step'] > decay_start(trunk['max_steps'], trunk['decay_fraction']):
        raise ConfigError(f'in {init_from} the learning rate falls before step {state["step"]}')
    ignored = dict.fromkeys(('max_steps', 'decay_fraction', 'min_learning_rate', 'init_from', 'branch_step'))
    refuse_other_settings(trunk | ignored, settings | ignored, init_from)
    if len(stages) > 1:
        raise ConfigError('a branch needs one stage: with more, its mix of languages is not that of the trunk')
    return state


def train(settings, out, processes):
    """Trains, evaluates, writes results.json; returns the results."""
    where, first_process = processes.device, processes.rank == 0
    if batch_size % processes.world:
        raise ConfigError(f'batch_size {batch_size} cannot be shared evenly by {processes.world} processes')
    share = batch_size // processes.world
    rows = slice(processes.rank * share, (processes.rank + 1) * share)
    number_format = pick_dtype(dtype, where)
    built, entries = build_languages(corpora, languages, vocabulary, cloned_fraction, seed)
    mix = LanguageMix(built, lambda step: language_probabilities(step, max_steps, stages), batch_size, block_size, seed)
    for language in built:
        if len(language.corpus.test) < block_size + 1:
            raise ConfigError(f'the test set of corpus {language.corpus.name} has {len(language.corpus.test):,} '
                              f'tokens, fewer than a sequence of block_size {block_size}')
    config = model_config(entries)
    state = start_state(out, settings, built, config)
    step, elapsed = (state['step'], state['wall_time_s']) if state else (0, 0.0)

    torch.manual_seed(seed)
    model = GPT(config)
    if state:
        model.load_state_dict(state['model'])
    model.to(where)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), eps=1e-8,
                                 fused=where.type in ('cpu', 'cuda'))
    scaler = torch.amp.GradScaler(where.type, enabled=number_format == torch.float16)
    micro = micro_batch_size or largest_micro_batch(config, share, number_format, where, parameters)
    if state:
        optimizer.load_state_dict(state['optimizer'])
        scaler.load_state_dict(state['scaler'])
        if not micro_batch_size and share % state['micro_batch_size'] == 0:
            micro = state['micro_batch_size']  # other sizes round differently, and resuming is exact
    if share % micro:
        raise ConfigError(f'micro_batch_size {micro} does not divide the {share} sequences of a process')
    state = None
    compiled = model
    if compile and can_compile(where):
        compiled = torch.compile(model)
    elif compile and first_process:
        print('no C++ compiler is found (g++ or CXX): going on without torch.compile')
    parallel = DistributedDataParallel(compiled) if processes.distributed else compiled
    context = autocast(where, number_format)
    peak = measure_peak(where, number_format) * processes.world
    log = Log(out, processes, languages, step, settings, wandb_project)
    signals, batches, started = Signals(), Batches(mix, rows, where, step, max_steps), time.perf_counter()
    if first_process:
        epochs = ', '.join(f'{name} {times:.2f} times' for name, times in mix.epochs(max_steps).items())
        print(f'{out}: {model.non_embedding_parameters():,} parameters and {entries:,} vocabulary entries, '
              f'{where} in {number_format}, {batch_size // micro} passes of {micro} sequences a step; '
              f'reads its corpora: {epochs}' + '; the first step compiles, for up to a minute' * (compiled is not model))
        if init_from and step and not checkpoint_paths(out):
            print(f'branches off {init_from} at step {step}')

    def save():
        if first_process:
            save_checkpoint(out, dict(
                step=step, model=model.state_dict(), optimizer=optimizer.state_dict(), scaler=scaler.state_dict(),
                settings=settings, model_config=vars(config), micro_batch_size=micro,
                corpora=corpora_identity(built), wall_time_s=elapsed + time.perf_counter() - started), keep_checkpoints)

    def leave():
        if first_process:
            print(f'stopped by a signal after step {step}; the same command goes on from there')
        processes.close()
        sys.exit(128 + (signals.number or signal.SIGTERM))

    def stops():  # a step of a large model takes minutes on a CPU; many processes must stop at the same one, its end
        return signals.number and not processes.distributed

    speed, since, last_flush = 0.0, time.perf_counter(), step
    with tqdm(total=max_steps, initial=step, unit=' steps', disable=not first_process, dynamic_ncols=True) as progress:
        while step < max_steps:
            batch, drawn = batches.take(step)  # the same again if it is asked for again
            rate = learning_rate_at(step, max_steps, learning_rate, min_learning_rate, warmup_steps, lr_schedule,
                                    decay_fraction)
            for group in optimizer.param_groups:
                group['lr'] = rate
            try:
                losses = compute_gradients(parallel, batch, micro, context, scaler, where, stops)
            except torch.OutOfMemoryError:
                if micro_batch_size or micro == 1 or processes.distributed:
                    raise
                micro = max(d for d in range(1, micro) if share % d == 0)  # the estimate was too high
                progress.write(f'that did not fit the device: going on with passes of {micro} sequences')
                optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                continue
            if losses is None:  # this step will be taken again
                log.flush(speed)
                save()
                leave()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            log.pending.append((step, losses, drawn, rate))
            step += 1
            progress.update(1)
            evaluates = eval_interval and step % eval_interval == 0 and step < max_steps
            saves = step % checkpoint_interval == 0 or step in keep_checkpoints or step == max_steps
            if where.type == 'cpu' or step % log_interval == 0 or evaluates or saves:
                stop = processes.sum(np.array([float(signals.number)]))[0]
                now = time.perf_counter()
                speed = (step - last_flush) * batch_size * block_size / (now - since)
                log.flush(speed)
                since, last_flush = now, step
                progress.set_postfix_str(f'loss {log.loss:.3f}, {speed:,.0f} tokens/s, '
                                         f'MFU {speed * config.flops_per_token() / peak:.0%}', refresh=False)
                if saves or stop:
                    save()
                if stop and step < max_steps:
                    leave()
                if evaluates:
                    quick = perplexities(model, built, max_windows=eval_windows, context=context, quiet=True)
                    log.write([dict(step=step - 1, perplexity={name: s['ppl'] for name, s in quick.items()})])
                    progress.write(f'step {step}: ' + ', '.join(f'{n} {s["ppl"]:.1f}' for n, s in quick.items()))
                    since = time.perf_counter()
    wall_time = elapsed + time.perf_counter() - started
    for number in (signal.SIGTERM, signal.SIGINT):  # the checkpoint is written: nothing to wait for any more
        signal.signal(number, signal.default_int_handler)
    scores = perplexities(model, built, max_windows=final_windows, context=context, quiet=not first_process)
    seen = mix.sequences_before(max_steps)
    return dict(
        run=out.name, settings=settings,
        model=dict(vars(config), parameters=parameters, non_embedding_parameters=model.non_embedding_parameters()),
        languages={language.name: dict(corpus=language.corpus.name, tokenizer=language.corpus.tokenizer_hash,
                                       sequences_seen=int(n), tokens_seen=int(n) * block_size, **scores[language.name])
                   for language, n in zip(built, seen)},
        steps=max_steps, tokens=max_steps * batch_size * block_size, epochs=mix.epochs(max_steps),
        wall_time_s=wall_time, tokens_per_second=max_steps * batch_size * block_size / wall_time,
        versions=dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__),
        device=describe(where), dtype=str(number_format).removeprefix('torch.'), processes=processes.world)


def show(results, out):
    print(table(results['languages']))
    seen = ', '.join(f'{name} {s["tokens_seen"]:,}' for name, s in results['languages'].items())
    print(f'{out}: tokens seen: {seen}; {results["wall_time_s"]:,.0f} s')


def main(stems):
    check_settings()
    out = run_folder(stems)
    settings = {name: globals()[name] for name in SETTINGS} | dict(out_dir=str(out))
    if (out / 'results.json').exists():
        results = json.loads((out / 'results.json').read_text())
        refuse_other_settings(results['settings'], settings, out)
        if int(os.environ.get('RANK', 0)) == 0:
            print(f'{out} is finished; delete it to train again')
            show(results, out)
        return
    processes = Processes(device)
    out.mkdir(parents=True, exist_ok=True)
    held = lock(out) if processes.rank == 0 else None
    advice = 'lower micro_batch_size, or set it to 0 for the largest that fits; else lower block_size or the model'
    try:
        with memory_advice(advice):
            results = train(settings, out, processes)
        if processes.rank == 0:
            write_json(out / 'results.json', results)
            show(results, out)
    finally:
        processes.close()
        if held:
            held.close()
            if [path.name for path in out.iterdir()] == ['.lock']:  # refused: as if it had never been asked for
                (out / '.lock').unlink()
                out.rmdir()


SETTINGS = [name for name, value in list(globals().items())
            if name.islower() and not name.startswith('_') and isinstance(value, (bool, int, float, str, list))]

if __name__ == '__main__':
    run(globals(), main)
