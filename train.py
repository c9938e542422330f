"""Trains a GPT on a mixture of languages.

    python train.py config/clones_90_10.py                    # out/clones_90_10, one process
    python train.py config/clones_90_10.py --size=mini        # out/clones_90_10-size_mini
    python train.py config/clones_90_10.py --only=en2         # its control run: EN2 alone
    torchrun --nproc_per_node=8 train.py config/clones_90_10.py   # eight processes, same result

Rerun a command to resume it, bit for bit on a CPU; a finished run just prints its results. Files in
out/RUN: log.jsonl (a line a step with the loss of each language, and quick perplexities),
checkpoints, results.json.
"""

import contextlib
import json
import os
import platform
import signal
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import schedule
from data import LanguageMix, alone, build_languages
from evaluate import check_corpora, corpora_identity, load_run, perplexities, table
from lib import interventions, machine
from lib.checkpoint import last_checkpoint, save_checkpoint
from lib.configurator import require, run, run_name, settings_of
from lib.files import lock, write_json
from lib.log import Log
from lib.runs import BRANCH, FREE, full_settings, refuse_other_settings
from model import GPT, PAD, SIZES, GPTConfig, make_optimizer

# the languages (Sections 4 and 5)
corpora = ['docs', 'docs']  # the corpus of each language; a corpus named twice makes clones
languages = ['en1', 'en2']  # a name for each
vocabulary = 'disjoint'  # disjoint; anchored: tokens spelled the same share a row (Appendix D.2)
cloned_fraction = 1.0  # fraction of the vocabulary duplicated for a clone (Appendix D.1)
stages = [[0.9, 0.1]]  # p(language), a row for each of the equally long stages (Section 4.5)
orders = []  # of each language's text: '', 'reversed' or 'shuffled_K' in windows of K tokens
only = ''  # control run: the sequences of this language at the same steps, without the others
# interventions (ignored by control runs)
loss_weights = []  # of each language: changes its share of the gradient; scaled to mean 1
init_embeddings = ''  # spelling: a later language's embeddings start as those spelled the same
init_noise = 0.3  # Gaussian noise added to them, in standard deviations of the copied rows
train_only = ''  # freeze everything except this language's embeddings (of the run init_from)
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
micro_batch_size = 0  # sequences of a micro-batch of one process; 0: the largest that fits
max_steps = 18265  # steps; 18,265 of 128 x 512 tokens are the paper's 1.2B
warmup_steps = 500  # steps of linear warm-up
learning_rate = 6e-4  # peak
min_learning_rate = 6e-6  # at the end
lr_schedule = 'cosine'  # cosine; wsd: constant, then linear decay over the last decay_fraction
decay_fraction = 0.2  # fraction of a wsd run that decays
init_from = ''  # folder of a longer wsd run with the same settings to branch off; see train_only
# the run
out_dir = ''  # folder of the run; empty: out/ and the names of the configs and overrides
eval_interval = 1000  # steps between quick perplexities of each language; 0: none before the end
eval_windows = 256  # windows of a quick perplexity
final_windows = 0  # windows of the perplexity at the end; 0: the whole test set
checkpoint_interval = 1000  # steps between checkpoints
keep_checkpoints = []  # steps whose checkpoints are kept, for branches and studies over training
log_interval = 10  # steps between reading the loss (each read synchronises the GPU)
seed = 0  # of weights, languages drawn and order of the text
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # bfloat16, float16, float32; auto: the first that the device multiplies fast
compile = True  # torch.compile the model
wandb_project = ''  # log to this project of Weights & Biases as well

SETTINGS = list(settings_of(__file__))


# --- settings -------------------------------------------------------------------------------------


def check_settings():
    """Raises ConfigError for settings that contradict each other or the paper's definitions."""
    least = dict(block_size=1, batch_size=1, max_steps=1, checkpoint_interval=1, log_interval=1)
    least |= dict(warmup_steps=0, micro_batch_size=0, init_noise=0, seed=0)
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
    require(
        warmup_steps < max_steps,
        f'the run ends within its warm-up of warmup_steps={warmup_steps}; make that shorter',
    )
    for name in ('only', 'train_only'):
        value = globals()[name]
        require(value in ('', *languages), f'{name}={value!r} is none of the languages {names}')
    valid = init_embeddings in ('', 'spelling')
    require(valid, f"init_embeddings must be 'spelling' or empty, not {init_embeddings!r}")
    require(size in ('', *SIZES), f'size must be empty or one of {sizes}, not {size!r}')
    for name in SIZES['small']:
        positive = model_shape()[name] > 0
        require(positive, f'{name} must be a positive number, or size one of {sizes}')
    interventions.scaled_loss_weights(loss_weights, stages, languages)


