"""Trains a GPT on a mixture of languages.

    python train.py config/clones_90_10.py                    # out/clones_90_10, one process
    python train.py config/clones_90_10.py --size=mini        # out/clones_90_10-size_mini
    python train.py config/clones_90_10.py --only=en2         # its control run, without EN1
    python train.py config/clones_90_10.py --only=en2 --epochs=4    # a control that re-reads
    python train.py config/clones_90_10.py --alone=en2        # a monolingual run of as many steps
    torchrun --nproc_per_node=8 train.py config/clones_90_10.py     # the same in eight processes

Rerun a command to resume it, bit for bit on a CPU; a finished run just prints its results. Files in
out/RUN: log.jsonl (a line a step with the loss of each language, and quick perplexities),
checkpoints, results.json.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path

from lib.configurator import defaults_of, require, run, run_name

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import schedule
from data import LanguageMix, build_languages, monolingual
from evaluate import corpora_identity, find_corpora, load_run, perplexities, table
from lib import interventions, machine, runs
from lib.checkpoint import last_checkpoint, load_state, save_checkpoint
from lib.files import lock, read_json, write_json
from lib.log import Log, open_wandb
from model import GPT, PAD, SIZES, GPTConfig, make_optimizer

# the languages (Sections 4 and 5)
corpora = ['docs', 'docs']  # the corpus of each language; a corpus named twice makes clones
languages = ['en1', 'en2']  # a name for each
vocabulary = 'disjoint'  # disjoint; anchored: tokens spelled the same share a row (Appendix D.2)
cloned_fraction = 1.0  # fraction of the vocabulary duplicated for a clone (Appendix D.1)
stages = [[0.9, 0.1]]  # p(language), a row for each of the equally long stages (Section 4.5)
orders = []  # of each language's text: '', 'reversed', 'shuffled_K' or 'scrambled_K', see data.py
alone = ''  # monolingual run: all steps in this language
only = ''  # control run: the sequences of this language at the same steps, without the others
epochs = 0  # control run: passes over its sequences; 0: one pass, at the mixture's steps
control_batch = 0  # control run with epochs: sequences of a batch; 0: batch_size
# interventions (ignored by control runs)
loss_weights = []  # of each language: changes its share of the gradient; scaled to mean 1
init_embeddings = ''  # spelling: later languages start with the first one's embeddings, by spelling
init_noise = 0.3  # of init_embeddings: Gaussian noise, in standard deviations of the copied rows
train_only = ''  # train this language's embeddings only, and freeze the rest, copied from init_from
# the model (Section 3)
size = 'small'  # mini, small or medium; the next five, where not 0, override its numbers
n_layer = 0  # blocks
n_head = 0  # attention heads
head_dim = 0  # width of a head
n_embd = 0  # width of the residual stream
mlp_dim = 0  # width of the MLP's hidden layer
block_size = 512  # tokens of a sequence
positions = 'learned'  # learned, as in the paper; rotary
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
data_dir = 'data'  # folder of the corpora
eval_interval = 1000  # steps between quick perplexities of each language; 0: none before the end
eval_windows = 256  # windows of a quick perplexity
final_windows = 0  # windows of the perplexity at the end; 0: the whole test set
checkpoint_interval = 1000  # steps between checkpoints; the final one is kept
keep_checkpoints = []  # steps whose checkpoints are kept, for branches and studies over training
log_interval = 10  # steps between reading the loss (each read synchronises the GPU)
seed = 0  # of weights, languages drawn and order of the text
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # bfloat16, float16, float32; auto: the first that the device multiplies fast
compile = True  # torch.compile the model
wandb_project = ''  # log to this project of Weights & Biases as well

SETTINGS = list(defaults_of(__file__))


# --- settings -------------------------------------------------------------------------------------


def keep_alone():
    """Turns the settings into those of a monolingual run of the language `alone`."""
    require(alone in languages, f'alone={alone!r} is none of the languages {", ".join(languages)}')
    require(not only, 'alone and only exclude each other')
    named = len(corpora) == len(languages) == len({*languages})
    named &= len(orders) in (0, len(languages))
    require(named, f'alone={alone}: corpora and orders must be one for each language, named once')
    index, mixed = languages.index(alone), {'alone', *runs.INTERVENTIONS, *runs.VOCABULARY}
    mixed |= {'init_from'} if train_only else set()
    kept = dict(languages=[alone], corpora=corpora[index : index + 1], stages=[[1.0]])
    kept |= dict(orders=[order for order in orders[index : index + 1] if order])
    globals().update({name: runs.DEFAULTS[name] for name in mixed} | kept)


def check_settings():
    """Raises ConfigError for settings that contradict each other or the paper's definitions."""
    positive = 'block_size batch_size max_steps checkpoint_interval log_interval'.split()
    for name in SETTINGS:
        value, least = globals()[name], int(name in positive)
        valid = not isinstance(value, (int, float)) or value >= least
        require(valid, f'{name} must be at least {least}, not {value}')
    choices = dict(lr_schedule=('cosine', 'wsd'), init_embeddings=('', 'spelling'))
    choices |= dict(size=('', *SIZES), only=('', *languages), train_only=('', *languages))
    choices |= dict(positions=('learned', 'rotary'))
    for name, allowed in choices.items():
        value = globals()[name]
        require(value in allowed, f'{name} must be one of {allowed}, not {value!r}')
    for row in stages or [[]]:
        valid = all(isinstance(p, (int, float)) and p >= 0 for p in row)
        valid = valid and len(row) == len(languages) and abs(sum(row) - 1) <= 1e-6
        require(valid, f'stages: {row} must be {len(languages)} probabilities that add up to 1')
    rates = 0 <= min_learning_rate <= learning_rate > 0
    require(rates, 'learning_rate must be above 0 and min_learning_rate 0 to learning_rate')
    require(0 < decay_fraction <= 1, 'decay_fraction must be above 0 and at most 1')
    whole = all(isinstance(n, (int, float)) and n >= 1 and n % 1 == 0 for n in keep_checkpoints)
    require(whole, f'keep_checkpoints must be steps of at least 1, not {keep_checkpoints}')
    require(only or not epochs, f'epochs={epochs} needs a control run: --only=LANGUAGE')
    require(epochs or not control_batch, f'control_batch={control_batch} needs epochs')
    missing = [name for name in SIZES['small'] if not model_shape()[name]]
    require(not missing, f'set {", ".join(missing)}, or size to one of {", ".join(SIZES)}')
    turns = positions == 'learned' or model_shape()['head_dim'] % 2 == 0
    require(turns, 'positions=rotary needs an even head_dim')
    interventions.scaled_loss_weights(loss_weights, stages, languages)


