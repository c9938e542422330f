"""The log of a training run: a line of JSON a step, and Weights & Biases."""

import contextlib
import hashlib
import json
import math
import time

from lib.configurator import ConfigError, require

import numpy as np

from lib.files import write_file
from lib.formats import optional


def open_wandb():
    """The optional package wandb, logged in. Raises ConfigError without it or without a key."""
    wandb = optional('wandb', 'wandb_project')
    try:
        wandb.login()
    except wandb.Error as error:
        text = str(error).splitlines()[0].rstrip('.')
        raise ConfigError(f'wandb_project: {text} (or set WANDB_MODE=offline)') from None
    return wandb


class Log:
    """out/RUN/log.jsonl, written by the first process, and Weights & Biases.

    Losses stay on the device until `flush`, so that no step waits for a GPU. loss: of the last
    flushed step, nats a token; speed: tokens a second since the flush before."""

    def __init__(self, settings, out, processes, first_step):
        """Drops log lines written after the checkpoint at `first_step`."""
        self.processes, self.path = processes, out / 'log.jsonl'
        self.languages, self.block_size = settings['languages'], settings['block_size']
        self.pending = []  # what `add` was given
        self.loss, self.speed, self.since = float('nan'), 0.0, time.perf_counter()
        self.wandb, kept = None, ''
        if processes.rank:
            return
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            with contextlib.suppress(ValueError, KeyError):
                if json.loads(line)['step'] < first_step:
                    kept += line + '\n'
        write_file(self.path, lambda file: file.write(kept.encode()))
        if settings['wandb_project']:
            folder = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
            about = dict(name=out.name, id=folder, config=settings, resume='allow')
            self.wandb = open_wandb().init(project=settings['wandb_project'], **about)

    def add(self, step, losses, drawn, **more):
        """A step: the loss of each sequence (rows,) in nats a token, the language of each, and
        `more` numbers to log; those on a device stay there until `flush`."""
        self.pending.append(dict(step=step, losses=losses, drawn=drawn, more=more))

    def write(self, entry):
        """Appends `entry`, a dict with `step`, to the log."""
        if self.processes.rank == 0:
            with open(self.path, 'a') as file:
                file.write(json.dumps(entry) + '\n')
        if self.wandb:
            self.wandb.log({k: v for k, v in entry.items() if k != 'step'}, step=entry['step'])

    def flush(self):
        """Writes the pending steps. Raises ConfigError at a loss that is not finite."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        sums, count = [], len(self.languages)  # losses of each language, and their number
        for entry in pending:
            losses = entry['losses'].cpu().double().numpy()
            sums.append([np.bincount(entry['drawn'], w, count) for w in (losses, None)])
        sums, now = self.processes.sum(np.array(sums)), time.perf_counter()
        self.speed, self.since = sums[:, 1].sum() * self.block_size / (now - self.since), now
        for entry, (total, number) in zip(pending, sums):
            self.loss = total.sum() / number.sum()
            losses = {name: t / n for name, t, n in zip(self.languages, total, number) if n}
            text = f'the loss of step {entry["step"]} ({", ".join(losses)}) is {self.loss}'
            finite = math.isfinite(self.loss)
            require(finite, f'{text}: lower learning_rate or look at the data')
            more = {name: float(value) for name, value in entry['more'].items()}
            line = dict(step=entry['step'], loss=self.loss, losses=losses, **more)
            self.write(line | dict(tokens_per_second=round(self.speed)))

    def close(self, scores):
        """Ends Weights & Biases with the numbers of the results: {language: {name: value}}."""
        if self.wandb:
            for language, score in scores.items():
                numbers = {k: v for k, v in score.items() if isinstance(v, (int, float))}
                self.wandb.summary.update({f'{language}/{k}': v for k, v in numbers.items()})
            self.wandb.finish()
