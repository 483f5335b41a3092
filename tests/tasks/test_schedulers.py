import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from convolt.errors import UserError
from convolt.tasks import schedulers


def optimizer(momentum: float = 0.0) -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=momentum)


def rates(make: Callable[[Optimizer], schedulers.Schedules], steps: int, kind: Optimizer | None = None) -> list[float]:
    """Return the rate of each step."""
    target = kind or optimizer()
    schedules = make(target)
    seen = []
    for _ in range(steps):
        seen.append(target.param_groups[0]["lr"])
        target.step()
        for schedule in schedules:
            schedule["scheduler"].step()
    return seen


def test_constant_stays_and_warms_up_linearly() -> None:
    assert rates(lambda o: schedulers.constant(o, 3, 4), 12) == [0.1] * 12
    warm = rates(lambda o: schedulers.constant(o, 3, 4, warmup_epochs=1), 6)
    assert warm == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_step_falls_at_fractions_of_the_run_or_at_epochs() -> None:
    expected = [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    by_fraction = rates(lambda o: schedulers.step(o, 4, 2, milestones=[0.5, 0.75], gamma=0.1), 8)
    by_epoch = rates(lambda o: schedulers.step(o, 4, 2, milestones=[2, 3], gamma=0.1), 8)
    assert by_fraction == pytest.approx(expected)
    assert by_epoch == pytest.approx(expected)


def test_step_takes_a_gamma_for_each_milestone() -> None:
    seen = rates(lambda o: schedulers.step(o, 4, 1, milestones=[1, 3], gamma=[0.1, 0.5]), 4)
    assert seen == pytest.approx([0.1, 0.01, 0.01, 0.005])
    with pytest.raises(UserError, match=r"scheduler\.gamma has 1 numbers, scheduler\.milestones 2"):
        schedulers.step(optimizer(), 4, 1, milestones=[1, 3], gamma=[0.1])


def test_cosine_falls_along_half_a_period() -> None:
    seen = rates(lambda o: schedulers.cosine(o, 4, 2, final_factor=0.1), 9)
    assert seen == pytest.approx([0.1 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2) for t in range(9)])
    warm = rates(lambda o: schedulers.cosine(o, 4, 2, warmup_epochs=2), 9)
    assert warm[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert warm[8] == pytest.approx(0)


def test_onecycle_peaks_after_the_warmup_and_ends_low() -> None:
    seen = rates(lambda o: schedulers.onecycle(o, 10, 10, warmup_epochs=2), 100)
    assert seen[0] == pytest.approx(0.004)
    assert max(seen) == pytest.approx(0.1, rel=1e-3)
    assert seen.index(max(seen)) in (19, 20)
    assert seen[-1] < 1e-4


def test_onecycle_moves_momentum_the_other_way_where_there_is_one() -> None:
    momentum = optimizer(0.9)
    rates(lambda o: schedulers.onecycle(o, 10, 10), 30, momentum)
    assert momentum.param_groups[0]["momentum"] < 0.86
    plain = optimizer()
    rates(lambda o: schedulers.onecycle(o, 10, 10), 30, plain)
    assert plain.param_groups[0]["momentum"] == 0
    adam = Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    rates(lambda o: schedulers.onecycle(o, 10, 10), 30, adam)
    assert adam.param_groups[0]["betas"][0] < 0.86


def test_plateau_waits_for_its_patience_in_the_right_direction() -> None:
    for monitor, values in (("val/loss", [1.0, 1.0, 1.0, 1.0]), ("val/accuracy", [0.5, 0.5, 0.5, 0.5])):
        target = optimizer()
        schedule = schedulers.plateau(target, 9, 1, monitor=monitor, patience=1, factor=0.5)[0]["scheduler"]
        seen = []
        for value in values:
            schedule.step(value)
            seen.append(target.param_groups[0]["lr"])
        assert seen == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_plateau_keeps_what_it_has_lowered_after_a_warmup() -> None:
    target = optimizer()
    reduce, warmup = (c["scheduler"] for c in schedulers.plateau(target, 9, 4, patience=0, factor=0.5, warmup_epochs=1))
    for _ in range(4):
        target.step()
        warmup.step()
    assert target.param_groups[0]["lr"] == pytest.approx(0.1)
    reduce.step(1.0)
    reduce.step(1.0)
    target.step()
    warmup.step()
    assert target.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["constant", "cosine", "plateau", "onecycle"])
def test_a_warmup_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="does not fit"):
        getattr(schedulers, name)(optimizer(), 2, 5, warmup_epochs=2)


def test_losses_and_errors_are_better_when_smaller() -> None:
    modes = {
        metric: schedulers.mode_of(metric) for metric in ("val/loss", "val/calibration_error", "val/accuracy", "val/f1")
    }
    assert modes == {"val/loss": "min", "val/calibration_error": "min", "val/accuracy": "max", "val/f1": "max"}


def test_a_scaled_rate_is_that_of_pytorch_to_the_bit_and_so_is_its_state() -> None:
    def run(kind: type[LambdaLR], rate: float | torch.Tensor) -> tuple[list[float], dict[str, object]]:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": each} for each in (rate, 0.3)]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        schedule = kind(optimizer, lambda step: (1 + math.cos(step / 7)) / 2)
        rates = []
        for _ in range(20):
            optimizer.step()
            schedule.step()
            rates += [float(group["lr"]) for group in optimizer.param_groups]
        return rates, schedule.state_dict()

    for rate in (lambda: 0.017, lambda: torch.tensor(0.017)):
        assert run(schedulers.ScaledRate, rate()) == run(LambdaLR, rate())
