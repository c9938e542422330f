"""Trains a GPT on a mix of languages.

    python train.py config/clones_90_10.py                    # out/clones_90_10, one process
    python train.py config/clones_90_10.py --size=mini        # out/clones_90_10-size_mini
    python train.py config/clones_90_10.py --only=en2         # its control: EN2 without the others
    torchrun --nproc_per_node=8 train.py config/clones_90_10.py   # eight processes, the same result

The same command again goes on where the run stopped, or prints the result of a finished run. In
out/RUN: log.jsonl (a line a step with the loss of each language, and the quick perplexities),
checkpoints, results.json.
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
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from checkpoint import (
    check_corpora,
    checkpoint_paths,
    corpora_identity,
    last_checkpoint,
    load_run,
    lock,
    save_checkpoint,
    write_json,
)
from configurator import ConfigError, run, run_name
from data import LanguageMix, alone, build_languages, entry_pairs, own_entries
from device import (
    Processes,
    Signals,
    autocast,
    available_bytes,
    can_compile,
    describe,
    measure_peak,
    memory_advice,
    pick_dtype,
)
from evaluate import perplexities, table
from model import GPT, PAD, SIZES, GPTConfig
from runs import DEFAULTS
from schedule import decay_start
from schedule import learning_rate as learning_rate_at

# the languages (Sections 4 and 5)
corpora = ['docs', 'docs']  # the corpus of each language; a corpus named twice makes clones
languages = ['en1', 'en2']  # a name for each
vocabulary = 'disjoint'  # disjoint; anchored: pieces spelled alike are one entry (Appendix D.2)
cloned_fraction = 1.0  # share of the pieces that a clone has for itself (Appendix D.1)
stages = [[0.9, 0.1]]  # p(language), a row for each of the equally long stages (Section 4.5)
parallel_epochs = False  # clones may read the same text, each in an epoch of its own
orders = []  # of each language's text: '', 'reversed' or 'shuffled_K' in windows of K tokens
only = ''  # control: train on this language's sequences of the run alone, in as many steps
# what brings languages together or keeps them apart; a control ignores these
loss_weights = []  # of each language, so that shares of data and of gradient differ; mean kept at 1
start_entries = ''  # entries start alike: of clones, by spelling, or FILE of two columns of words
start_noise = 0.3  # but for so much noise, in standard deviations of the rows that they start as
trainable = 'all'  # or a language: its entries learn alone; init_from is then a run of the others
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
micro_batch_size = 0  # sequences of a pass of one process; 0: the largest that fits the device
max_steps = 18265  # steps; 18,265 of 128 x 512 tokens are the paper's 1.2B
warmup_steps = 500  # steps of linear warm-up
warmup_fraction = 0.0  # the warm-up as a share of the run instead; 0: warmup_steps
learning_rate = 6e-4  # its peak
min_learning_rate = 6e-6  # where it ends
lr_schedule = 'cosine'  # cosine; wsd: constant, then down over the last decay_fraction of the run
decay_fraction = 0.2  # of a wsd run
init_from = ''  # folder of a longer wsd run with the same settings to branch off; see trainable
# the run
out_dir = ''  # where everything goes; empty: out/ and the names of the configs and overrides
eval_interval = 1000  # steps between quick perplexities of each language; 0: none before the end
eval_windows = 256  # windows of a quick perplexity
final_windows = 0  # windows of the perplexity at the end; 0: the whole test set
checkpoint_interval = 1000  # steps between checkpoints
keep_checkpoints = []  # steps whose checkpoints stay, for branches and studies over training
log_interval = 10  # steps between looks at the loss: each makes a GPU wait
seed = 0  # of weights, languages drawn and order of the text
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # bfloat16, float16, float32; auto: the first that the device is made for
compile = True  # torch.compile the model
wandb_project = ''  # log to this project of Weights & Biases as well

# Settings that may change between a run and its resumption: they do not change its result.
FREE = {'out_dir', 'eval_interval', 'eval_windows', 'final_windows', 'checkpoint_interval'}
FREE |= {'keep_checkpoints', 'log_interval', 'device', 'compile', 'micro_batch_size'}
FREE |= {'wandb_project'}

ENTRIES = ('wte.weight', 'head.weight')  # of the model: a row for each entry


# --- what the settings mean -----------------------------------------------------------------------


def check_settings():
    """Raises ConfigError for settings that contradict each other or the paper's definitions."""
    if not stages or any(len(row) != len(languages) for row in stages):
        raise ConfigError(
            f'stages must have rows of {len(languages)} probabilities, one a language, not {stages}'
        )
    for row in stages:
        in_range = all(isinstance(p, (int, float)) and 0 <= p <= 1 for p in row)
        if not in_range or abs(sum(row) - 1) > 1e-6:
            raise ConfigError(
                f'the probabilities of a stage must lie between 0 and 1 and add up to 1, not {row}'
            )
    least = dict.fromkeys(
        ('block_size', 'batch_size', 'max_steps', 'checkpoint_interval', 'log_interval'), 1
    )
    least |= dict.fromkeys(
        ('warmup_steps', 'eval_interval', 'eval_windows', 'final_windows', 'micro_batch_size'), 0
    )
    least['seed'] = 0
    for name, minimum in least.items():
        if globals()[name] < minimum:
            raise ConfigError(f'{name} must be at least {minimum}, not {globals()[name]}')
    if not 0 <= min_learning_rate <= learning_rate:
        raise ConfigError(
            f'min_learning_rate {min_learning_rate} must lie between 0 and learning_rate '
            f'{learning_rate}'
        )
    if lr_schedule not in ('cosine', 'wsd'):
        raise ConfigError(f'lr_schedule must be cosine or wsd, not {lr_schedule!r}')
    if not 0 < decay_fraction <= 1:
        raise ConfigError(f'decay_fraction must lie between 0 and 1, not {decay_fraction}')
    if not 0 <= warmup_fraction < 1:
        raise ConfigError(f'warmup_fraction must be at least 0 and below 1, not {warmup_fraction}')
    if warmup() >= max_steps:
        raise ConfigError(
            f'the run ends within its warm-up: max_steps {max_steps}, warm-up {warmup()} steps; '
            'set warmup_fraction, or warmup_steps below max_steps'
        )
    for name, language in dict(only=only or languages[0], trainable=trainable).items():
        if language not in languages and (name, language) != ('trainable', 'all'):
            raise ConfigError(
                f'{name}={language!r} is none of the languages {", ".join(languages)}'
            )
    if loss_weights:
        language_weights()
    if start_noise < 0:
        raise ConfigError(f'start_noise must be at least 0, not {start_noise}')


