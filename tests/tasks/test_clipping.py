from typing import Any

import pytest
import torch
from torch import nn

from convolt.tasks.clipping import clip_gradients


def scaled_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, *, clipped: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        scaler.unscale_(optimizer)  # as Lightning does for these
    if clipped:
        clip_gradients(optimizer, 1.0, scaler)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_scaled_gradients_are_clipped_by_their_true_norm(fused: bool, clipped: bool) -> None:
    weight = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    scaled_step(optimizer, (weight * torch.tensor([3.0, 0.0, 4.0, 0.0])).sum(), clipped=clipped)
    expected = torch.tensor([0.6, 0.0, 0.8, 0.0]) if clipped else torch.tensor([3.0, 0.0, 4.0, 0.0])
    torch.testing.assert_close(-weight.detach(), expected)


def test_scaled_gradients_that_overflow_skip_the_step_of_a_fused_optimizer() -> None:
    weight = nn.Parameter(torch.ones(2))
    scaled_step(torch.optim.SGD([weight], lr=1.0, fused=True), (weight * 3e38).sum(), clipped=True)
    assert weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_norm_of_halves_is_taken_in_float32(dtype: Any) -> None:
    weight = nn.Parameter(torch.zeros(5, dtype=dtype))
    weight.grad = torch.full((5,), 60_000.0, dtype=dtype)  # of a norm that float16 does not reach
    clip_gradients(torch.optim.SGD([weight], lr=1.0), 1.0)
    torch.testing.assert_close(weight.grad.float(), torch.full((5,), 5**-0.5), rtol=0.01, atol=0)


def test_the_norm_of_floats_is_pytorchs_to_the_bit() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(30, 20), torch.randn(7)]
    ours, theirs = ([nn.Parameter(torch.zeros_like(g)) for g in gradients] for _ in range(2))
    for ones in (ours, theirs):
        for parameter, gradient in zip(ones, gradients, strict=True):
            parameter.grad = gradient.clone()
    clip_gradients(torch.optim.Adam([*ours, nn.Parameter(torch.zeros(3))]), 0.5)
    torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]
