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
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import checkpoint
import device as machine
import schedule
from configurator import ConfigError, require, run, run_name, settings_of
from data import LanguageMix, alone, build_languages, entry_pairs, own_entries
from evaluate import perplexities, table
from model import GPT, PAD, SIZES, GPTConfig
from runs import DEFAULTS

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
SETTINGS = list(settings_of(__file__))

ENTRIES = ('wte.weight', 'head.weight')  # of the model: a row for each entry


# --- what the settings mean -----------------------------------------------------------------------


def check_settings():
    """Raises ConfigError for settings that contradict each other or the paper's definitions."""
    least = dict(block_size=1, batch_size=1, max_steps=1, checkpoint_interval=1, log_interval=1)
    least |= dict(warmup_steps=0, micro_batch_size=0, start_noise=0, seed=0)
    least |= dict(eval_interval=0, eval_windows=0, final_windows=0)
    for name, minimum in least.items():
        value = globals()[name]
        require(value >= minimum, f'{name} must be at least {minimum}, not {value}')
    count, names, sizes = len(languages), ', '.join(languages), ', '.join(SIZES)
    shaped = stages and all(len(row) == count for row in stages)
    require(shaped, f'stages must have rows of {count} probabilities, one a language, not {stages}')
    for row in stages:
        valid = all(isinstance(p, (int, float)) and p >= 0 for p in row)
        valid = valid and abs(sum(row) - 1) <= 1e-6
        require(valid, f'the probabilities of a stage must be 0 to 1 and add up to 1, not {row}')
    require(0 <= min_learning_rate <= learning_rate, 'min_learning_rate must be 0 to learning_rate')
    require(lr_schedule in ('cosine', 'wsd'), f'lr_schedule must be cosine or wsd: {lr_schedule!r}')
    require(0 < decay_fraction <= 1, 'decay_fraction must be above 0 and at most 1')
    require(0 <= warmup_fraction < 1, 'warmup_fraction must be at least 0 and below 1')
    warm = warmup(globals())
    require(warm < max_steps, f'the run ends within its warm-up of {warm} steps; make that shorter')
    require(only in ('', *languages), f'only={only!r} is none of the languages {names}')
    known = trainable in ('all', *languages)
    require(known, f'trainable={trainable!r} is none of the languages {names}')
    require(size in ('', *SIZES), f'size must be empty or one of {sizes}, not {size!r}')
    for name in SIZES['small']:
        positive = model_shape().get(name, 0) > 0
        require(positive, f'{name} must be a positive number, or size one of {sizes}')
    language_weights()


def language_weights():
    """The weight of each language's loss: (languages,) float32, or None without loss_weights.

    They are scaled so that the mean weight of the run's sequences is 1 (the sum over languages of
    expected share, by the stages, times weight; it does not depend on the batch). Weights do by the
    gradient what shares do by the data (Xin et al. 2022, Choi et al. 2023)."""
    if not loss_weights:
        return None
    shares = np.mean(stages, axis=0)
    valid = all(isinstance(weight, (int, float)) and weight >= 0 for weight in loss_weights)
    require(
        valid and len(loss_weights) == len(languages) and np.dot(shares, loss_weights),
        f'loss_weights must have a number of at least 0 for each of the {len(languages)} '
        f'languages, and one above 0 for a language that is drawn, not {loss_weights}',
    )
    return np.float32(loss_weights) / np.float32(np.dot(shares, loss_weights))


def warmup(settings):
    """Steps of warm-up of a run with these settings."""
    share = settings['warmup_fraction']
    return round(share * settings['max_steps']) if share else settings['warmup_steps']


def model_shape():
    """The numbers of `size`, and over them those that are given."""
    given = {name: globals()[name] for name in SIZES['small'] if globals()[name]}
    return SIZES.get(size, {}) | given