def language_weights():
    """The weight of each language's loss: (languages,) float32, so scaled that the mean weight of
    the run's sequences is 1 (the sum over languages of expected share, by the stages, times weight;
    it does not depend on the batch). Weights do by the gradient what shares do by the data (Xin et
    al. 2022, Choi et al. 2023)."""
    shares = np.mean(stages, axis=0)
    valid = all(isinstance(weight, (int, float)) and weight >= 0 for weight in loss_weights)
    if not valid or len(loss_weights) != len(languages) or not np.dot(shares, loss_weights):
        raise ConfigError(
            f'loss_weights must have a number of at least 0 for each of the {len(languages)} '
            f'languages, and one above 0 for a language that is drawn, not {loss_weights}'
        )
    return np.float32(loss_weights) / np.float32(np.dot(shares, loss_weights))


def warmup(steps=None, fraction=None, fixed=None):
    """Steps of warm-up: of this run, or of other settings."""
    steps = max_steps if steps is None else steps
    fraction = warmup_fraction if fraction is None else fraction
    fixed = warmup_steps if fixed is None else fixed
    return round(fraction * steps) if fraction else fixed


def model_config(entries):
    """GPTConfig of the settings, for a vocabulary of `entries`."""
    if size and size not in SIZES:
        raise ConfigError(
            f'size must be one of {", ".join(SIZES)}, or empty with all numbers given, not {size!r}'
        )
    shape = dict(SIZES.get(size, {}))
    for name in ('n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim'):
        if globals()[name] > 0:
            shape[name] = globals()[name]
        elif name not in shape or globals()[name] < 0:
            raise ConfigError(
                f'{name} must be a positive number, or size one of {", ".join(SIZES)}'
            )
    return GPTConfig(**shape, block_size=block_size, vocab_size=entries)


