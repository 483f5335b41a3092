"""The formulas of docs/gradients.md against autograd, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convolt.models.blocks import make_activation


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def autograd(function: Callable[..., Tensor], upstream: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(*inputs), inputs, upstream)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def conv_input(upstream: Tensor, kernel: Tensor, side: int) -> Tensor:
    """dL/dx[p, q] = sum of K[a, c] J[p - a, q - c] over output channels, a and c."""
    images, _, height, width = upstream.shape
    out = torch.zeros(images, kernel.shape[1], side, side, dtype=torch.float64)
    for a in range(kernel.shape[2]):
        for c in range(kernel.shape[3]):
            out[:, :, a : a + height, c : c + width] += torch.einsum("noij,om->nmij", upstream, kernel[:, :, a, c])
    return out


def conv_kernel(upstream: Tensor, x: Tensor, k: int) -> Tensor:
    """dL/dK[a, c] = sum of J[i, l] x[i + a, l + c] over images, i and l."""
    _, outputs, height, width = upstream.shape
    out = torch.zeros(outputs, x.shape[1], k, k, dtype=torch.float64)
    for a in range(k):
        for c in range(k):
            out[:, :, a, c] = torch.einsum("noij,nmij->om", upstream, x[:, :, a : a + height, c : c + width])
    return out


def pool_input(upstream: Tensor, x: Tensor, k: int, stride: int) -> Tensor:
    """Every window's J goes to its largest element."""
    out = torch.zeros_like(x)
    images, channels, height, width = upstream.shape
    for n in range(images):
        for m in range(channels):
            for i in range(height):
                for j in range(width):
                    window = x[n, m, i * stride : i * stride + k, j * stride : j * stride + k]
                    row, column = divmod(int(window.argmax()), k)
                    out[n, m, i * stride + row, j * stride + column] += upstream[n, m, i, j]
    return out


def test_sigmoid() -> None:
    x, upstream = random(5, 3), random(5, 3).detach()
    y = 1 / (1 + (-x.detach()).exp())
    close(autograd(make_activation("sigmoid"), upstream, x)[0], upstream * y * (1 - y))


def test_relu() -> None:
    x, upstream = random(5, 3), random(5, 3).detach()
    close(autograd(make_activation("relu"), upstream, x)[0], upstream * (x > 0))
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert autograd(make_activation("relu"), torch.ones(1), zero)[0].item() == 0


@pytest.mark.parametrize("c", [0.01, 0.3])
def test_leaky_relu(c: float) -> None:
    x, upstream = random(5, 3), random(5, 3).detach()
    leaky = make_activation(f"leaky_relu:{c}")
    close(leaky(x), torch.maximum(c * x, x))
    close(autograd(leaky, upstream, x)[0], upstream * torch.where(x > 0, torch.ones_like(x), c))
    slip = torch.maximum(torch.tensor(c * 0.0), x)
    assert (leaky(x) - slip).abs().max() > 1e-3


def test_softmax() -> None:
    x, upstream = random(4, 6), random(4, 6).detach()
    y = x.detach().exp() / x.detach().exp().sum(1, keepdim=True)
    expected = y * (upstream - (upstream * y).sum(1, keepdim=True))
    close(autograd(lambda x: x.softmax(1), upstream, x)[0], expected)


def test_cross_entropy_of_distributions() -> None:
    y = random(6).detach().softmax(0).requires_grad_()
    target = random(6).detach().softmax(0)
    gradient = autograd(lambda y: -(target * y.log()).sum(), torch.tensor(1.0, dtype=torch.float64), y)[0]
    close(gradient, -target / y)
    swapped = -y / target
    assert (gradient - swapped).abs().max() > 1e-3


