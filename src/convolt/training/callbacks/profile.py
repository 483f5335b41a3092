"""Where the time of an epoch goes: a table of its phases, and a trace of some steps."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.profiler import ProfilerActivity, profile, schedule

from convolt.system.files import write_text
from convolt.training.callbacks.recorder import synchronized_time
from convolt.training.callbacks.screen import Screen

TRACE = "steps.pt.trace.json"
STEPS_TO_TRACE = 10
_STEPS_TO_WARM_UP = 3
_OPERATORS = 30


class Profile(Callback):
    """Traces steps of the first epoch and takes the times of the last one, after everything has warmed up.

    It leaves `steps.pt.trace.json` (for Perfetto, chrome://tracing or TensorBoard's profiler plugin), `operators.txt`
    (the operators of the traced steps by their own time) and `epoch.txt` (the phases of the last epoch).

    Args:
        folder: Where to.
        screen: Where the table of the phases is shown.
    """

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.folder = folder
        self.screen = screen
        self.seconds: dict[str, float] = {}
        self._profiler: profile | None = None
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler writes to the screen that it has started
        self._phase_started = 0.0

    def _end_phase(self, phase: str, module: pl.LightningModule) -> None:
        """Add the time since the end of the phase before to this one."""
        now = synchronized_time(module.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._phase_started
        self._phase_started = now

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and in the first epoch the trace."""
        self.seconds = dict.fromkeys(("data", "forward", "backward", "optimizer"), 0.0)
        self._phase_started = synchronized_time(pl_module.device)
        if trainer.current_epoch == 0 and trainer.is_global_zero:
            warm_up = min(_STEPS_TO_WARM_UP, int(trainer.num_training_batches) - 1)
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (pl_module.device.type == "cuda")
            self._profiler = profile(
                activities=activities,
                schedule=schedule(wait=0, warmup=warm_up, active=STEPS_TO_TRACE, repeat=1),
                record_shapes=True,
            )
            self._profiler.start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """The minibatch is here."""
        self._end_phase("data", pl_module)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """The loss is here."""
        self._end_phase("forward", pl_module)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The gradients are here."""
        self._end_phase("backward", pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """The weights have changed."""
        self._end_phase("optimizer", pl_module)
        if self._profiler:
            self._profiler.step()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The validation has ended."""
        self._end_phase("validation", pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the trace, where training has just ended and validation follows, or none does."""
        if self._profiler:
            self._profiler.stop()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(self.folder / TRACE))
            by = f"self_{'cuda' if pl_module.device.type == 'cuda' else 'cpu'}_time_total"
            averages = self._profiler.key_averages()
            write_text(self.folder / "operators.txt", averages.table(sort_by=by, row_limit=_OPERATORS) + "\n")
            self._profiler = None
            self._phase_started = synchronized_time(pl_module.device)

    on_validation_start = on_train_epoch_end

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the phases of the last epoch."""
        self._end_phase("writing", pl_module)
        if not trainer.is_global_zero:
            return
        table = _table(self.seconds)
        write_text(self.folder / "epoch.txt", table)
        self.screen.say(
            f"where epoch {trainer.current_epoch} spent its time\n{table}traced steps: {self.folder / TRACE}"
        )


def _table(seconds: dict[str, float]) -> str:
    total = sum(seconds.values())
    lines = [f"{phase:<20} {spent:>9.3f} s {spent / total:>7.1%}" for phase, spent in seconds.items()]
    return "\n".join([*lines, f"{'epoch':<20} {total:>9.3f} s {1:>7.1%}"]) + "\n"