def refuse_other_settings(stored, settings, out):
    """Raises ConfigError when a run was made with settings that would give another result."""
    stored = DEFAULTS | stored
    differ = [
        f'{name} is {stored[name]!r} there and {settings[name]!r} now'
        for name in settings
        if name not in FREE and name in stored and stored[name] != settings[name]
    ]
    if differ:
        raise ConfigError(
            f'{out} is a run of other settings: {"; ".join(differ)}; choose another out_dir'
        )


# --- one step -------------------------------------------------------------------------------------


def activation_bytes(config, compute_dtype):
    """Bytes that a sequence keeps for the backward pass, estimated from the tensors of a block."""
    width = config.n_head * config.head_dim
    element = 4 if compute_dtype == torch.float32 else 2
    products = (4 * config.n_embd + 5 * width + 3 * config.mlp_dim) * element
    per_token = config.n_layer * (products + 3 * config.n_embd * 4)
    return 1.3 * config.block_size * (per_token + 8 * config.n_embd)


def largest_micro_batch(config, compute_dtype, torch_device, parameters):
    """How many sequences should fit the device in one pass.

    Kept free: gradients, Adam's moments and copies for the products (16 bytes a parameter), and a
    chunk of logits."""
    local_processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    usable = 0.85 if torch_device.type == 'cuda' else 0.5 / local_processes
    free = available_bytes(torch_device) * usable - 16 * parameters - (1 << 30)
    fits = free / activation_bytes(config, compute_dtype)
    if torch_device.type != 'cuda':  # larger passes are not faster there, and caches are small
        fits = min(fits, 16384 / config.block_size)
    return max(1, int(fits))


def pass_size(counts, largest):
    """Sequences of a pass of a run whose steps hold `counts` sequences, at most `largest`.

    All passes are padded to this one size, so that one compiled graph serves them. A constant count
    gets its largest divisor. Other counts get the size that costs least in all, where a pass costs
    as much as two sequences more."""
    if counts.min() == counts.max():
        count = int(counts.max())
        return max(n for n in range(1, count + 1) if count % n == 0 and (n <= largest or n == 1))
    sizes = np.arange(1, min(largest, counts.max()) + 1)
    passes = np.ceil(counts[:, None] / sizes).sum(0)
    return int(sizes[(passes * (sizes + 2)).argmin()])


def compute_gradients(model, batch, micro, count, processes, context, scaler, stops, weights=None):
    """Forward and backward passes over a process's sequences of a step, `micro` at a time.

    batch: inputs and targets, each (rows, T); count: sequences of the step in all processes;
    weights: (rows,) float32 of their losses in the gradient, or None. Returns the unweighted loss
    of each sequence in nats a token, (rows,) on the device, or None when stops() said so between
    two passes. The gradient is that of the mean over the step's tokens."""
    losses, weighted = [], {}
    inputs, targets = (tensor.to(processes.device, non_blocking=True) for tensor in batch)
    for start in range(0, max(1, len(inputs)), micro):
        last = start + micro >= len(inputs)
        waits = isinstance(model, DistributedDataParallel) and not last
        rows = len(inputs[start : start + micro])
        missing = (0, 0, 0, micro - rows)  # a short pass is filled up with padding, which is free
        parts = [F.pad(t[start : start + micro], missing, value=PAD) for t in (inputs, targets)]
        with model.no_sync() if waits else contextlib.nullcontext():
            if weights is not None:
                part = F.pad(torch.from_numpy(weights[start : start + micro]), (0, micro - rows))
                weighted = dict(weights=part.to(processes.device))
            with context:
                loss, per_token = model(*parts, per_token=True, **weighted)
            scaler.scale(loss * (rows * processes.world / count)).backward()
        losses.append(per_token[:rows].detach().float().mean(1))
        if not last and stops():
            return None
    return torch.cat(losses)


