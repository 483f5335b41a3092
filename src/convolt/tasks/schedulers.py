"""Learning-rate schedules over a run of known length, each with an optional linear warm-up.

A schedule is a function of (optimizer, epochs, steps_per_epoch) that returns what Lightning calls lr_scheduler configs;
its own settings come first and are bound by the config. Rates change at every step, those of `plateau` after an epoch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR, ReduceLROnPlateau

from convolt.errors import UserError

Schedules = list[dict[str, Any]]
"""Lightning's lr_scheduler configs."""


class ScaledRate(LambdaLR):
    """PyTorch's LambdaLR, whose step takes a third of the time: a small network would notice the rest."""

    def step(self, epoch: int | None = None) -> None:
        """Set the rate of the next step; at the start, for a given epoch and for rates in tensors PyTorch does it."""
        groups, factors = self.optimizer.param_groups, self.lr_lambdas
        if self._step_count == 0 or epoch is not None or isinstance(groups[0]["lr"], Tensor):
            super().step(epoch)
            return
        self._step_count += 1
        self.last_epoch = step = self.last_epoch + 1
        self._last_lr = [rate * factor(step) for rate, factor in zip(self.base_lrs, factors, strict=True)]
        for group, rate in zip(groups, self._last_lr, strict=True):
            group["lr"] = rate


def constant(optimizer: Optimizer, epochs: int, steps_per_epoch: int, *, warmup_epochs: float = 0) -> Schedules:
    """Keep the rate constant, after a warm-up of some epochs."""
    return _scale_rate(optimizer, epochs, steps_per_epoch, warmup_epochs, lambda _: 1.0) if warmup_epochs else []


def step(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    milestones: Sequence[float],
    gamma: float | Sequence[float] = 0.1,
    warmup_epochs: float = 0,
) -> Schedules:
    """Multiply the rate at each milestone: an epoch (int), or a fraction of the run (float below 1).

    By `gamma`, or where it is a list by its number for that milestone.

    Raises:
        UserError: When there are not as many gammas as milestones.
    """
    gammas = [gamma] * len(milestones) if isinstance(gamma, int | float) else list(gamma)
    if len(gammas) != len(milestones):
        raise UserError(
            f"scheduler.gamma has {len(gammas)} numbers, scheduler.milestones {len(milestones)}: give as many of both"
        )
    at = [mark * epochs if isinstance(mark, float) and mark < 1 else mark for mark in milestones]
    return _scale_rate(
        optimizer,
        epochs,
        steps_per_epoch,
        warmup_epochs,
        lambda t: math.prod(g for g, mark in zip(gammas, at, strict=True) if t >= mark),
    )


def cosine(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, *, final_factor: float = 0.0, warmup_epochs: float = 0
) -> Schedules:
    """Let the rate fall along half a cosine from the end of the warm-up to the end of the run, to `final_factor`."""

    def factor(epoch: float) -> float:
        done = min(1.0, (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-12))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * done)) / 2

    return _scale_rate(optimizer, epochs, steps_per_epoch, warmup_epochs, factor)


def plateau(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    monitor: str = "val/loss",
    factor: float = 0.1,
    patience: int = 3,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
    warmup_epochs: float = 0,
) -> Schedules:
    """Multiply the rate by `factor` when the monitored metric has not improved for `patience` epochs."""
    _check_warmup(warmup_epochs, epochs)
    reduce = ReduceLROnPlateau(
        optimizer, mode_of(monitor), factor=factor, patience=patience, threshold=threshold, min_lr=min_lr
    )
    schedules: Schedules = [{"scheduler": reduce, "interval": "epoch", "monitor": monitor, "strict": False}]
    if warmup_epochs:
        warmup = LinearLR(optimizer, 1e-3, total_iters=round(warmup_epochs * steps_per_epoch))
        schedules.append({"scheduler": warmup, "interval": "step"})
    return schedules


def onecycle(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    initial_factor: float = 0.04,
    final_factor: float = 4e-6,
    cycle_momentum: bool = True,
    warmup_epochs: float = 0,
) -> Schedules:
    """Let the rate rise to its peak and fall again, the momentum the other way (Smith and Topin 2018)."""
    _check_warmup(warmup_epochs, epochs)
    has_momentum = any(group.get("momentum") or "betas" in group for group in optimizer.param_groups)
    # PyTorch takes two steps fewer as the way up: its first and its last rate are points of the cycle.
    schedule = OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=epochs * steps_per_epoch + 1,
        pct_start=warmup_epochs / epochs if warmup_epochs else 0.3,
        cycle_momentum=cycle_momentum and has_momentum,
        div_factor=1 / initial_factor,
        final_div_factor=initial_factor / final_factor,
    )
    return [{"scheduler": schedule, "interval": "step"}]


def mode_of(metric: str) -> Literal["min", "max"]:
    """Return whether a metric is better when it is smaller ("min": losses and errors) or larger ("max")."""
    return "min" if metric.rsplit("/", 1)[-1] in ("loss", "calibration_error") else "max"


def _scale_rate(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, warmup_epochs: float, factor: Callable[[float], float]
) -> Schedules:
    """Multiply the rate by a function of the time in epochs, linearly from 0 during the warm-up."""
    _check_warmup(warmup_epochs, epochs)

    def factor_at(step: int) -> float:
        epoch = step / steps_per_epoch
        warm = min(1.0, (step + 1) / (warmup_epochs * steps_per_epoch)) if warmup_epochs else 1.0
        return warm * factor(max(epoch, warmup_epochs) if warmup_epochs else epoch)

    return [{"scheduler": ScaledRate(optimizer, factor_at), "interval": "step"}]


def _check_warmup(warmup_epochs: float, epochs: int) -> None:
    if warmup_epochs >= epochs and warmup_epochs > 0:
        raise UserError(
            f"a warm-up of {warmup_epochs:g} epochs does not fit into a run of {epochs}: "
            "lower scheduler.warmup_epochs or raise trainer.max_epochs"
        )