def test_softmax_with_cross_entropy() -> None:
    x, labels = random(4, 6), torch.tensor([0, 5, 2, 2])
    gradient = autograd(lambda x: F.cross_entropy(x, labels), torch.tensor(1.0, dtype=torch.float64), x)[0]
    close(gradient, (x.detach().softmax(1) - F.one_hot(labels, 6)) / 4)
    smooth = F.one_hot(labels, 6).double() * 0.9 + 0.1 / 6
    gradient = autograd(
        lambda x: F.cross_entropy(x, labels, label_smoothing=0.1), torch.tensor(1.0, dtype=torch.float64), x
    )[0]
    close(gradient, (x.detach().softmax(1) - smooth) / 4)


@pytest.mark.parametrize(("k", "stride", "out"), [(2, 2, 3), (3, 2, 2)])
def test_max_pooling(k: int, stride: int, out: int) -> None:
    x, upstream = random(2, 3, 6, 6), random(2, 3, out, out).detach()
    gradient = autograd(lambda x: F.max_pool2d(x, k, stride), upstream, x)[0]
    close(gradient, pool_input(upstream, x.detach(), k, stride))


def test_max_pooling_takes_the_first_of_equal_elements() -> None:
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    gradient = autograd(lambda x: F.max_pool2d(x, 2), torch.ones(1, 1, 1, 1, dtype=torch.float64), x)[0]
    assert gradient.flatten().tolist() == [1, 0, 0, 0]


def test_convolution() -> None:
    x, kernel, bias = random(2, 3, 6, 6), random(4, 3, 3, 3), random(4)
    upstream = random(2, 4, 4, 4).detach()
    gradients = autograd(F.conv2d, upstream, x, kernel, bias)
    close(gradients[0], conv_input(upstream, kernel.detach(), 6))
    close(gradients[1], conv_kernel(upstream, x.detach(), 3))
    close(gradients[2], upstream.sum((0, 2, 3)))


def test_the_inputs_gradient_is_the_full_convolution_with_the_turned_kernel() -> None:
    x, kernel, upstream = random(1, 1, 5, 5), random(1, 1, 3, 3), random(1, 1, 3, 3).detach()
    gradient = autograd(lambda x: F.conv2d(x, kernel), upstream, x)[0]
    close(gradient, F.conv2d(F.pad(upstream, (2, 2, 2, 2)), kernel.detach().flip(2, 3)))


def test_s112_of_the_errata() -> None:
    x, g, j = random(1, 1, 3, 3), random(1, 1, 2, 2), random(1, 1, 2, 2).detach()
    row = autograd(lambda x: F.conv2d(x, g), j, x)[0][0, 0, 0]
    (g11, g12), (j11, j12) = g.detach()[0, 0, 0], j[0, 0, 0]
    close(row, torch.stack([g11 * j11, g12 * j11 + g11 * j12, g12 * j12]))


def test_a_small_network_end_to_end() -> None:
    """Convolution, ReLU, pool, dense, softmax with cross-entropy: all gradients by the chain of formulas."""
    x, kernel, bias = random(2, 1, 6, 6), random(3, 1, 3, 3), random(3)
    weight, shift, labels = random(4, 12), random(4), torch.tensor([1, 3])
    before = F.conv2d(x, kernel, bias)
    pooled = F.max_pool2d(before.relu(), 2)
    loss = F.cross_entropy(pooled.flatten(1) @ weight.T + shift, labels)
    actual = torch.autograd.grad(loss, (x, kernel, bias, weight, shift))
    with torch.no_grad():
        hidden = pooled.flatten(1)
        z = ((hidden @ weight.T + shift).softmax(1) - F.one_hot(labels, 4)) / 2
        above = pool_input((z @ weight).view_as(pooled), before.relu(), 2, 2) * (before > 0)
        close(actual[4], z.sum(0))
        close(actual[3], z.T @ hidden)
        close(actual[2], above.sum((0, 2, 3)))
        close(actual[1], conv_kernel(above, x, 3))
        close(actual[0], conv_input(above, kernel, 6))