class Batches:
    """The batches of a run in order, each made in a thread while the device works on another."""

    def __init__(self, mix, rows_of, pinned, first, end):
        """rows_of: function of the step that says which of its sequences this process trains on."""
        self.mix, self.rows_of, self.pinned, self.end = mix, rows_of, pinned, end
        self.pool = ThreadPoolExecutor(1)
        self.step, self.current, self.next = first - 1, None, self.pool.submit(self.make, first)

    def make(self, step):
        inputs, targets, drawn = self.mix.batch(step, self.rows_of(step))
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (inputs, targets)]
        return [t.pin_memory() for t in tensors] if self.pinned else tensors, drawn

    def take(self, step):
        """(inputs, targets) and the languages of a step: the next one, or the last one again."""
        if step != self.step:
            self.step, self.current = step, self.next.result()
            if step + 1 < self.end:
                self.next = self.pool.submit(self.make, step + 1)
        return self.current


# --- the log --------------------------------------------------------------------------------------


class Log:
    """out/RUN/log.jsonl, written by the first process, and Weights & Biases.

    Losses stay on the device until `flush`, so that a GPU is not waited for at every step."""

    def __init__(self, out, processes, names, first_step, settings):
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
                raise ConfigError(
                    'wandb_project needs the package wandb: pip install wandb'
                ) from None
            self.wandb = wandb.init(
                project=wandb_project, name=out.name, id=out.name, config=settings, resume='allow'
            )

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
        if self.processes.rank or not entries:
            return
        with open(self.path, 'a') as file:
            file.writelines(json.dumps(entry) + '\n' for entry in entries)
        for entry in entries if self.wandb else []:
            self.wandb.log({k: v for k, v in entry.items() if k != 'step'}, step=entry['step'])

    def flush(self, tokens_per_second):
        """Writes the pending steps.

        Raises ConfigError at a loss that is not finite, naming the step and its languages."""
        if not self.pending:
            return
        steps, losses, drawn, rates = zip(*self.pending)
        losses = torch.cat(losses).cpu().numpy().astype(np.float64)
        step_of_loss = np.repeat(np.arange(len(steps)), [len(languages) for languages in drawn])
        sums = np.zeros((len(steps), 2, len(self.names)))  # of losses, and their number
        np.add.at(sums, (step_of_loss, 0, np.concatenate(drawn)), losses)
        np.add.at(sums, (step_of_loss, 1, np.concatenate(drawn)), 1)
        sums = self.processes.sum(sums)
        entries, self.pending, broken = [], [], ''
        for step, rate, (total, count) in zip(steps, rates, sums):
            self.loss = total.sum() / count.sum()
            present = [(name, t / n) for name, t, n in zip(self.names, total, count) if n]
            if not math.isfinite(self.loss):
                broken = (
                    f'the loss of step {step} is {self.loss}; languages in the batch: '
                    f'{", ".join(name for name, _ in present)}; the last checkpoint before it is '
                    'kept. Lower learning_rate or look at the data'
                )
                break
            entry = dict(step=step, loss=self.loss, losses=dict(present), learning_rate=rate)
            entries.append(entry | dict(tokens_per_second=round(tokens_per_second)))
        self.write(entries)
        if broken:
            raise ConfigError(broken)


# --- the run --------------------------------------------------------------------------------------


def start_state(out, settings, trained, config):
    """The checkpoint to go on from, of this run or of the trunk that it branches off, or None."""
    state = last_checkpoint(out)
    if state is not None:
        if 'parallel_epochs' not in state['settings']:
            raise ConfigError(
                f'{out} was begun by an older version, which read the text in another order; '
                'choose another out_dir'
            )
        refuse_other_settings(state['settings'], settings, out)
    elif init_from and trainable == 'all':
        state = branch_point(settings)
    if state is not None:
        check_corpora(state, trained, out)
        if state['model_config'] != vars(config):
            raise ConfigError(f'the model in {out} has other sizes: {state["model_config"]}')
    return state