def free_settings():
    """Settings that may change on resume. A branch of a trunk has the weights of a whole run."""
    return runs.FREE if train_only else runs.FREE | {'init_from'}


def model_shape():
    """The settings of GPTConfig; a 0 takes the value of `size`."""
    settings = {f.name: globals()[f.name] for f in fields(GPTConfig) if f.name in SETTINGS}
    return {name: value or SIZES.get(size, {}).get(name, value) for name, value in settings.items()}


# --- the run --------------------------------------------------------------------------------------


class Training:
    """A run: its languages, model and optimiser, and the step that it has reached."""

    def __init__(self, settings, out, processes):
        """Builds everything, or loads it from the last checkpoint. Raises ConfigError."""
        self.settings, self.out, self.processes = settings, out, processes
        self.signals, self.version = machine.Signals(), machine.code_version()
        self.source, state = out, last_checkpoint(out)
        first = state  # whose number format the run has
        if state:
            runs.refuse_other_settings(state['settings'], settings, out, free_settings())
        elif init_from and not train_only:
            self.source, (first, state) = init_from, branch_point(settings)
            self.say(f'branches off {init_from} at step {state["step"] if state else 0}')
        # what `auto` chose on the first machine stays
        stored = first.get('dtype', dtype) if first else dtype
        self.compute_dtype = machine.pick_dtype(stored, processes.device)
        self.number_format = str(self.compute_dtype).removeprefix('torch.')
        self.context = machine.autocast(processes.device, self.compute_dtype)
        if state and state.get('version', self.version) != self.version:
            self.version = self.version[0], True  # the code of this run is not that of one commit
        self.open_languages(state)
        self.open_model(state)
        self.open_optimizer(state)
        steps = processes.sum(np.array([float(self.step)]))[0]
        together = steps == self.step * processes.world
        require(together, f'the processes resume from different steps: {out} must be shared')

    def say(self, text):
        if self.processes.rank == 0:
            print(text)

    def open_languages(self, state):
        """Sets `trained`, the languages of the model; `mix`, the batches; `steps`, their number."""
        root = find_corpora(state, self.out, data_dir) if state else data_dir
        of_languages = corpora, languages, vocabulary, cloned_fraction, seed, orders
        self.trained, self.rows = build_languages(*of_languages, root)
        self.mix = LanguageMix(self.trained, stages, max_steps, batch_size, block_size, seed)
        if only:
            self.trained, self.rows = monolingual(self.trained, only)
            self.mix = self.mix.control(self.trained[0], epochs, control_batch or batch_size)
        self.steps = len(self.mix.counts)
        require(self.mix.counts.any(), f'only={only}: the mixture never samples it')
        require(warmup_steps < self.steps, f'all {self.steps} steps are within warmup_steps')
        short = ', '.join(lang.name for lang in self.trained if len(lang.corpus.test) <= block_size)
        require(not short, f'block_size {block_size} is longer than the test set of {short}')

    def open_model(self, state):
        """The model on the device: new, or of the last checkpoint, or of the run in init_from."""
        self.config, place = GPTConfig(**model_shape(), vocab_size=self.rows), self.processes.device
        torch.manual_seed(seed)
        self.model = GPT(self.config)
        if state:
            load_state(self.model, state['model'], f'the model in {self.source}')
        elif not only:
            self.intervene()
        self.model.to(place)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.restore = self.weights = None
        if train_only and not only:
            self.restore = interventions.freeze_body(self.model, self.trained, train_only)
        if not only:
            self.weights = interventions.scaled_loss_weights(loss_weights, stages, languages)
        self.evaluate = partial(perplexities, self.model, self.trained, context=self.context)
        self.parallel = self.model
        machine.make_deterministic(place)
        if compile and machine.can_compile(place):
            self.parallel = torch.compile(self.model, dynamic=False)
            self.say('the first step compiles, for up to a minute')
        if self.processes.distributed:
            self.parallel = DistributedDataParallel(self.parallel)

    def intervene(self):
        """Changes the initial weights of a new run as init_from and init_embeddings say."""
        if init_from and train_only:
            source, known, _ = load_run(init_from, data_dir)
            about = self.model, self.trained, train_only, source, known, init_from
            names = ', '.join(interventions.copy_known(*about))
            self.say(f'body and embeddings of {names} are copied from {init_from}')
        if init_embeddings:
            pairs = interventions.row_pairs(self.trained, train_only)
            interventions.init_embeddings(self.model, pairs, init_noise)
            self.say(f'{len(pairs):,} embeddings are initialised by {init_embeddings}')

    def open_optimizer(self, state):
        """The optimiser, the scaler of gradients, the micro-batch size, and the step reached."""
        self.optimizer = make_optimizer(self.model, learning_rate)
        # the rate of each group relative to that of the schedule
        self.rates = [group['lr'] / learning_rate for group in self.optimizer.param_groups]
        half = self.compute_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.processes.device.type, enabled=half)
        self.step, self.elapsed = (state['step'], state['wall_time_s']) if state else (0, 0.0)
        if 0 < self.step < self.steps:
            for name, part in (('optimizer', self.optimizer), ('scaler', self.scaler)):
                load_state(part, state[name], f'the {name} in {self.source}')
        # resume with the checkpoint's micro-batch size: another one rounds differently
        self.micro = micro_batch_size or (state['micro_batch_size'] if state else 0)
        if not self.micro:
            about = self.config, self.compute_dtype, self.processes.device, self.parameters
            counts = -(-self.mix.counts // self.processes.world)  # of the first process
            self.micro = machine.micro_batch_of(counts, machine.largest_micro_batch(*about))

    def save(self):
        """Writes a checkpoint; the last one is without optimiser unless it is to be kept."""
        if self.processes.rank:
            return
        state = dict(step=self.step, settings=self.settings, wall_time_s=self.wall_time())
        state |= dict(model=self.model.state_dict(), model_config=vars(self.config))
        state |= dict(micro_batch_size=self.micro, corpora=corpora_identity(self.trained))
        state |= dict(version=self.version, dtype=self.number_format)
        unfinished = self.step < self.steps
        if unfinished or self.step in keep_checkpoints:
            state |= dict(optimizer=self.optimizer.state_dict(), scaler=self.scaler.state_dict())
        save_checkpoint(self.out, state, keep_checkpoints, spare=int(unfinished))

    def wall_time(self):
        return self.elapsed + time.perf_counter() - self.started

    def stop(self):
        """Ends the process after a signal; an unfinished step will be repeated."""
        self.log.flush()
        self.save()
        self.say(f'stopped by a signal after step {self.step}; rerun to resume')
        sys.exit(128 + (self.signals.number or signal.SIGTERM))

    def batches(self):
        """Generator of this process's part of the batches to come: [inputs, targets], languages."""
        share = slice(self.processes.rank, None, self.processes.world)

        def make(step):
            *arrays, drawn = self.mix.batch(step, share)
            tensors = [torch.from_numpy(array) for array in arrays]
            pinned = self.processes.device.type == 'cuda'
            return [t.contiguous().pin_memory() for t in tensors] if pinned else tensors, drawn

        return machine.prefetch(make, range(self.step, self.steps))

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
        rate = schedule.learning_rate(self.step, self.steps, *curve)
        for group, own in zip(self.optimizer.param_groups, self.rates):
            group['lr'] = rate * own
        losses = self.compute_gradients(batch, drawn, int(self.mix.counts[self.step]))
        self.scaler.unscale_(self.optimizer)  # from here on gradients have their true size
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.restore:
            self.restore()
        self.log.add(self.step, losses, drawn, learning_rate=rate)

    def train(self):
        """Takes the steps that are left: log, quick perplexities, checkpoints, signals."""
        processes = self.processes
        place, body = processes.device, self.model.non_embedding_parameters()
        peak = machine.measure_peak(place, self.compute_dtype) * processes.world
        self.started = time.perf_counter()
        self.log = log = Log(self.settings, self.out, processes, self.step)
        read = ', '.join(f'{lang.name} {self.mix.epochs[lang.name]:.2f}' for lang in self.trained)
        text = f'{self.out}: {body:,} parameters and {self.rows:,} embedding rows, {place} in'
        self.say(f'{text} {self.compute_dtype}, micro-batches of {self.micro}')
        self.say(f'epochs of its text: {read}')
        bar = dict(unit=' steps', disable=processes.rank > 0, dynamic_ncols=True)
        with self.signals, tqdm(total=self.steps, initial=self.step, **bar) as progress:
            for batch, drawn in self.batches():
                if self.mix.counts[self.step]:  # else a control has nothing to train on
                    self.take_step(batch, drawn)
                self.step = step = self.step + 1
                progress.update(1)
                ends = step == self.steps
                evaluates = eval_interval and step % eval_interval == 0 and not ends
                saves = step % checkpoint_interval == 0 or step in keep_checkpoints or ends
                stop = processes.sum(np.array([float(self.signals.number)]))[0]
                reads = place.type == 'cpu' or step % log_interval == 0
                if not (reads or evaluates or saves or stop):
                    continue
                log.flush()
                efficiency = log.speed * self.config.flops_per_token() / peak
                text = f'loss {log.loss:.3f}, {log.speed:,.0f} tokens/s, MFU {efficiency:.0%}'
                progress.set_postfix_str(text, refresh=False)
                if stop and evaluates:
                    self.save()  # there may be no time to evaluate
                if evaluates:
                    scores = self.evaluate(max_windows=eval_windows, quiet=True)
                    quick = {name: score['ppl'] for name, score in scores.items()}
                    log.write(dict(step=step - 1, perplexity=quick))
                    line = ', '.join(f'{name} {ppl:.1f}' for name, ppl in quick.items())
                    progress.write(f'step {step}: {line}')
                    log.since = time.perf_counter()
                if stop:
                    self.stop()
                if saves:
                    self.save()

    def results(self):
        """Evaluates; returns what results.json holds."""
        wall_time = self.wall_time()
        scores = self.evaluate(max_windows=final_windows, quiet=self.processes.rank > 0)
        for language in self.trained:
            name, corpus = language.name, language.corpus
            seen = int(self.mix.before[max_steps, languages.index(name)])
            read = int(self.mix.counts.sum()) if only else seen  # more if a control re-reads
            about = dict(corpus=corpus.name, tokenizer=corpus.tokenizer_hash)
            about |= dict(epochs=self.mix.epochs[name], sequences_seen=seen)
            about |= dict(tokens_seen=seen * block_size, tokens_read=read * block_size)
            scores[name] = about | dict(test=corpus.info['test']['fingerprint']) | scores[name]
        tokens = sum(score['tokens_read'] for score in scores.values())
        shape = dict(non_embedding_parameters=self.model.non_embedding_parameters())
        shape |= vars(self.config) | dict(parameters=self.parameters)
        found = dict(run=self.out.name, settings=self.settings, model=shape, languages=scores)
        found |= dict(steps=self.steps, tokens=tokens, wall_time_s=wall_time)
        found |= dict(tokens_per_second=tokens / wall_time, processes=self.processes.world)
        found |= dict(device=machine.describe(self.processes.device), dtype=self.number_format)
        versions = dict(python=sys.version.split()[0], torch=torch.__version__)
        found |= dict(versions=versions | dict(numpy=np.__version__))
        return found | dict(zip(('commit', 'dirty'), self.version))


def branch_point(settings):
    """The last checkpoint of a wsd trunk; and the last one before either run starts to decay, up to
    which the two runs are the same, or None. Raises ConfigError."""
    require(lr_schedule == 'wsd', "init_from needs lr_schedule='wsd' in both runs")
    require(len(stages) == 1, 'a branch needs one stage, since stages follow the length of the run')
    require(not epochs, 'a control with epochs cannot branch: its order follows its length')
    trunk = last_checkpoint(init_from)
    require(trunk, f'init_from: there is no run {init_from}')
    runs.refuse_other_settings(trunk['settings'], settings, init_from, runs.FREE | runs.BRANCH)
    both = settings, runs.full_settings(trunk['settings'])
    last = min(runs.decay_start(run['max_steps'], run['decay_fraction']) for run in both)
    state = last_checkpoint(init_from, at_most=last)
    return trunk, state if state and 'optimizer' in state else None


def show(results, out):
    """Prints the results of a finished run."""
    scores = results['languages']
    print(table(scores))
    tokens = (f'{name} {s.get("tokens_read", s["tokens_seen"]):,}' for name, s in scores.items())
    print(f'{out}: tokens read: {", ".join(tokens)}; {results["wall_time_s"]:,.0f} s')


def main(stems, overrides):
    named = {name: value for name, value in overrides.items() if name not in runs.FREE}
    out = Path(out_dir or os.path.join('out', run_name(stems, named)))
    if alone:
        keep_alone()
    check_settings()
    settings = {name: globals()[name] for name in SETTINGS} | dict(out_dir=str(out))
    is_first = int(os.environ.get('RANK', 0)) == 0
    if (out / 'results.json').exists():
        results = read_json(out / 'results.json')
        runs.refuse_other_settings(results['settings'], settings, out, free_settings())
        if is_first:
            print(f'{out} is finished; delete it to train again')
            show(results, out)
        return
    if wandb_project and is_first:
        open_wandb()
    processes, training = machine.Processes(device), None
    out.mkdir(parents=True, exist_ok=True)
    held = lock(out) if is_first else None
    try:
        with machine.memory_advice('lower micro_batch_size (0: what fits), or the model'):
            training = Training(settings, out, processes)
            training.train()
            results = training.results()
        if is_first:
            write_json(out / 'results.json', results)
            training.log.close(results['languages'])
            show(results, out)
    finally:
        if training:
            training.parallel = None  # before the process group: DDP may wait for it forever
        processes.close()
        if held:
            if os.listdir(out) == ['.lock']:  # refused before it began
                shutil.rmtree(out, ignore_errors=True)
            held.close()


if __name__ == '__main__':
    run(globals(), main)