def model_shape():
    """The settings that GPTConfig has, with the numbers of `size` where they are 0."""
    settings = {f.name: globals()[f.name] for f in fields(GPTConfig) if f.name in SETTINGS}
    named = SIZES.get(size, {})
    return {name: value or named.get(name, value) for name, value in settings.items()}


# --- the run --------------------------------------------------------------------------------------


class Training:
    """A run: its languages, model and optimiser, and the step that it has reached."""

    def __init__(self, settings, out, processes):
        """Builds everything, or loads it from the last checkpoint. Raises ConfigError."""
        self.settings, self.out, self.processes = settings, out, processes
        self.signals, self.notes = machine.Signals(), []  # notes are printed at the start
        self.compute_dtype = machine.pick_dtype(dtype, processes.device)
        self.context = machine.autocast(processes.device, self.compute_dtype)
        self.open_languages()
        self.open_model()
        self.open_optimizer()

    def open_languages(self):
        """trained: the languages of the model; mix: the batches; counts: sequences of each step."""
        of_languages = corpora, languages, vocabulary, cloned_fraction, seed, orders
        self.trained, self.rows = build_languages(*of_languages)
        self.mix = LanguageMix(self.trained, stages, max_steps, batch_size, block_size, seed)
        self.counts = np.full(max_steps, batch_size)
        if only:
            self.trained, self.rows = alone(self.trained, only)
            self.mix.languages[languages.index(only)] = self.trained[0]
            self.counts = (self.mix.drawn == languages.index(only)).sum(1)
        require(self.counts.any(), f'the run never draws {only}: there is nothing to train')
        shared = only or batch_size % self.processes.world == 0
        world = self.processes.world
        require(shared, f'batch_size {batch_size} cannot be shared by {world} processes')
        for language in self.trained:
            name, tokens = language.corpus.name, len(language.corpus.test)
            require(
                tokens > block_size,
                f'the test set of {name} has {tokens:,} tokens, fewer than block_size {block_size}',
            )

    def open_model(self):
        """The model on the device: new, or of the last checkpoint, or of the run in init_from."""
        self.config = GPTConfig(**model_shape(), vocab_size=self.rows)
        self.state = self.stored_state()
        torch.manual_seed(seed)
        self.model = GPT(self.config)
        self.frozen = None  # embedding rows that do not train, (rows,) bool
        if train_only and not only:
            self.frozen = torch.ones(self.rows, dtype=torch.bool)
            self.frozen[interventions.own_rows(self.trained, train_only)] = False
        if self.state:
            self.model.load_state_dict(self.state['model'])
        elif not only:
            self.intervene()
        device_ = self.processes.device
        self.model.to(device_)
        if self.frozen is not None:
            self.frozen = self.frozen.to(device_)
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in interventions.EMBEDDINGS)
        self.weights = interventions.scaled_loss_weights(loss_weights, stages, languages)
        self.weights = None if only else self.weights
        self.evaluate = partial(perplexities, self.model, self.trained, context=self.context)
        self.parallel = self.model
        machine.make_deterministic(device_)
        if compile and machine.can_compile(device_):
            self.parallel = torch.compile(self.model)
            self.notes.append('the first step compiles, for up to a minute')
        elif compile:
            self.notes.append('no C++ compiler found (g++ or CXX): training uncompiled')
        if self.processes.distributed:
            self.parallel = DistributedDataParallel(self.parallel)

    def open_optimizer(self):
        """The optimiser and the scaler of gradients, and the micro-batch size."""
        self.optimizer = make_optimizer(self.model.parameters(), learning_rate)
        half = self.compute_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.processes.device.type, enabled=half)
        self.step, self.elapsed = 0, 0.0
        if self.state:
            self.optimizer.load_state_dict(self.state['optimizer'])
            self.scaler.load_state_dict(self.state['scaler'])
            self.step, self.elapsed = self.state['step'], self.state['wall_time_s']
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.micro = self.pick_micro_batch()
        self.state = None

    def stored_state(self):
        """The checkpoint to resume, of this run or of the trunk that it branches off, or None."""
        state = last_checkpoint(self.out)
        if state is not None:
            refuse_other_settings(state['settings'], self.settings, self.out)
        elif init_from and not train_only:
            state = branch_point(self.settings)
            self.notes.append(f'branches off {init_from} at step {state["step"]}')
        if state is not None:
            check_corpora(state, self.trained, self.out)
            same = GPTConfig(**state['model_config']) == self.config
            require(same, f'the model in {self.out} has another shape: {state["model_config"]}')
        return state

    def intervene(self):
        """Changes the initial weights of a new run as init_from and init_embeddings say."""
        if init_from:  # with train_only: else the run would branch off
            source, known, _ = load_run(init_from)
            about = self.model, self.trained, train_only, source, known, init_from
            names = ', '.join(interventions.copy_known(*about))
            self.notes.append(f'body and embeddings of {names} are copied from {init_from}')
        if init_embeddings:
            pairs = interventions.row_pairs(self.trained)
            if self.frozen is not None:
                pairs = pairs[~self.frozen.numpy()[pairs[:, 0]]]
            interventions.init_embeddings(self.model, pairs, init_noise)
            self.notes.append(f'{len(pairs):,} embeddings are initialised by {init_embeddings}')

    def rows_of(self, step):
        """Which of a step's sequences this process trains on."""
        rank, world = self.processes.rank, self.processes.world
        if only:
            return np.flatnonzero(self.mix.drawn[step] == languages.index(only))[rank::world]
        share = batch_size // world
        return slice(rank * share, (rank + 1) * share)

    def pick_micro_batch(self):
        """Sequences of a micro-batch. A resumed run keeps its size: others round differently."""
        counts = -(-self.counts // self.processes.world)
        given = micro_batch_size or (self.state and self.state['micro_batch_size'])
        if given and (only or counts[0] % given == 0):
            return given
        text = f'micro_batch_size {given} does not divide the {counts[0]} sequences of a process'
        require(not micro_batch_size, text)
        about = self.config, self.compute_dtype, self.processes.device, self.parameters
        return machine.micro_batch_of(counts, machine.largest_micro_batch(*about))

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

    def stop(self):
        """Ends the process after a signal; an unfinished step will be repeated."""
        self.log.flush()
        self.save()
        if self.processes.rank == 0:
            print(f'stopped by a signal after step {self.step}; rerun to resume')
        sys.exit(128 + (self.signals.number or signal.SIGTERM))

    def batches(self):
        """Generator of the batches of the steps to come: [inputs, targets], and the languages of
        the sequences."""

        def make(step):
            *arrays, drawn = self.mix.batch(step, self.rows_of(step))
            tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            pinned = self.processes.device.type == 'cuda'
            return [t.pin_memory() for t in tensors] if pinned else tensors, drawn

        return machine.prefetch(make, range(self.step, max_steps))

    def compute_gradients(self, batch, drawn, count):
        """Forward and backward pass over this process's sequences of a step.

        batch: inputs and targets, each (rows, T); drawn: their languages (rows,); count: sequences
        of the step in all processes. Returns the unweighted loss of each sequence in nats a token,
        (rows,) on the device. The gradient is that of the mean over the step's tokens."""
        rows, micro, processes = len(drawn), self.micro, self.processes
        parts = max(1, -(-rows // micro))
        missing = parts * micro - rows  # the last micro-batch is filled up with padding
        inputs, targets = (
            F.pad(tokens.to(processes.device, non_blocking=True), (0, 0, 0, missing), value=PAD)
            for tokens in batch
        )
        weights = [None] * parts
        if self.weights is not None:
            weights = torch.from_numpy(self.weights[drawn]).to(processes.device)
            weights = F.pad(weights, (0, missing)).split(micro)
        losses = []
        for number, part in enumerate(zip(inputs.split(micro), targets.split(micro), weights)):
            own, last = min(micro, rows - number * micro), number == parts - 1
            waits = processes.distributed and not last
            with self.parallel.no_sync() if waits else contextlib.nullcontext():
                with self.context:
                    loss, per_token = self.parallel(*part[:2], per_token=True, weights=part[2])
                self.scaler.scale(loss * (own * processes.world / count)).backward()
            losses.append(per_token[:own].detach().float().mean(1))
            # A step takes minutes on a CPU, so a run of one process stops within it. Several
            # processes must stop at the same place, which is the end of a step.
            if self.signals.number and not processes.distributed and not last:
                self.stop()
        return torch.cat(losses)

    def take_step(self, batch, drawn):
        """Trains on one step."""
        curve = learning_rate, min_learning_rate, warmup_steps, lr_schedule, decay_fraction
        rate = schedule.learning_rate(self.step, max_steps, *curve)
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        losses = self.compute_gradients(batch, drawn, int(self.counts[self.step]))
        if self.frozen is not None:  # Adam without weight decay leaves rows without gradient alone
            for name in interventions.EMBEDDINGS:
                self.model.get_parameter(name).grad[self.frozen] = 0
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.log.add(self.step, losses, drawn, learning_rate=rate)

    def describe(self):
        """Prints what is about to be trained."""
        body, read = self.model.non_embedding_parameters(), self.mix.epochs(max_steps)
        print(
            f'{self.out}: {body:,} parameters and {self.rows:,} embedding rows, '
            f'{self.processes.device} in {self.compute_dtype}, micro-batches of {self.micro}; '
            'epochs of its text:',
            ', '.join(f'{lang.name} {read[lang.name]:.2f}' for lang in self.trained),
        )
        for note in self.notes:
            print(note)

    def train(self):
        """Takes the steps up to max_steps: log, checkpoints, quick perplexities, signals."""
        processes = self.processes
        peak = machine.measure_peak(processes.device, self.compute_dtype) * processes.world
        self.started = time.perf_counter()
        self.signals.listen()
        self.log = log = Log(self.settings, self.out, processes, self.step)
        if processes.rank == 0:
            self.describe()
        bar = dict(unit=' steps', disable=processes.rank > 0, dynamic_ncols=True)
        with tqdm(total=max_steps, initial=self.step, **bar) as progress:
            for batch, drawn in self.batches():
                if self.counts[self.step]:  # a control has nothing to train on when its language
                    self.take_step(batch, drawn)  # was not drawn
                self.step = step = self.step + 1
                progress.update(1)
                ends = step == max_steps
                evaluates = eval_interval and step % eval_interval == 0 and not ends
                saves = step % checkpoint_interval == 0 or step in keep_checkpoints or ends
                reads = processes.device.type == 'cpu' or step % log_interval == 0
                if not (reads or evaluates or saves):
                    continue
                stop = processes.sum(np.array([float(self.signals.number)]))[0]
                log.flush()
                efficiency = log.speed * self.config.flops_per_token() / peak
                text = f'loss {log.loss:.3f}, {log.speed:,.0f} tokens/s, MFU {efficiency:.0%}'
                progress.set_postfix_str(text, refresh=False)
                if stop and not ends:
                    self.stop()
                if evaluates:
                    scores = self.evaluate(max_windows=eval_windows, quiet=True)
                    quick = {name: score['ppl'] for name, score in scores.items()}
                    log.write(dict(step=step - 1, perplexity=quick))
                    line = ', '.join(f'{name} {ppl:.1f}' for name, ppl in quick.items())
                    progress.write(f'step {step}: {line}')
                    log.since = time.perf_counter()
                if saves:
                    self.save()

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
        body, python = self.model.non_embedding_parameters(), platform.python_version()
        about = dict(parameters=self.parameters, non_embedding_parameters=body)
        return dict(
            run=self.out.name,
            settings=self.settings,
            model=vars(self.config) | about,
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


def branch_point(settings):
    """The checkpoint of a wsd trunk at or before the step where this run starts to decay: up to
    there the two runs are the same. Raises ConfigError."""
    decays = schedule.decay_start(max_steps, decay_fraction)
    require(lr_schedule == 'wsd', "init_from needs lr_schedule='wsd' in both runs")
    require(Path(init_from).is_dir(), f'init_from: there is no run {init_from}')
    require(len(stages) == 1, 'a branch needs one stage, since stages follow the length of the run')
    state = last_checkpoint(init_from, at_most=decays)
    needed = f'has no checkpoint up to step {decays}: keep_checkpoints=[{decays}]'
    require(state, f'{init_from} {needed}')
    trunk = full_settings(state['settings'])
    constant = state['step'] <= schedule.decay_start(trunk['max_steps'], trunk['decay_fraction'])
    require(constant, f'in {init_from} the learning rate decays before step {state["step"]}')
    refuse_other_settings(state['settings'], settings, init_from, FREE | BRANCH)
    return state


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
    held = lock(out) if processes.rank == 0 else None
    training = None
    try:
        with machine.memory_advice('lower micro_batch_size (0: what fits), or the model'):
            training = Training(settings, out, processes)
            training.train()
            results = training.results()
        if processes.rank == 0:
            write_json(out / 'results.json', results)
            show(results, out)
    finally:
        if training:
            training.parallel = None  # before the process group: DDP may wait for it forever
        processes.close()
        if held:
            held.close()
            if [path.name for path in out.iterdir()] == ['.lock']:  # refused before it began
                (out / '.lock').unlink()
                out.rmdir()


if __name__ == '__main__':
    run(globals(), main)