def branch_point(settings):
    """The checkpoint of a wsd trunk at or before the step where this run's learning rate begins to
    fall: up to there the two runs are the same."""
    fall = decay_start(max_steps, decay_fraction)
    if lr_schedule != 'wsd':
        raise ConfigError(
            "init_from branches off a run of constant learning rate: set lr_schedule='wsd' in both"
        )
    if not Path(init_from).is_dir():
        raise ConfigError(f'init_from: there is no run {init_from}')
    if len(stages) > 1:
        raise ConfigError(
            'a branch needs one stage: with more, its mix of languages is not that of the trunk'
        )
    state = last_checkpoint(init_from, at_most=fall)
    if state is None:
        raise ConfigError(
            f'{init_from} has no checkpoint at or before step {fall}, where the learning rate '
            f'falls; keep_checkpoints=[{fall}] keeps it'
        )
    trunk = state['settings']
    if state['step'] > decay_start(trunk['max_steps'], trunk['decay_fraction']):
        raise ConfigError(f'in {init_from} the learning rate falls before step {state["step"]}')
    ignored = dict.fromkeys(('max_steps', 'decay_fraction', 'min_learning_rate', 'init_from'))
    refuse_other_settings(trunk | ignored, settings | ignored, init_from)
    if warmup() != warmup(trunk['max_steps'], trunk['warmup_fraction'], trunk['warmup_steps']):
        raise ConfigError(
            f'{init_from} has another warm-up; give trunk and branches the same warmup_steps, '
            'not a warmup_fraction'
        )
    return state


def take_over(model, trained):
    """Gives `model` the body of the run in init_from and the entries of the languages that it has.

    Returns their names. Raises ConfigError unless it has all of `trained` but the trainable one."""
    there, known, _ = load_run(init_from)
    known = {(lang.name, lang.corpus.name, lang.order): lang.table for lang in known}
    old_tables = [known.get((lang.name, lang.corpus.name, lang.order)) for lang in trained]
    taken = [(lang, old) for lang, old in zip(trained, old_tables) if old is not None]
    names = [language.name for language, _ in taken]
    if missing := set(languages) - {trainable, *names}:
        raise ConfigError(
            f'init_from: {init_from} has no language {", ".join(sorted(missing))} of this corpus '
            f'and order; only the trainable language {trainable} may be new'
        )
    if vars(there.config) | dict(vocab_size=0) != vars(model.config) | dict(vocab_size=0):
        raise ConfigError(f'the model in {init_from} has other sizes: {vars(there.config)}')
    weights = there.state_dict()
    for name in ENTRIES:
        rows, weights[name] = weights[name], model.state_dict()[name]
        for language, old_table in taken:
            weights[name][language.table] = rows[old_table]
    model.load_state_dict(weights)
    return names


def start_alike(model, pairs, noise):
    """Starts the input and output rows of pairs[:, 0] (n, 2) as those of pairs[:, 1], plus normal
    noise of `noise` times the standard deviation of those rows in each dimension."""
    for name in ENTRIES:
        weight = model.state_dict()[name]
        rows = weight[pairs[:, 1]]
        noise_of_rows = noise * rows.std(0, correction=0) * torch.randn(rows.shape)
        weight[pairs[:, 0]] = rows + noise_of_rows


