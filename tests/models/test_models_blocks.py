import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convolt.errors import UserError
from convolt.models.blocks import (
    BatchNorm,
    ConvBlock,
    PadShortcut,
    PreActConv,
    SqueezeExcitation,
    make_activation,
    make_shortcut,
    output_size,
)
from convolt.models.heads import DenseHead, PooledHead
from convolt.models.init import INITS, initialize
from convolt.models.mobilenet import SeparableConv
from convolt.models.preact import PreActBlock
from convolt.models.resnet import KerasStem, ResidualBlock
from convolt.models.stems import ResidualStem, resolve_stem


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module]


def normalized(x: torch.Tensor, eps: float) -> torch.Tensor:
    """Batch norm in training by its formula, with a scale of 1 and a shift of 0."""
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean((0, 2, 3), keepdim=True) + eps).sqrt()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("placement", "order", "bias"),
    [
        ("before", ["Conv2d", "BatchNorm2d", "ReLU"], False),
        ("after", ["Conv2d", "ReLU", "BatchNorm2d"], True),
        ("none", ["Conv2d", "ReLU"], True),
    ],
)
def test_conv_block_order_and_value(placement: str, order: list[str], bias: bool, x: torch.Tensor) -> None:
    block = ConvBlock(3, 5, 3, batchnorm=BatchNorm(placement, eps=0.5), activation="relu")
    assert kinds(block) == order
    assert (block.conv.bias is not None) is bias
    convolved = F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    expected = {
        "before": F.relu(normalized(convolved, 0.5)),
        "after": normalized(F.relu(convolved), 0.5),
        "none": F.relu(convolved),
    }
    torch.testing.assert_close(block(x), expected[placement])
    for other in expected.keys() - {placement}:
        assert (block(x) - expected[other]).abs().max() > 0.1


def test_conv_block_without_activation_has_batch_norm_only_before(x: torch.Tensor) -> None:
    assert kinds(ConvBlock(3, 5, 3, batchnorm=BatchNorm("before"), activation=None)) == ["Conv2d", "BatchNorm2d"]
    assert kinds(ConvBlock(3, 5, 3, batchnorm=BatchNorm("after"), activation=None)) == ["Conv2d"]


def test_momentum_and_eps_reach_the_layer(x: torch.Tensor) -> None:
    block = ConvBlock(3, 5, 3, batchnorm=BatchNorm("before", momentum=0.25, eps=0.125), activation="relu")
    mean = block.conv(x).mean((0, 2, 3))
    block(x)
    torch.testing.assert_close(block.norm.running_mean, 0.25 * mean)
    assert block.norm.eps == 0.125
    head = DenseHead(4, [3], 2, activation="relu", batchnorm=BatchNorm("after", momentum=0.25, eps=0.125))
    assert kinds(head) == ["Flatten", "Linear", "ReLU", "BatchNorm1d", "Linear"]
    assert (head[3].momentum, head[3].eps) == (0.25, 0.125)


def test_preact_conv_order_and_value(x: torch.Tensor) -> None:
    unit = PreActConv(3, 5, 3, batchnorm=BatchNorm("before"), activation="relu")
    assert kinds(unit) == ["BatchNorm2d", "ReLU", "Conv2d"]
    torch.testing.assert_close(unit(x), F.conv2d(F.relu(normalized(x, 1e-5)), unit.conv.weight, padding=1))
    assert kinds(PreActConv(3, 5, 3, batchnorm=BatchNorm("none"), activation="relu")) == ["ReLU", "Conv2d"]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"placement": "befor"}, "did you mean 'before'"),
        ({"momentum": 1.5}, "between 0 and 1"),
        ({"eps": 0.0}, "greater than 0"),
    ],
)
def test_batch_norm_refuses_nonsense(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BatchNorm(**keywords)


@pytest.mark.parametrize("placement", ["before", "after", "none"])
def test_residual_block_value(placement: str, x: torch.Tensor) -> None:
    block = ResidualBlock("basic", 3, 4, 4, stride=2, batchnorm=BatchNorm(placement), activation="relu")
    first, second = (layer.conv for layer in block.branch)
    shortcut = block.shortcut.conv

    def conv(layer: nn.Conv2d, inputs: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        return F.conv2d(inputs, layer.weight, layer.bias, stride, padding)

    def norm(inputs: torch.Tensor) -> torch.Tensor:
        return normalized(inputs, 1e-5)

    if placement == "before":
        branch = norm(conv(second, F.relu(norm(conv(first, x, 2, 1))), 1, 1))
        expected = F.relu(branch + norm(conv(shortcut, x, 2, 0)))
    elif placement == "after":
        branch = conv(second, norm(F.relu(conv(first, x, 2, 1))), 1, 1)
        expected = norm(F.relu(branch + conv(shortcut, x, 2, 0)))
    else:
        expected = F.relu(conv(second, F.relu(conv(first, x, 2, 1)), 1, 1) + conv(shortcut, x, 2, 0))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("on_1x1", "strides"), [(True, [2, 1, 1]), (False, [1, 2, 1])])
def test_bottleneck_strides_where_it_is_told(on_1x1: bool, strides: list[int]) -> None:
    plain = BatchNorm("before")
    block = ResidualBlock(
        "bottleneck", 8, 4, 16, stride=2, stride_on_1x1=on_1x1, groups=2, batchnorm=plain, activation="relu"
    )
    assert [unit.conv.stride[0] for unit in block.branch] == strides
    assert [unit.conv.groups for unit in block.branch] == [1, 2, 1]
    block = PreActBlock("bottleneck", 8, 4, 16, stride=2, stride_on_1x1=on_1x1, batchnorm=plain, activation="relu")
    assert [layer.stride[0] for layer in block.modules() if isinstance(layer, nn.Conv2d)][:3] == strides


@pytest.mark.parametrize("share", [True, False])
def test_preact_block_value(share: bool, x: torch.Tensor) -> None:
    block = PreActBlock(
        "basic", 3, 4, 4, stride=2, share_activation=share, batchnorm=BatchNorm("before"), activation="relu"
    )
    first, second = block.branch[0], block.branch[1].conv
    activated = F.relu(normalized(x, 1e-5))
    hidden = F.relu(normalized(F.conv2d(activated, first.weight, None, 2, 1), 1e-5))
    branch = F.conv2d(hidden, second.weight, None, 1, 1)
    expected = branch + F.conv2d(activated if share else x, block.shortcut.conv.weight, None, 2)
    torch.testing.assert_close(block(x), expected)


def test_preact_block_keeps_the_raw_input_where_the_shape_stays(x: torch.Tensor) -> None:
    block = PreActBlock("basic", 3, 3, 3, batchnorm=BatchNorm("before"), activation="relu")
    nn.init.zeros_(block.branch[1].conv.weight)
    assert torch.equal(block(x), x)


def test_pad_shortcut_takes_every_second_pixel_and_pads_channels(x: torch.Tensor) -> None:
    out = PadShortcut(3, 5, 2)(x)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 3:], torch.zeros(4, 2, 3, 3))


