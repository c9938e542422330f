"""The processes of a run: this one among those of torchrun, and the signals that end it."""
import os
import signal

import torch
import torch.distributed as dist

from device import pick_device


class Processes:
    """This process among those of torchrun: rank, world (how many), device. Alone: 0 of 1."""

    def __init__(self, device):
        """device: the setting of that name; raises ConfigError where it is not there."""
        self.rank, self.world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self.distributed, name = 'RANK' in os.environ, device
        if self.distributed and device in ('auto', 'cuda') and torch.cuda.is_available():
            name = f'cuda:{os.environ["LOCAL_RANK"]}'
        self.device = pick_device(name)
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)
        if self.distributed:
            dist.init_process_group('nccl' if self.device.type == 'cuda' else 'gloo')

    def sum(self, array):
        """Sum over the processes of a float64 array."""
        if not self.distributed:
            return array
        tensor = torch.from_numpy(array).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def close(self):
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()


class Signals:
    """SIGTERM and Ctrl-C are remembered until the run can stop; a second one ends the process at once."""

    def __init__(self):
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.remember)

    def remember(self, number, frame):
        self.number = number
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_DFL)
