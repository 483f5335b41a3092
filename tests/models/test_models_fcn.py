"""Fully convolutional networks: against a reference of torchvision's pieces, their weights and what they refuse."""

import socket
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from convolt.errors import UserError
from convolt.models.blocks import BatchNorm
from convolt.models.fcn import FCN, bilinear_kernel, make_upsampling
from convolt.models.vgg import VGG
from models.networks import build_meta, names, parameters, table

HIDDEN = 16
GOLDEN = {"fcn32s": 136_161_365, "fcn16s": 134_824_442, "fcn8s": 134_498_207}


def torchvisions(with_norm: bool) -> nn.ModuleDict:
    """VGG16 of torchvision's pieces with narrow dense layers, and weights that are far from their usual ones."""
    torch.manual_seed(1)
    network = nn.ModuleDict(
        {
            "features": make_layers(cfgs["D"], batch_norm=with_norm),
            "classifier": nn.Sequential(
                nn.Linear(25088, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout()
            ),
        }
    )
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return network.eval()


def reference(vgg: nn.ModuleDict, images: Tensor, ours: FCN, stride: int, upsampling: str) -> Tensor:
    """Logits of the paper's network from torchvision's layers and our scores' weights."""
    size = images.shape[-1]
    missing = -size % 32
    maps = F.pad(images, (0, missing, 0, missing))
    pools = []
    for layer in vgg["features"]:
        maps = layer(maps)
        if isinstance(layer, nn.MaxPool2d):
            pools.append(maps)
    first, second = vgg["classifier"][0], vgg["classifier"][3]
    maps = F.conv2d(maps, first.weight.view(HIDDEN, 512, 7, 7), first.bias, padding=3).relu()
    maps = F.conv2d(maps, second.weight.view(HIDDEN, HIDDEN, 1, 1), second.bias).relu()

    def larger(logits: Tensor, factor: int) -> Tensor:
        if upsampling == "interpolation":
            return F.interpolate(logits, scale_factor=factor, mode="bilinear")
        place = torch.arange(2 * factor)
        line = 1 - (place - factor + 0.5).abs() / factor
        kernel = torch.einsum("ij,y,x->ijyx", torch.eye(logits.shape[1]), line, line)
        return F.conv_transpose2d(logits, kernel, stride=factor, padding=factor // 2)

    def score(place: int, inputs: Tensor) -> Tensor:
        return F.conv2d(inputs, ours.scores[place].weight, ours.scores[place].bias)

    logits = score(0, maps)
    if stride <= 16:
        logits = larger(logits, 2) + score(1, pools[3])
    if stride == 8:
        logits = larger(logits, 2) + score(2, pools[2])
    return larger(logits, stride)[:, :, :size, :size]


@pytest.mark.parametrize("upsampling", ["learned", "interpolation"])
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("with_norm", [False, True])
def test_logits_equal_a_reference_of_torchvisions_pieces(
    stride: int, upsampling: str, with_norm: bool, tmp_path: Path
) -> None:
    vgg = torchvisions(with_norm)
    torch.save(vgg.state_dict(), tmp_path / "vgg16.pth")
    ours = FCN(
        in_channels=3,
        num_classes=4,
        image_size=75,
        batchnorm=BatchNorm("before" if with_norm else "none"),
        stride=stride,
        upsampling=upsampling,
        pretrained=str(tmp_path / "vgg16.pth"),
        width=1.0,
        hidden=HIDDEN,
        head_kernel=7,
    ).eval()
    for scores in ours.scores:
        nn.init.normal_(scores.weight, std=0.05)
        nn.init.normal_(scores.bias)
    images = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        found, expected = ours(images), reference(vgg, images, ours, stride, upsampling)
    assert found.shape == (2, 4, 75, 75)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


def test_golden_parameters_and_headers() -> None:
    assert set(names(of_pixels=True)) == set(GOLDEN)
    for name, count in GOLDEN.items():
        row = table().row(name)
        assert row.own.parameters == row.header_parameters == count
        assert row.depth == 16


def test_its_stages_are_vgg16s() -> None:
    with torch.device("meta"):
        vgg = VGG(in_channels=3, num_classes=10, image_size=224)
    fcn = build_meta("fcn8s", "batchnorm.placement=none", size=224, classes=21)
    assert [tuple(p.shape) for p in fcn.stages.parameters()] == [tuple(p.shape) for p in vgg.stages.parameters()]


@pytest.mark.parametrize(("placement", "norms"), [("auto", 13), ("before", 13), ("after", 13), ("none", 0)])
def test_batch_norm_stands_where_it_is_asked_for(placement: str, norms: int) -> None:
    fcn = build_meta("fcn16s", f"batchnorm.placement={placement}", size=64)
    kinds = [type(layer).__name__ for layer in fcn.stages[0][0]]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in fcn.modules()) == norms
    expected = {"after": ["Conv2d", "ReLU", "BatchNorm2d"], "none": ["Conv2d", "ReLU"]}
    assert kinds == expected.get(placement, ["Conv2d", "BatchNorm2d", "ReLU"])


def test_small_images_get_the_small_form() -> None:
    small, large = build_meta("fcn8s", size=64), build_meta("fcn8s", size=128)
    assert small.stages[4][0].conv.out_channels == 128
    assert large.stages[4][0].conv.out_channels == 512
    assert tuple(small.head.conv6.conv.weight.shape) == (256, 128, 3, 3)
    assert tuple(large.head.conv6.conv.weight.shape) == (4096, 512, 7, 7)
    assert parameters(build_meta("fcn8s", "model.width=0.5", size=64)) > parameters(small)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_learned_upsampling_starts_as_interpolation(factor: int) -> None:
    maps = torch.randn(1, 3, 6, 5)
    learned = make_upsampling(3, factor, learned=True)(maps)
    plain = make_upsampling(3, factor, learned=False)(maps)
    assert learned.shape == plain.shape == (1, 3, 6 * factor, 5 * factor)
    inside = slice(factor // 2, -(factor // 2))
    assert torch.allclose(learned[..., inside, inside], plain[..., inside, inside], atol=1e-5)
    assert bilinear_kernel(factor).sum() == pytest.approx(factor**2)


def test_scores_start_at_zero_and_learn() -> None:
    torch.manual_seed(0)
    network = FCN(in_channels=3, num_classes=3, image_size=40, width=0.1, hidden=8)
    images = torch.randn(4, 3, 40, 40)
    targets = (images.mean(1) > 0).long()
    assert not network(images).any()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def small(**options: object) -> FCN:
    usual = {"in_channels": 3, "num_classes": 2, "image_size": 32, "batchnorm": BatchNorm("none"), "hidden": 4}
    return FCN(**{**usual, "width": 1.0, **options})


def test_a_head_of_another_size_is_not_taken_from_the_dense_layers(tmp_path: Path) -> None:
    vgg = torchvisions(False)
    torch.save(vgg.state_dict(), tmp_path / "vgg16.pth")
    network = small(pretrained=str(tmp_path / "vgg16.pth"), head_kernel=3)
    assert torch.equal(network.stages[0][0].conv.weight, vgg["features"][0].weight)
    assert torch.equal(network.stages[4][2].conv.bias, vgg["features"][28].bias)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stride": 4}, "model.stride=4 is not one of 32, 16, 8"),
        ({"upsampling": "nearest"}, "model.upsampling=nearest is not one of learned, interpolation"),
        ({"head_kernel": 4}, "model.head_kernel=4 must be odd"),
        ({"pretrained": "nowhere.pth"}, "model.pretrained=nowhere.pth: there is no such file"),
        ({"pretrained": True, "batchnorm": BatchNorm("after")}, "choose batchnorm=before or batchnorm=none"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        small(**options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content, options, said in (
        (torchvisions(True).state_dict(), {}, "weights of a VGG with batch norm"),
        (torchvisions(False).state_dict(), {"batchnorm": BatchNorm("before")}, "weights of a VGG without batch norm"),
        (torchvisions(False).state_dict(), {"width": 0.5}, "64x3x3x3, but this network's are 32x3x3x3"),
        (torchvisions(False).state_dict(), {"in_channels": 1}, "are for color images"),
        ({"a": torch.zeros(1)}, {}, "no weights of torchvision's VGG16"),
        ([1, 2], {}, "holds no state dict"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"model\.pretrained") as caught:
            small(pretrained=str(path), **options)
        assert said in str(caught.value)
    path.write_bytes(b"PK\x03\x04 half of one")
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        small(pretrained=str(path))


def test_no_internet_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match=r"vgg16-\w+\.pth cannot be downloaded .* check the internet") as caught:
        small(pretrained=True)
    assert "\n" not in str(caught.value)