def refuse_other_settings(stored, settings, out):
    """Raises ConfigError when a run was made with settings that would give another result."""
    stored = DEFAULTS | stored
    differ = '; '.join(
        f'{name} is {stored[name]!r} there and {value!r} now'
        for name, value in settings.items()
        if name not in FREE and stored.get(name, value) != value
    )
    require(not differ, f'{out} is a run of other settings: {differ}; choose another out_dir')


# --- the passes of a step -------------------------------------------------------------------------


def pass_size(counts, largest):
    """Sequences of a pass of a run whose steps hold `counts` sequences, at most `largest`.

    All passes are padded to this one size, so that one compiled graph serves them. A constant count
    gets its largest divisor. Other counts get the size that costs least in all, where a pass costs
    as much as two sequences more."""
    sizes = np.arange(1, min(largest, counts.max()) + 1)
    if counts.min() == counts.max():
        return int(sizes[counts.max() % sizes == 0].max())
    passes = np.ceil(counts[:, None] / sizes).sum(0)
    return int(sizes[(passes * (sizes + 2)).argmin()])


def make_optimizer(model):
    """The optimiser of the parameters that learn: Adam (Section 3), without weight decay."""
    learning = [p for p in model.parameters() if p.requires_grad]
    fused = learning[0].device.type in ('cpu', 'cuda')
    return torch.optim.Adam(learning, lr=learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)


# --- the log --------------------------------------------------------------------------------------