def test_shortcuts() -> None:
    norm = BatchNorm("before")
    assert isinstance(make_shortcut("pad", 4, 4, stride=1, batchnorm=norm), nn.Identity)
    assert kinds(make_shortcut("projection", 4, 8, stride=2, batchnorm=norm)) == ["Conv2d", "BatchNorm2d"]
    assert kinds(make_shortcut("convolution", 4, 8, stride=2, batchnorm=norm)) == ["Conv2d"]
    with pytest.raises(UserError, match="did you mean 'projection'"):
        make_shortcut("projektion", 4, 8, stride=2, batchnorm=norm)


def test_squeeze_excitation_value() -> None:
    block = SqueezeExcitation(4, reduction=2)
    x = torch.rand(2, 4, 3, 3)
    hidden = F.relu(x.mean((2, 3)) @ block.squeeze.weight[:, :, 0, 0].T + block.squeeze.bias)
    scale = torch.sigmoid(hidden @ block.excite.weight[:, :, 0, 0].T + block.excite.bias)
    torch.testing.assert_close(block(x), x * scale[:, :, None, None])


def test_separable_conv_against_float64_loops() -> None:
    block = SeparableConv(3, 4, 2, batchnorm=BatchNorm("before"), activation="relu").double().eval()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)

    def norm_relu(value: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
        mean, var, scale, shift = (
            t[:, None, None] for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        )
        return ((value - mean) / (var + layer.eps).sqrt() * scale + shift).clamp(min=0)

    depthwise, pointwise = block
    padded = torch.zeros(2, 3, 7, 7, dtype=torch.float64)
    padded[:, :, 1:6, 1:6] = x
    out = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    for channel in range(3):
        for row in range(3):
            for column in range(3):
                window = padded[:, channel, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                out[:, channel, row, column] = (window * depthwise.conv.weight[channel, 0]).sum((1, 2))
    out = norm_relu(out, depthwise.norm)
    out = norm_relu(torch.einsum("nchw,oc->nohw", out, pointwise.conv.weight[:, :, 0, 0]), pointwise.norm)
    torch.testing.assert_close(block(x), out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "size", "layers"),
    [
        ("imagenet", 16, ["ConvBlock", "MaxPool2d"]),
        ("three3x3", 16, ["ConvBlock", "ConvBlock", "ConvBlock", "MaxPool2d"]),
        ("three3x3_no_pool", 32, ["ConvBlock", "ConvBlock", "ConvBlock"]),
        ("three3x3_no_stride", 32, ["ConvBlock", "ConvBlock", "ConvBlock", "MaxPool2d"]),
        ("three3x3_flat", 64, ["ConvBlock", "ConvBlock", "ConvBlock"]),
        ("small", 64, ["ConvBlock"]),
    ],
)
def test_stems(kind: str, size: int, layers: list[str]) -> None:
    stem = ResidualStem(kind, 3, 8, batchnorm=BatchNorm("before"), activation="relu")
    assert kinds(stem) == layers
    assert stem(torch.zeros(1, 3, 64, 64)).shape == (1, 8, size, size)


@pytest.mark.parametrize("size", [31, 32])
def test_keras_stem_pads_the_odd_zero_behind(size: int) -> None:
    """TensorFlow's "same" for an input of side n: the zeros needed in all, halved, the odd one behind."""
    stem = KerasStem(3, 4, image_size=size, batchnorm=BatchNorm("none"), activation="identity")
    x = torch.randn(1, 3, size, size)
    side = size + 6
    outputs = -(-side // 2)
    zeros = (outputs - 1) * 2 + 7 - side
    padded = F.pad(x, (3 + zeros // 2, 3 + zeros - zeros // 2) * 2)
    convolved = F.conv2d(padded, stem[1].conv.weight, stem[1].conv.bias, stride=2)
    assert convolved.shape[-1] == outputs
    torch.testing.assert_close(stem(x), F.max_pool2d(convolved, 3, 2))


def test_stem_auto_is_decided_by_the_image_size() -> None:
    assert resolve_stem("auto", 63) == "small"
    assert resolve_stem("auto", 64) == "imagenet"
    assert resolve_stem("imagenet", 32) == "imagenet"
    with pytest.raises(UserError, match=r"model\.stem=smal is not one of .*did you mean 'small'"):
        resolve_stem("smal", 32)


def test_pooled_head_value() -> None:
    head = PooledHead(3, 2, dropout=0.5).eval()
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(head(x), x.mean((2, 3)) @ head.dense.weight.T + head.dense.bias)


def test_dense_head_dropout_before_or_after() -> None:
    head = DenseHead(4, [3], 2, activation="relu", dropout=0.5)
    assert kinds(head) == ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    head = DenseHead(4, [3], 2, activation="relu", dropout=0.5, dropout_first=True)
    assert kinds(head) == ["Flatten", "Dropout", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("size", range(5, 40))
def test_output_size_is_what_torch_gives(size: int) -> None:
    x = torch.zeros(1, 1, size, size)
    assert output_size(size, 5) == F.conv2d(x, torch.zeros(1, 1, 5, 5)).shape[-1]
    for kernel_size, stride, padding in ((3, 2, 0), (2, 2, 0), (3, 2, 1), (5, 3, 0)):
        for ceil in (False, True):
            pooled = F.max_pool2d(x, kernel_size, stride, padding, ceil_mode=ceil)
            assert output_size(size, kernel_size, stride, padding, ceil) == pooled.shape[-1]


def test_activations() -> None:
    x = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(make_activation("leaky_relu")(x), torch.where(x > 0, x, 0.01 * x))
    torch.testing.assert_close(make_activation("leaky_relu:0.3")(x), torch.where(x > 0, x, 0.3 * x))
    torch.testing.assert_close(make_activation("silu")(x), x / (1 + (-x).exp()))
    for wrong in ("relux", "relu:0.3", "leaky_relu:steep"):
        with pytest.raises(UserError, match="activation"):
            make_activation(wrong)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        ("kaiming_normal", (2 / 576) ** 0.5),
        ("kaiming_normal_fan_out", (2 / 1152) ** 0.5),
        ("kaiming_uniform", (2 / 576) ** 0.5),
        ("xavier_normal", (2 / (576 + 1152)) ** 0.5),
        ("xavier_uniform", (2 / (576 + 1152)) ** 0.5),
        ("keras", (2 / (576 + 1152)) ** 0.5),
        ("keras_he_normal", (2 / 576) ** 0.5),
        ("lecun_normal", (1 / 576) ** 0.5),
        ("lecun_uniform", (1 / 576) ** 0.5),
        ("pytorch", (1 / 3 / 576) ** 0.5),
        ("normal", 0.01),
        ("truncated_normal", 0.01),
    ],
)
def test_initial_deviation(init: str, std: float) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 128, 3)
    nn.init.ones_(conv.weight)
    initialize(nn.Sequential(conv), init)
    assert conv.weight.std().item() == pytest.approx(std, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=std / 50)
    assert bool((conv.bias == 0).all()) is (init != "pytorch")


def test_keras_is_glorot_uniform_and_he_normal_is_cut() -> None:
    conv = nn.Conv2d(64, 128, 3)
    initialize(conv, "keras")
    bound = (6 / (576 + 1152)) ** 0.5
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    initialize(conv, "keras_he_normal")
    assert conv.weight.abs().max() <= 2 * (2 / 576) ** 0.5 / 0.8796


def test_init_auto_and_convolutions_only() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    initialize(network, "auto", convolution="normal", dense="keras")
    assert (network[0].bias == 0).all()
    assert (network[1].bias == 0).all()
    assert network[0].weight.abs().max() < 0.06
    initialize(network, "xavier_uniform_convolutions")
    assert (network[0].bias == 0).all()
    assert (network[1].bias != 0).all()


@pytest.mark.parametrize("init", [name for name in INITS if name != "auto"])
def test_every_init_is_seeded(init: str) -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        conv = nn.Conv2d(3, 8, 3)
        initialize(conv, init)
        return conv.weight.detach().clone()

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_init_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="did you mean 'kaiming_normal'"):
        initialize(nn.Conv2d(1, 1, 1), "kaiming_norma")
