import math

import pytest
import torch

from convolt.metrics.mean_loss import MeanLoss


@pytest.mark.parametrize("batches", [1, 63, 64, 65, 200, 1024, 1100])
def test_the_mean_is_over_images_however_many_batches_there_were(batches: int) -> None:
    losses = torch.rand(batches)
    images = [8] * (batches - 1) + [3]
    mean = MeanLoss()
    for number, (loss, count) in enumerate(zip(losses, images, strict=True), 1):
        mean.add(loss, count)
        if number in (1, 64, 100, 1024):
            expected = sum(a * b for a, b in zip(losses.tolist(), images[:number], strict=False)) / sum(images[:number])
            assert float(mean.running_mean()) == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]
    expected = sum(a * b for a, b in zip(losses.tolist(), images, strict=True)) / sum(images)
    assert float(mean.compute()["loss"]) == pytest.approx(expected, rel=1e-5)


def test_who_asks_in_between_changes_no_bit() -> None:
    for seed in range(5):
        losses = torch.rand(1030, generator=torch.Generator().manual_seed(seed))
        plain, watched = MeanLoss(), MeanLoss()
        for number, loss in enumerate(losses):
            plain.add(loss, 128)
            watched.add(loss, 128)
            if number % 7 == 0:
                watched.running_mean()
        assert torch.equal(plain.compute()["loss"], watched.compute()["loss"])


def test_it_starts_anew() -> None:
    mean = MeanLoss()
    assert mean.running_mean() is None
    assert mean.first_nonfinite() is None
    assert mean.compute() == {}
    mean.add(torch.tensor(math.nan), 2)
    mean.compute()
    assert mean.running_mean() is None
    mean.add(torch.tensor(3.0, dtype=torch.bfloat16), 2)
    assert float(mean.first_nonfinite()) == math.inf  # type: ignore[arg-type]
    assert mean.compute() == {"loss": torch.tensor(3.0)}


@pytest.mark.parametrize("bad", [0, 5, 63, 64, 1023, 1024])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_loss_that_is_not_finite_is_known(bad: int, value: float) -> None:
    mean = MeanLoss()
    for number in range(1040):
        mean.add(torch.tensor(value if number in (bad, bad + 7) else 1.0), 4)
        if number % 50 == 0:
            mean.running_mean()
    assert float(mean.first_nonfinite()) == bad  # type: ignore[arg-type]


def test_a_loss_keeps_no_graph() -> None:
    weight = torch.ones(1, requires_grad=True)
    mean = MeanLoss()
    mean.add((2 * weight).sum(), 1)
    assert not mean.compute()["loss"].requires_grad


def test_losses_are_summed_block_by_block_and_the_sums_one_after_the_other() -> None:
    losses, images = torch.rand(1100), torch.randint(1, 128, (1100,))
    mean = MeanLoss()
    for loss, count in zip(losses, images.tolist(), strict=True):
        mean.add(loss, count)
    dots = [torch.dot(*block) for block in zip(losses.split(64), images.float().split(64), strict=True)]
    total = dots[0]
    for dot in dots[1:]:
        total = total + dot
    assert torch.equal(mean.compute()["loss"], total / images.sum())
