"""What a run says while it trains: a line a step in out/RUN/log.jsonl, and Weights & Biases."""
import contextlib
import json
import math

import numpy as np
import torch

from configurator import ConfigError


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