class Training:
    """A run: its languages, model and optimiser, and the step that it has reached."""

    def __init__(self, settings, out, processes):
        """Builds everything, or takes it from the last checkpoint. Raises ConfigError."""
        self.settings, self.out, self.processes = settings, out, processes
        device_ = processes.device
        self.compute_dtype = pick_dtype(dtype, device_)
        self.context = autocast(device_, self.compute_dtype)
        every_language, entries = build_languages(
            corpora, languages, vocabulary, cloned_fraction, seed, orders
        )
        self.mix = LanguageMix(
            every_language, stages, max_steps, batch_size, block_size, seed, parallel_epochs
        )
        self.trained = every_language
        if only:
            self.trained, entries = alone(every_language, only)
            self.mix.languages[languages.index(only)] = self.trained[0]
            if not self.counts().any():
                raise ConfigError(f'the run never draws {only}: there is nothing to train')
        elif batch_size % processes.world:
            raise ConfigError(
                f'batch_size {batch_size} cannot be shared evenly by {processes.world} processes'
            )
        for language in self.trained:
            if len(language.corpus.test) < block_size + 1:
                raise ConfigError(
                    f'the test set of corpus {language.corpus.name} has '
                    f'{len(language.corpus.test):,} tokens, fewer than a sequence of block_size '
                    f'{block_size}'
                )
        self.config = model_config(entries)
        state = start_state(out, settings, self.trained, self.config)
        self.step, self.elapsed = (state['step'], state['wall_time_s']) if state else (0, 0.0)
        torch.manual_seed(seed)
        self.model = GPT(self.config)
        self.weights = language_weights() if loss_weights and not only else None
        self.learns = '' if only or trainable == 'all' else trainable
        self.notes = []
        if state:
            self.model.load_state_dict(state['model'])
        elif not only:
            self.start_weights()
        self.model.to(device_)
        if self.learns:
            self.model.requires_grad_(False)
            self.fixed = torch.ones(entries, dtype=torch.bool, device=device_)
            self.fixed[own_entries(self.trained, self.learns)] = False
            for name in ENTRIES:
                self.model.get_parameter(name).requires_grad_(True)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = torch.optim.Adam(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=learning_rate,
            betas=(0.9, 0.95),
            eps=1e-8,
            fused=device_.type in ('cpu', 'cuda'),
        )
        self.scaler = torch.amp.GradScaler(
            device_.type, enabled=self.compute_dtype == torch.float16
        )
        if state:
            self.optimizer.load_state_dict(state['optimizer'])
            self.scaler.load_state_dict(state['scaler'])
        self.micro = self.pick_micro_batch(state)
        compiled = self.model
        if compile and can_compile(device_):
            compiled = torch.compile(self.model)
        elif compile and processes.rank == 0:
            print('no C++ compiler is found (g++ or CXX): going on without torch.compile')
        self.compiles = compiled is not self.model
        self.parallel = DistributedDataParallel(compiled) if processes.distributed else compiled

    def start_weights(self):
        """Changes the random weights of a new run as init_from and start_entries say."""
        if self.learns and init_from:
            names = take_over(self.model, self.trained)
            self.notes.append(f'body and entries of {", ".join(names)} are those of {init_from}')
        if start_entries:
            pairs = entry_pairs(self.trained, start_entries)
            if self.learns:
                pairs = pairs[np.isin(pairs[:, 0], own_entries(self.trained, self.learns))]
            start_alike(self.model, pairs, start_noise)
            self.notes.append(f'{len(pairs):,} entries start as others: {start_entries}')

    def counts(self):
        """Sequences that each step trains on: (max_steps,)."""
        if not only:
            return np.full(max_steps, batch_size)
        return (self.mix.drawn == languages.index(only)).sum(1)

    def rows_of(self, step):
        """Which of a step's sequences this process trains on."""
        rank, world = self.processes.rank, self.processes.world
        if only:
            return np.flatnonzero(self.mix.drawn[step] == languages.index(only))[rank::world]
        share = batch_size // world
        return slice(rank * share, (rank + 1) * share)

    def pick_micro_batch(self, state):
        """Sequences of a pass. A resumed run keeps what it had: other sizes round differently."""
        counts = -(-self.counts() // self.processes.world)
        if micro_batch_size:
            if not only and counts[0] % micro_batch_size:
                raise ConfigError(
                    f'micro_batch_size {micro_batch_size} does not divide the {counts[0]} '
                    'sequences of a process'
                )
            return micro_batch_size
        if state and (only or counts[0] % state['micro_batch_size'] == 0):
            return state['micro_batch_size']
        largest = largest_micro_batch(
            self.config, self.compute_dtype, self.processes.device, self.parameters
        )
        return pass_size(counts, largest)

    def save(self):
        if self.processes.rank == 0:
            state = dict(
                step=self.step,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                scaler=self.scaler.state_dict(),
                settings=self.settings,
                model_config=vars(self.config),
                micro_batch_size=self.micro,
                corpora=corpora_identity(self.trained),
                wall_time_s=self.wall_time(),
            )
            save_checkpoint(self.out, state, keep_checkpoints)

    def wall_time(self):
        return self.elapsed + time.perf_counter() - self.started

    def announce(self):
        """Prints what is about to be trained, on what."""
        times = self.mix.epochs(max_steps)
        names = [language.name for language in self.trained]
        print(
            f'{self.out}: {self.model.non_embedding_parameters():,} parameters and '
            f'{self.config.vocab_size:,} vocabulary entries, {self.processes.device} in '
            f'{self.compute_dtype}, passes of {self.micro} sequences; reads its text: '
            + ', '.join(f'{name} {times[name]:.2f} times' for name in names)
        )
        if self.compiles:
            print('the first step compiles, for up to a minute')
        for note in self.notes:
            print(note)
        if init_from and self.step and not checkpoint_paths(self.out):
            print(f'branches off {init_from} at step {self.step}')

    def leave(self, signals):
        if self.processes.rank == 0:
            print(
                f'stopped by a signal after step {self.step}; the same command goes on from there'
            )
        self.parallel = None
        self.processes.close()
        sys.exit(128 + (signals.number or signal.SIGTERM))

    def smaller_passes(self):
        """Takes smaller passes after one did not fit; raises the error again where none can."""
        if micro_batch_size or self.micro == 1 or self.processes.distributed:
            raise
        count = int(self.counts().max())
        divisors = [n for n in range(1, self.micro) if only or count % n == 0]
        self.micro = max(divisors)
        tqdm.write(f'that did not fit the device: going on with passes of {self.micro} sequences')
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()

    def take_step(self, batches, counts, log, stops):
        """Trains on one step; returns whether it was finished. A step without sequences of the
        trained languages, which only a control has, is passed over."""
        rate = learning_rate_at(
            self.step,
            max_steps,
            learning_rate,
            min_learning_rate,
            warmup(),
            lr_schedule,
            decay_fraction,
        )
        batch, drawn = batches.take(self.step)
        if counts[self.step]:
            for group in self.optimizer.param_groups:
                group['lr'] = rate
            losses = compute_gradients(
                self.parallel,
                batch,
                self.micro,
                int(counts[self.step]),
                self.processes,
                self.context,
                self.scaler,
                stops,
                None if self.weights is None else self.weights[drawn],
            )
            if losses is None:
                return False
            if self.learns:  # a row without a gradient stays what it is: Adam has no weight decay
                for name in ENTRIES:
                    self.model.get_parameter(name).grad[self.fixed] = 0
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            log.pending.append((self.step, losses, drawn, rate))
        self.step += 1
        return True

    def train(self):
        """Takes the steps up to max_steps: log, checkpoints, quick perplexities, signals."""
        processes = self.processes
        peak = measure_peak(processes.device, self.compute_dtype) * processes.world
        log = Log(self.out, processes, languages, self.step, self.settings)
        signals, counts = Signals(), self.counts()
        tokens_before = np.concatenate([[0], np.cumsum(counts)]) * block_size
        self.started = last_look = time.perf_counter()
        batches = Batches(
            self.mix, self.rows_of, processes.device.type == 'cuda', self.step, max_steps
        )
        if processes.rank == 0:
            self.announce()

        def stops():
            # A step takes minutes on a CPU, so a run of one process stops within it. Many
            # processes must stop at the same place, which is the end of a step.
            return signals.number and not processes.distributed

        speed, last_flush = 0.0, self.step
        with tqdm(
            total=max_steps,
            initial=self.step,
            unit=' steps',
            disable=processes.rank > 0,
            dynamic_ncols=True,
        ) as progress:
            while self.step < max_steps:
                try:
                    finished = self.take_step(batches, counts, log, stops)
                except torch.OutOfMemoryError:
                    self.smaller_passes()
                    continue
                if not finished:  # this step will be taken again
                    log.flush(speed)
                    self.save()
                    self.leave(signals)
                step = self.step
                progress.update(1)
                evaluates = eval_interval and step % eval_interval == 0 and step < max_steps
                saves = (
                    step % checkpoint_interval == 0 or step in keep_checkpoints or step == max_steps
                )
                looks = processes.device.type == 'cpu' or step % log_interval == 0
                if not (looks or evaluates or saves):
                    continue
                stop = processes.sum(np.array([float(signals.number)]))[0]
                now = time.perf_counter()
                speed = (tokens_before[step] - tokens_before[last_flush]) / (now - last_look)
                log.flush(speed)
                last_look, last_flush = now, step
                efficiency = speed * self.config.flops_per_token() / peak
                text = f'loss {log.loss:.3f}, {speed:,.0f} tokens/s, MFU {efficiency:.0%}'
                progress.set_postfix_str(text, refresh=False)
                if saves or stop:
                    self.save()
                if stop and step < max_steps:
                    self.leave(signals)
                if evaluates:
                    scores = self.perplexities(eval_windows, quiet=True)
                    quick = {name: score['ppl'] for name, score in scores.items()}
                    log.write([dict(step=step - 1, perplexity=quick)])
                    line = ', '.join(f'{name} {ppl:.1f}' for name, ppl in quick.items())
                    progress.write(f'step {step}: {line}')
                    last_look = time.perf_counter()

    def perplexities(self, windows, quiet):
        return perplexities(
            self.model, self.trained, max_windows=windows, context=self.context, quiet=quiet
        )

    def results(self):
        """Evaluates; returns what results.json holds."""
        wall_time = self.wall_time()
        for number in (signal.SIGTERM, signal.SIGINT):  # the checkpoint is written: nothing is lost
            signal.signal(number, signal.default_int_handler)
        scores = self.perplexities(final_windows, quiet=self.processes.rank > 0)
        of_language = {}
        for language in self.trained:
            sequences = int(self.mix.before[max_steps, languages.index(language.name)])
            of_language[language.name] = dict(
                corpus=language.corpus.name,
                tokenizer=language.corpus.tokenizer_hash,
                test=language.corpus.info['test']['fingerprint'],
                sequences_seen=sequences,
                tokens_seen=sequences * block_size,
                epochs=self.mix.epochs(max_steps)[language.name],
                **scores[language.name],
            )
        tokens = sum(entry['tokens_seen'] for entry in of_language.values())
        versions = dict(
            python=platform.python_version(), torch=torch.__version__, numpy=np.__version__
        )
        return dict(
            run=self.out.name,
            settings=self.settings,
            model=dict(
                vars(self.config),
                parameters=self.parameters,
                non_embedding_parameters=self.model.non_embedding_parameters(),
            ),
            languages=of_language,
            steps=max_steps,
            tokens=tokens,
            wall_time_s=wall_time,
            tokens_per_second=tokens / wall_time,
            versions=versions,
            device=describe(self.processes.device),
            dtype=str(self.compute_dtype).removeprefix('torch.'),
            processes=self.processes.world,
        )


def show(results, out):
    print(table(results['languages']))
    seen = ', '.join(f'{name} {s["tokens_seen"]:,}' for name, s in results['languages'].items())
    print(f'{out}: tokens seen: {seen}; {results["wall_time_s"]:,.0f} s')


def main(stems, overrides):
    check_settings()
    named = {name: value for name, value in overrides.items() if name not in FREE}
    out = Path(out_dir or os.path.join('out', run_name(stems, named)))
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
    training = None
    try:
        with memory_advice(
            'lower micro_batch_size, or set it to 0 for the largest that fits; else lower '
            'block_size or the model'
        ):
            training = Training(settings, out, processes)
            training.train()
            results = training.results()
        if processes.rank == 0:
            write_json(out / 'results.json', results)
            show(results, out)
    finally:
        if training:
            training.parallel = None  # while the processes are there: later it may wait forever
        processes.close()
        if held:
            held.close()
            if [path.name for path in out.iterdir()] == ['.lock']:  # refused before it began
                (out / '.lock').unlink()
                out.rmdir()


SETTINGS = [
    name
    for name, value in list(globals().items())
    if name.islower()
    and not name.startswith('_')
    and isinstance(value, (bool, int, float, str, list))
]

if __name__ == '__main__':
    run(globals(), main)