class Log:
    """out/RUN/log.jsonl, written by the first process, and Weights & Biases.

    Losses stay on the device until `flush`, so that a GPU is not waited for at every step."""

    def __init__(self, out, processes, first_step, settings):
        """What a killed run logged beyond the checkpoint of `first_step` is dropped."""
        self.processes, self.path = processes, out / 'log.jsonl'
        self.pending = []  # (step, losses of the sequences, their languages, learning rate)
        self.loss, self.speed, self.since = float('nan'), 0.0, time.perf_counter()
        self.wandb, kept = None, []
        if processes.rank:
            return
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            with contextlib.suppress(ValueError, KeyError):
                if json.loads(line)['step'] < first_step:
                    kept.append(line + '\n')
        checkpoint.write_file(self.path, lambda file: file.write(''.join(kept).encode()))
        if wandb_project:
            try:
                import wandb
            except ImportError:
                raise ConfigError('wandb_project needs wandb: pip install wandb') from None
            about = dict(name=out.name, id=out.name, config=settings, resume='allow')
            self.wandb = wandb.init(project=wandb_project, **about)

    def write(self, entry):
        if self.processes.rank == 0:
            with open(self.path, 'a') as file:
                file.write(json.dumps(entry) + '\n')
        if self.wandb:
            self.wandb.log({k: v for k, v in entry.items() if k != 'step'}, step=entry['step'])

    def flush(self):
        """Writes the pending steps.

        Raises ConfigError at a loss that is not finite, naming the step and its languages."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        sums = []  # of losses by language, and how many there are
        for _, losses, drawn, _ in pending:
            losses = losses.cpu().double().numpy()
            sums.append([np.bincount(drawn, w, len(languages)) for w in (losses, None)])
        sums, now = self.processes.sum(np.array(sums)), time.perf_counter()
        self.speed, self.since = sums[:, 1].sum() * block_size / (now - self.since), now
        for (step, *_, rate), (total, count) in zip(pending, sums):
            self.loss = total.sum() / count.sum()
            losses = {name: t / n for name, t, n in zip(languages, total, count) if n}
            require(
                math.isfinite(self.loss),
                f'the loss of step {step} ({", ".join(losses)}) is {self.loss}; the last '
                'checkpoint before it stays: lower learning_rate or look at the data',
            )
            entry = dict(step=step, loss=self.loss, losses=losses, learning_rate=rate)
            self.write(entry | dict(tokens_per_second=round(self.speed)))


# --- where a run begins ---------------------------------------------------------------------------


def start_state(out, settings, trained, config):
    """The checkpoint to go on from, of this run or of the trunk that it branches off, or None."""
    state = checkpoint.last_checkpoint(out)
    if state is not None:
        old = 'parallel_epochs' not in state['settings']  # it read the text in another order
        require(not old, f'{out} was begun by an older version; choose another out_dir')
        refuse_other_settings(state['settings'], settings, out)
    elif init_from and trainable == 'all':
        state = branch_point(settings)
    if state is not None:
        checkpoint.check_corpora(state, trained, out)
        same = state['model_config'] == vars(config)
        require(same, f'the model in {out} has other sizes: {state["model_config"]}')
    return state


def branch_point(settings):
    """The checkpoint of a wsd trunk at or before the step where this run's learning rate begins to
    fall: up to there the two runs are the same."""
    fall = schedule.decay_start(max_steps, decay_fraction)
    require(lr_schedule == 'wsd', "init_from needs lr_schedule='wsd' in both runs")
    require(Path(init_from).is_dir(), f'init_from: there is no run {init_from}')
    require(len(stages) == 1, 'a branch needs one stage, since stages follow the length of the run')
    state = checkpoint.last_checkpoint(init_from, at_most=fall)
    require(state, f'{init_from} has no checkpoint up to step {fall}: keep_checkpoints=[{fall}]')
    trunk = DEFAULTS | state['settings']
    constant = state['step'] <= schedule.decay_start(trunk['max_steps'], trunk['decay_fraction'])
    require(constant, f'in {init_from} the learning rate falls before step {state["step"]}')
    ignored = dict.fromkeys(('max_steps', 'decay_fraction', 'min_learning_rate', 'init_from'))
    refuse_other_settings(trunk | ignored, settings | ignored, init_from)
    same = warmup(settings) == warmup(trunk)
    require(same, f'{init_from} has another warm-up; give both the same warmup_steps')
    return state


def take_over(model, trained):
    """Gives `model` the body of the run in init_from and the entries of the languages that it has.

    Returns their names. Raises ConfigError unless it has all of `trained` but the trainable one."""
    there, known, _ = checkpoint.load_run(init_from)
    known = {(lang.name, lang.corpus.name, lang.order): lang.table for lang in known}
    old_tables = [known.get((lang.name, lang.corpus.name, lang.order)) for lang in trained]
    taken = [(lang, old) for lang, old in zip(trained, old_tables) if old is not None]
    names = [language.name for language, _ in taken]
    missing = ', '.join(sorted(set(languages) - {trainable, *names}))
    require(
        not missing,
        f'{init_from} has no language {missing}, and only the trainable language {trainable} may '
        'be new',
    )
    same = vars(there.config) | dict(vocab_size=0) == vars(model.config) | dict(vocab_size=0)
    require(same, f'the model in {init_from} has other sizes: {vars(there.config)}')
    weights = there.state_dict()
    for name in ENTRIES:
        rows, weights[name] = weights[name], model.state_dict()[name]
        for language, old_table in taken:
            weights[name][language.table] = rows[old_table]
    model.load_state_dict(weights)
    return names


# --- the run --------------------------------------------------------------------------------------


class Training:
    """A run: its languages, model and optimiser, and the step that it has reached."""

    def __init__(self, settings, out, processes):
        """Builds everything, or takes it from the last checkpoint. Raises ConfigError."""
        self.settings, self.out, self.processes = settings, out, processes
        device_, self.signals = processes.device, machine.Signals()
        self.compute_dtype = machine.pick_dtype(dtype, device_)
        self.context = machine.autocast(device_, self.compute_dtype)
        of_languages = corpora, languages, vocabulary, cloned_fraction, seed, orders
        self.trained, entries = build_languages(*of_languages)
        of_mix = stages, max_steps, batch_size, block_size, seed, parallel_epochs
        self.mix = LanguageMix(self.trained, *of_mix)
        self.counts = np.full(max_steps, batch_size)  # sequences that each step trains on
        if only:
            self.trained, entries = alone(self.trained, only)
            self.mix.languages[languages.index(only)] = self.trained[0]
            self.counts = (self.mix.drawn == languages.index(only)).sum(1)
        require(self.counts.any(), f'the run never draws {only}: there is nothing to train')
        shared = only or batch_size % processes.world == 0
        require(shared, f'batch_size {batch_size} cannot be shared by {processes.world} processes')
        for language in self.trained:
            name, tokens = language.corpus.name, len(language.corpus.test)
            require(
                tokens > block_size,
                f'the test set of {name} has {tokens:,} tokens, fewer than block_size {block_size}',
            )
        self.config = GPTConfig(**model_shape(), block_size=block_size, vocab_size=entries)
        state = start_state(out, settings, self.trained, self.config)
        self.step, self.elapsed = (state['step'], state['wall_time_s']) if state else (0, 0.0)
        torch.manual_seed(seed)
        self.model = GPT(self.config)
        self.weights = None if only else language_weights()
        self.fixed = None  # of the entries: all but those of `trainable`, which learn alone
        if trainable != 'all' and not only:
            self.fixed = torch.ones(entries, dtype=torch.bool)
            self.fixed[own_entries(self.trained, trainable)] = False
        self.notes = []  # what else is printed at the start
        if state:
            self.model.load_state_dict(state['model'])
            if init_from and not checkpoint.checkpoint_paths(out):
                self.notes.append(f'branches off {init_from} at step {self.step}')
        elif not only:
            self.start_weights()
        self.model.to(device_)
        if self.fixed is not None:
            self.fixed = self.fixed.to(device_)
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in ENTRIES)
        self.evaluate = partial(perplexities, self.model, self.trained, context=self.context)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = make_optimizer(self.model)
        half = self.compute_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device_.type, enabled=half)
        if state:
            self.optimizer.load_state_dict(state['optimizer'])
            self.scaler.load_state_dict(state['scaler'])
        self.micro = self.pick_micro_batch(state)
        self.parallel = self.model
        machine.make_deterministic(device_)
        if compile and machine.can_compile(device_):
            self.parallel = torch.compile(self.model)
            self.notes.append('the first step compiles, for up to a minute')
        elif compile:
            self.notes.append('no C++ compiler is found (g++ or CXX): going on without compiling')
        if processes.distributed:
            self.parallel = DistributedDataParallel(self.parallel)

    def start_weights(self):
        """Changes the random weights of a new run as init_from and start_entries say."""
        if init_from:  # else trainable is all: a run without a checkpoint branches off nothing
            names = ', '.join(take_over(self.model, self.trained))
            self.notes.append(f'body and entries of {names} are those of {init_from}')
        if start_entries:
            pairs = entry_pairs(self.trained, start_entries)
            if self.fixed is not None:
                pairs = pairs[~self.fixed.numpy()[pairs[:, 0]]]
            # Their rows are those of the others plus normal noise of start_noise times the standard
            # deviation of those rows in each dimension.
            for name in ENTRIES:
                weight = self.model.state_dict()[name]
                rows = weight[pairs[:, 1]]
                noise = start_noise * rows.std(0, correction=0) * torch.randn(rows.shape)
                weight[pairs[:, 0]] = rows + noise
            self.notes.append(f'{len(pairs):,} entries start as others: {start_entries}')

    def rows_of(self, step):
        """Which of a step's sequences this process trains on."""
        rank, world = self.processes.rank, self.processes.world
        if only:
            return np.flatnonzero(self.mix.drawn[step] == languages.index(only))[rank::world]
        share = batch_size // world
        return slice(rank * share, (rank + 1) * share)

    def pick_micro_batch(self, state):
        """Sequences of a pass. A resumed run keeps what it had: other sizes round differently."""
        counts = -(-self.counts // self.processes.world)
        given = micro_batch_size or (state and state['micro_batch_size'])
        if given and (only or counts[0] % given == 0):
            return given
        text = f'micro_batch_size {given} does not divide the {counts[0]} sequences of a process'
        require(not micro_batch_size, text)
        about = self.config, self.compute_dtype, self.processes.device, self.parameters
        return pass_size(counts, machine.largest_micro_batch(*about))

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
                corpora=checkpoint.corpora_identity(self.trained),
                wall_time_s=self.wall_time(),
            )
            checkpoint.save_checkpoint(self.out, state, keep_checkpoints)

    def wall_time(self):
        return self.elapsed + time.perf_counter() - self.started

    def leave(self):
        """Ends the process after a signal; a step that it was in will be taken again."""
        self.log.flush()
        self.save()
        if self.processes.rank == 0:
            print(f'stopped by a signal after step {self.step}; the same command goes on')
        sys.exit(128 + (self.signals.number or signal.SIGTERM))

    def batches(self):
        """Yields the batches of the steps to come, each made in a thread while the device works on
        the one before: [inputs, targets], and the languages of the sequences."""

        def make(step):
            *arrays, drawn = self.mix.batch(step, self.rows_of(step))
            tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            pinned = self.processes.device.type == 'cuda'
            return [t.pin_memory() for t in tensors] if pinned else tensors, drawn

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(make, self.step)
            for step in range(self.step + 1, max_steps + 1):
                batch = following.result()
                following = pool.submit(make, step) if step < max_steps else None
                yield batch

    def compute_gradients(self, batch, drawn, count):
        """Forward and backward passes over this process's sequences of a step.

        batch: inputs and targets, each (rows, T); drawn: their languages (rows,); count: sequences
        of the step in all processes. Returns the unweighted loss of each sequence in nats a token,
        (rows,) on the device. The gradient is that of the mean over the step's tokens."""
        rows, micro, processes = len(drawn), self.micro, self.processes
        passes = max(1, -(-rows // micro))
        missing = passes * micro - rows  # a short pass is filled up with padding, which is free
        inputs, targets = (
            F.pad(tokens.to(processes.device, non_blocking=True), (0, 0, 0, missing), value=PAD)
            for tokens in batch
        )
        weights = [None] * passes
        if self.weights is not None:
            weights = torch.from_numpy(self.weights[drawn]).to(processes.device)
            weights = F.pad(weights, (0, missing)).split(micro)
        losses = []
        for number, part in enumerate(zip(inputs.split(micro), targets.split(micro), weights)):
            own, last = min(micro, rows - number * micro), number == passes - 1
            waits = processes.distributed and not last
            with self.parallel.no_sync() if waits else contextlib.nullcontext():
                with self.context:
                    loss, per_token = self.parallel(*part[:2], per_token=True, weights=part[2])
                self.scaler.scale(loss * (own * processes.world / count)).backward()
            losses.append(per_token[:own].detach().float().mean(1))
            # A step takes minutes on a CPU, so a run of one process stops within it. Many
            # processes must stop at the same place, which is the end of a step.
            if self.signals.number and not processes.distributed and not last:
                self.leave()
        return torch.cat(losses)

    def take_step(self, batch, drawn):
        """Trains on a step, in smaller passes where those of micro_batch_size=0 do not fit the
        device of one process."""
        count = int(self.counts[self.step])
        curve = learning_rate, min_learning_rate, warmup(globals()), lr_schedule, decay_fraction
        rate = schedule.learning_rate(self.step, max_steps, *curve)
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        try:
            losses = self.compute_gradients(batch, drawn, count)
            if self.fixed is not None:  # Adam has no weight decay: without a gradient a row stays
                for name in ENTRIES:
                    self.model.get_parameter(name).grad[self.fixed] = 0
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.log.pending.append((self.step, losses, drawn, rate))
            return
        except torch.OutOfMemoryError:
            if micro_batch_size or self.micro == 1 or self.processes.distributed:
                raise
        self.micro = pass_size(self.counts, self.micro - 1)
        tqdm.write(f'that did not fit the device: going on with passes of {self.micro} sequences')
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.take_step(batch, drawn)

    def train(self):
        """Takes the steps up to max_steps: log, checkpoints, quick perplexities, signals."""
        processes = self.processes
        peak = machine.measure_peak(processes.device, self.compute_dtype) * processes.world
        self.started = time.perf_counter()
        self.signals.listen()
        self.log = log = Log(self.out, processes, self.step, self.settings)
        if processes.rank == 0:
            body, read = self.model.non_embedding_parameters(), self.mix.epochs(max_steps)
            print(
                f'{self.out}: {body:,} parameters and {self.config.vocab_size:,} vocabulary '
                f'entries, {processes.device} in {self.compute_dtype}, passes of {self.micro} '
                'sequences; reads its text:',
                ', '.join(f'{lang.name} {read[lang.name]:.2f} times' for lang in self.trained),
            )
            for note in self.notes:
                print(note)
        bar = dict(unit=' steps', disable=processes.rank > 0, dynamic_ncols=True)
        with tqdm(total=max_steps, initial=self.step, **bar) as progress:
            for batch, drawn in self.batches():
                if self.counts[self.step]:  # else a control has none of its language
                    self.take_step(batch, drawn)
                self.step = step = self.step + 1
                progress.update(1)
                ends = step == max_steps
                evaluates = eval_interval and step % eval_interval == 0 and not ends
                saves = step % checkpoint_interval == 0 or step in keep_checkpoints or ends
                looks = processes.device.type == 'cpu' or step % log_interval == 0
                if not (looks or evaluates or saves):
                    continue
                stop = processes.sum(np.array([float(self.signals.number)]))[0]
                log.flush()
                efficiency = log.speed * self.config.flops_per_token() / peak
                text = f'loss {log.loss:.3f}, {log.speed:,.0f} tokens/s, MFU {efficiency:.0%}'
                progress.set_postfix_str(text, refresh=False)
                if stop and not ends:
                    self.leave()
                if saves:
                    self.save()
                if evaluates:
                    scores = self.evaluate(max_windows=eval_windows, quiet=True)
                    quick = {name: score['ppl'] for name, score in scores.items()}
                    log.write(dict(step=step - 1, perplexity=quick))
                    line = ', '.join(f'{name} {ppl:.1f}' for name, ppl in quick.items())
                    progress.write(f'step {step}: {line}')
                    log.since = time.perf_counter()

    def results(self):
        """Evaluates; returns what results.json holds."""
        wall_time, read = self.wall_time(), self.mix.epochs(max_steps)
        for number in (signal.SIGTERM, signal.SIGINT):  # the checkpoint is written: nothing is lost
            signal.signal(number, signal.default_int_handler)
        scores = self.evaluate(max_windows=final_windows, quiet=self.processes.rank > 0)
        of_language = {}
        for language in self.trained:
            name, corpus = language.name, language.corpus
            sequences = int(self.mix.before[max_steps, languages.index(name)])
            of_language[name] = dict(
                corpus=corpus.name,
                tokenizer=corpus.tokenizer_hash,
                test=corpus.info['test']['fingerprint'],
                sequences_seen=sequences,
                tokens_seen=sequences * block_size,
                epochs=read[name],
                **scores[name],
            )
        tokens = sum(entry['tokens_seen'] for entry in of_language.values())
        python = platform.python_version()
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
            versions=dict(python=python, torch=torch.__version__, numpy=np.__version__),
            device=machine.describe(self.processes.device),
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
    processes = machine.Processes(device)
    out.mkdir(parents=True, exist_ok=True)
    held = checkpoint.lock(out) if processes.rank == 0 else None
    training = None
    try:
        with machine.memory_advice('lower micro_batch_size (0: what fits), else the model'):
            training = Training(settings, out, processes)
            training.train()
            results = training.results()
        if processes.rank == 0:
            checkpoint.write_json(out / 'results.json', results)
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


if __name__ == '__main__':
    run(globals(), main)
