"""Golden counts, torchvision's logits, placements, heads: every config of conf/model."""

import pytest
import torch
import torchvision
from torch import nn

from convolt.errors import UserError
from convolt.models.blocks import BatchNorm
from convolt.models.resnet9 import ResNet9
from models.networks import build, build_meta, names, parameters, smallest_size, table

PLACEMENTS = ("before", "after", "none")
PREACTIVATION = ("preact", "v2", "densenet", "wide_resnet28")
"""Parts of the names of networks that have no place after the activation."""


def refuses(name: str, placement: str) -> bool:
    return placement == "after" and any(part in name for part in PREACTIVATION)


@pytest.fixture(scope="module")
def rows() -> dict[str, object]:
    return {name: table().row(name) for name in names()}


@pytest.fixture(scope="module")
def of_pixels() -> list[object]:
    return [table().row(name) for name in names(of_pixels=True)]


# name: parameters at the config's own size, as papers, reports, torchvision, Keras and timm have them
GOLDEN = {
    "lenet": 61_706,
    "alexnet": 61_100_840,
    "alexnet_paper": 60_965_224,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50": 25_028_904,
    "resnext101": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "se_resnet18": 11_778_592,
    "se_resnet50": 28_088_024,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet20v2": 219_482,
    "resnet56v2": 590_426,
    "resnet110v2": 1_146_842,
    "resnet164v2": 1_703_258,
    "preact_resnet18": 11_172_170,
    "wide_resnet28_10": 36_479_194,
    "googlenet": 13_378_280,
    "googlenet_bn": 13_004_888,
    "mobilenet": 4_231_976,
    "densenet121": 7_978_856,
    "densenet_bc100": 769_162,
    "allcnn": 1_369_738,
    "nin": 966_986,
    "resnet9": 6_573_130,
    "agrawal2020/lenet": 62_006,
    "agrawal2020/alexnet": 21_590_602,
    "agrawal2020/vgg16": 33_663_050,
    "agrawal2020/resnet50": 23_555_082,
    "agrawal2020/googlenet": 23_187_702,
    "menon2020/resnet20v1": 273_066,
    "menon2020/resnet20v2": 570_602,
    "menon2020/resnet56v1": 857_706,
    "menon2020/resnet56v2": 1_663_338,
    "menon2020/vgg16": 14_714_688 + 2 * 4_224 + 2 * (512 * 512 + 512) + 5_130,
    "masilamani2021/alexnet": 57_044_810,
    "masilamani2021/vgg16": 134_301_514,
    "masilamani2021/resnet18": 11_181_642,
    "masilamani2021/googlenet": 6_998_552 - 1_025_000 + 10_250,
    "masilamani2021/mobilenet": 3_217_226 + 0,
    "srivastava2020/alexnet": 3_747_200 + (256 * 4096 + 4096) + (4096 * 4096 + 4096) + 40_970,
    "srivastava2020/vgg16": 14_714_688 + (2048 * 4096 + 4096) + (4096 * 4096 + 4096) + 40_970,
    "srivastava2020/resnet34": 21_797_672 - 513_000 + 5_130,
    "chhipani2021/vgg11": 9_220_480 + 2 * 2_752 + (512 * 4096 + 4096) + (4096 * 4096 + 4096) + 40_970,
    "chhipani2021/vgg16": 14_714_688 + 2 * 4_224 + (512 * 4096 + 4096) + (4096 * 4096 + 4096) + 40_970,
    "chhipani2021/vgg19": 20_024_384 + 2 * 5_504 + (512 * 4096 + 4096) + (4096 * 4096 + 4096) + 40_970,
    "chhipani2021/resnet18": 11_181_642 - 9_408 - 128 + (864 + 64) + (9_216 + 64) + (18_432 + 128),
    "chhipani2021/resnet101": 42_520_650 - 9_408 - 128 + (864 + 64) + (9_216 + 64) + (18_432 + 128),
    "chhipani2021/googlenet": 10_326_350 - (7_280 + 2 * 128) + 2 * (7_280 + 2 * 128),
}


def test_every_config_has_a_golden_count() -> None:
    assert set(names()) == set(GOLDEN)


def test_golden_parameters_and_headers(rows: dict[str, object]) -> None:
    assert {name: row.own.parameters for name, row in rows.items()} == GOLDEN
    assert {name: row.header_parameters for name, row in rows.items()} == GOLDEN


def test_page_is_up_to_date(rows: dict[str, object], of_pixels: list[object]) -> None:
    assert table().problems(list(rows.values()), of_pixels) == []


def test_stale_page_and_header_are_found(rows: dict[str, object], of_pixels: list[object]) -> None:
    from dataclasses import replace

    changed = [replace(row, header_parameters=1) if row.name == "lenet" else row for row in rows.values()]
    assert any("lenet.yaml" in problem for problem in table().problems(changed, of_pixels))
    changed = [replace(row, depth=7) if row.name == "lenet" else row for row in rows.values()]
    assert table().problems(changed, of_pixels) == ["docs/networks.md is stale: run python scripts/networks_table.py"]


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("resnet18", 1_814_073_344),
        ("resnet50", 4_089_184_256),
        ("vgg16", 15_470_264_320),
        ("alexnet", 714_188_480),
        ("densenet121", 2_834_161_664),
        ("mobilenet", 568_740_352),
    ],
)
def test_golden_multiply_adds(name: str, macs: int, rows: dict[str, object]) -> None:
    assert rows[name].own.macs == macs


def test_golden_multiply_adds_of_resnet18_at_32(rows: dict[str, object]) -> None:
    """64 channels at 32x32, then half the side and twice the width in each stage; 1x1 shortcuts in three."""
    conv = 9 * 64 * 64 * 32 * 32
    stages = 4 * conv + 3 * (conv // 2 + 3 * conv + conv // 18)
    assert rows["resnet18"].small.macs == 27 * 64 * 32 * 32 + stages + 5_120


def test_golden_multiply_adds_of_all_convolutional_networks(rows: dict[str, object]) -> None:
    """Sums of inputs x outputs x kernel area x output area: All-CNN's maps are 32, 16, 8, 6, NIN's 32, 16, 8 wide."""
    allcnn = [(3, 96, 9, 32), (96, 96, 9, 32), (96, 96, 9, 16), (96, 192, 9, 16), (192, 192, 9, 16), (192, 192, 9, 8)]
    allcnn += [(192, 192, 9, 6), (192, 192, 1, 6), (192, 10, 1, 6)]
    nin = [
        (3, 192, 25, 32),
        (192, 160, 1, 32),
        (160, 96, 1, 32),
        (96, 192, 25, 16),
        (192, 192, 1, 16),
        (192, 192, 1, 16),
    ]
    nin += [(192, 192, 9, 8), (192, 192, 1, 8), (192, 10, 1, 8)]
    for name, layers in (("allcnn", allcnn), ("nin", nin)):
        assert rows[name].own.macs == sum(i * o * area * side**2 for i, o, area, side in layers)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        *{"lenet": 5, "vgg19": 19, "resnet152": 152, "se_resnet50": 50, "resnet110": 110, "resnet164v2": 164}.items(),
        *{"googlenet": 22, "mobilenet": 28, "densenet121": 121, "densenet_bc100": 100, "alexnet_paper": 8}.items(),
        *{"menon2020/resnet20v2": 20, "agrawal2020/resnet50": 50, "nin": 9, "allcnn": 9, "resnet9": 9}.items(),
    ],
)
def test_depth_is_the_number_in_the_name(name: str, depth: int, rows: dict[str, object]) -> None:
    assert rows[name].depth == depth


@pytest.mark.parametrize("name", ["agrawal2020/googlenet"])
def test_auxiliary_heads_of_agrawal2020(name: str) -> None:
    heads = build_meta(name).auxiliary
    assert [parameters(head) for head in heads.values()] == [363_402, 365_450]


def test_width_multiplier_against_keras() -> None:
    counts = {0.5: 1_331_592, 0.25: 470_072}
    for multiplier, count in counts.items():
        network = build_meta("mobilenet", f"model.width_multiplier={multiplier}", size=224, classes=1000)
        assert parameters(network) == count


@pytest.mark.parametrize("name", names())
def test_more_classes_change_only_the_heads(name: str) -> None:
    size = smallest_size(name)
    ten, hundred = (
        {key: tensor.shape for key, tensor in build_meta(name, size=size, classes=classes).state_dict().items()}
        for classes in (10, 100)
    )
    assert ten.keys() == hundred.keys()
    changed = [key for key in ten if ten[key] != hundred[key]]
    assert changed
    assert all(key.startswith(("head.", "auxiliary.")) for key in changed)
    assert all((ten[key][0], hundred[key][0]) == (10, 100) for key in changed)


def forward_backward(network: nn.Module, channels: int, size: int) -> None:
    outputs = network.train()(torch.empty(2, channels, size, size, device="meta"))
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(head.shape == (2, 10) for head in heads)
    torch.stack(heads).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or p.grad.shape != p.shape] == []


@pytest.mark.parametrize("name", ["resnet110", "resnet110v2", "resnet152", "menon2020/resnet56v1"])
def test_deep_residual_networks_without_norm_start_with_moderate_logits(name: str) -> None:
    """Undamped, 50 branches double the variance each, and the first loss is beyond any use."""
    torch.manual_seed(0)
    network = build(name, "batchnorm.placement=none", size=16).eval()
    with torch.no_grad():
        logits = network(torch.randn(2, 3, 16, 16))
    assert logits.std() < 10


def shallow(name: str) -> list[str]:
    """What leaves one block in each stage of a residual or dense network: placements do not depend on depth."""
    layers = table()._composed(name).model.get("layers")
    return [f"model.layers={[1] * len(layers)}"] if layers else []


@pytest.mark.parametrize("name", names())
def test_every_placement_builds_or_is_refused(name: str) -> None:
    """On the meta device: every parameter takes part in the logits, at 3x32x32 and at MNIST's 1x32x32."""
    size = smallest_size(name)
    for placement in PLACEMENTS:
        overrides = [f"batchnorm.placement={placement}", *shallow(name)]
        if refuses(name, placement):
            with pytest.raises(
                UserError, match=r"batchnorm=after makes no sense .* choose batchnorm=auto or before or none"
            ):
                build_meta(name, *overrides, size=size)
            continue
        network = build_meta(name, *overrides, size=size)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert bool(norms) is (placement != "none")
        forward_backward(network, 3, size)
    forward_backward(build_meta(name, *shallow(name), channels=1, size=size), 1, size)


@pytest.mark.parametrize("name", names())
def test_momentum_and_eps_reach_every_batch_norm(name: str) -> None:
    network = build_meta(
        name, "batchnorm.placement=before", "batchnorm.momentum=0.3", "batchnorm.eps=0.02", size=smallest_size(name)
    )
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert norms
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.3, 0.02)}


def test_keras_reports_have_kerass_batch_norm() -> None:
    for name in ("agrawal2020/vgg16", "menon2020/resnet56v1", "menon2020/resnet56v2", "srivastava2020/resnet34"):
        norms = [layer for layer in build_meta(name).modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 0.001)}


def norm_order(network: nn.Module) -> list[str]:
    return [
        type(layer).__name__
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d | nn.ReLU | nn.MaxPool2d)
    ]


def test_published_placements() -> None:
    """What "auto" means, where networks differ."""
    vgg = build_meta("agrawal2020/vgg16")
    assert norm_order(vgg.stages[0]) == 2 * ["Conv2d", "ReLU", "BatchNorm2d"] + ["MaxPool2d"]
    assert norm_order(vgg.head) == 2 * ["Linear", "ReLU", "BatchNorm1d"] + ["Linear"]
    assert norm_order(build_meta("vgg16").stages[0]) == 2 * ["Conv2d", "ReLU"] + ["MaxPool2d"]
    for name in ("chhipani2021/vgg16", "menon2020/vgg16"):
        assert norm_order(build_meta(name).stages[0]) == 2 * ["Conv2d", "BatchNorm2d", "ReLU"] + ["MaxPool2d"]
    alexnet = build_meta("agrawal2020/alexnet")
    assert norm_order(alexnet.stages)[:8] == 2 * ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert "BatchNorm2d" not in norm_order(alexnet.stages)[8:]
    googlenet = build_meta("agrawal2020/googlenet")
    assert norm_order(googlenet.stem).count("BatchNorm2d") == 3
    assert "BatchNorm2d" not in norm_order(googlenet.stages)


def test_leaky_relu_of_srivastava2020() -> None:
    slopes = {m.negative_slope for m in build_meta("srivastava2020/resnet34").modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.3}


@pytest.mark.parametrize("name", names())
def test_activation_replaces_every_activation(name: str) -> None:
    network = build_meta(name, "model.activation=mish", size=smallest_size(name))
    found = {type(m) for m in network.modules()}
    assert nn.Mish in found
    assert not found & {nn.ReLU, nn.LeakyReLU}


# ours, our overrides, torchvision's
TORCHVISION = [
    ("alexnet", [], "alexnet"),
    *(
        (f"vgg{d}", [f"batchnorm.placement={p}"], f"vgg{d}{s}")
        for d in (11, 13, 16, 19)
        for p, s in (("none", ""), ("before", "_bn"))
    ),
    *((f"resnet{depth}", [], f"resnet{depth}") for depth in (18, 34, 50, 101, 152)),
    ("wide_resnet50_2", [], "wide_resnet50_2"),
    ("resnext50", [], "resnext50_32x4d"),
    ("resnext101", [], "resnext101_32x8d"),
    ("densenet121", [], "densenet121"),
    ("googlenet_bn", ["batchnorm.eps=0.001"], "googlenet"),
]


def random_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Values for all parameters and buffers that keep signals alive and tell every tensor from every other."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif tensor.dim() > 1:
            bound = (6 / tensor[0].numel()) ** 0.5
            state[name] = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator)
        elif tensor.dtype == torch.long:
            state[name] = torch.tensor(0)
        else:
            center = 1.0 if name.endswith("weight") else 0.0
            state[name] = center + 0.2 * (torch.rand(tensor.shape, generator=generator) - 0.5)
    return state


@pytest.mark.parametrize(("name", "overrides", "theirs"), TORCHVISION, ids=[case[2] for case in TORCHVISION])
def test_logits_equal_torchvisions(name: str, overrides: list[str], theirs: str) -> None:
    """Same shapes in the same order, and with the same weights the same logits (images of 64 keep it quick)."""
    keywords = {"init_weights": False} if theirs == "googlenet" else {}
    with torch.device("meta"):
        reference = torchvision.models.get_model(theirs, **keywords)
    network = build_meta(name, *overrides, size=224, classes=1000)
    assert [t.shape for t in network.state_dict().values()] == [t.shape for t in reference.state_dict().values()]
    assert [p.shape for p in network.parameters()] == [p.shape for p in reference.parameters()]
    state = random_state(reference)
    reference.load_state_dict(state, assign=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)), assign=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference.eval()(images)
        logits = network.eval()(images)
    scale = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * scale
    torch.testing.assert_close(logits / scale, expected / scale, rtol=0, atol=1e-5)


GOOGLENETS = ("googlenet", "googlenet_bn", "chhipani2021/googlenet", "agrawal2020/googlenet")


@pytest.fixture(scope="module", params=GOOGLENETS)
def googlenet(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build(request.param, channels=1)


def test_auxiliary_heads_in_training_only(googlenet: nn.Module) -> None:
    images = torch.randn(2, 1, 32, 32)
    assert [tuple(head.shape) for head in googlenet.train()(images)] == 3 * [(2, 10)]
    assert googlenet.auxiliary_weight == 0.3
    googlenet.eval()
    with torch.no_grad():
        logits = googlenet(images)
        assert logits.shape == (2, 10)
        saved = {key: value.clone() for key, value in googlenet.auxiliary.state_dict().items()}
        for parameter in googlenet.auxiliary.parameters():
            parameter.fill_(float("nan"))
        assert torch.equal(googlenet(images), logits)
        googlenet.auxiliary.load_state_dict(saved)


def test_auxiliary_heads_vanish_in_the_exported_network(googlenet: nn.Module) -> None:
    program = torch.export.export(googlenet.eval(), (torch.zeros(1, 1, 32, 32),))
    targets = program.graph_signature.inputs_to_parameters
    used = {
        targets[node.name]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in targets and node.users
    }
    assert any(name.startswith("head.") for name in used)
    assert not any(name.startswith("auxiliary.") for name in used)


def test_auxiliary_heads_sit_after_4a_and_4d() -> None:
    network = build("googlenet", channels=1).train()
    images = torch.randn(2, 1, 32, 32)
    _, first, second = network(images)
    for name, head in (("inception4a", first), ("inception4d", second)):
        gradients = torch.autograd.grad(
            head.sum(), list(network.stages.parameters()), allow_unused=True, retain_graph=True
        )
        keys = [key for key, _ in network.stages.named_parameters()]
        reached = {key.partition(".")[0] for key, gradient in zip(keys, gradients, strict=True) if gradient is not None}
        assert max(reached) == name


def test_agrawal2020_sum_of_softmaxes() -> None:
    """With `auxiliary=sum` the log-probabilities of main + 0.3 first + 0.3 second softmax, in training and in eval."""
    network = build("agrawal2020/googlenet", "model.auxiliary=sum", "model.dropout=0")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = network.eval()(images)
        network.sums = False
        main, first, second = _heads(network, images)
    mixed = (main.softmax(1) + 0.3 * first.softmax(1) + 0.3 * second.softmax(1)) / 1.6
    torch.testing.assert_close(output, mixed.log())
    network.sums = True
    assert isinstance(network.train()(images), torch.Tensor)


def _heads(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """All heads' logits with batch norm in eval mode."""
    network.eval()
    network.training = True
    return network(images)


def test_googlenet_without_auxiliary_heads() -> None:
    network = build_meta("googlenet", "model.auxiliary=false", size=224, classes=1000)
    assert parameters(network) == 6_998_552
    assert network.train()(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    assert parameters(build_meta("googlenet_bn", "model.auxiliary=false", size=224, classes=1000)) == 6_624_904


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("lenet", {"size": 12}, "LeNet cannot take 12x12 images: use data.image_size=16 or more"),
        ("vgg11", {"size": 28}, "VGG cannot take 28x28 images: use data.image_size=32 or more"),
        ("srivastava2020/alexnet", {}, "cannot take 32x32 images: use data.image_size=63 or more"),
        ("alexnet", {"size": 8}, "use data.image_size=15 or more"),
        ("agrawal2020/alexnet", {"size": 28}, "use data.image_size=31 or more"),
        ("agrawal2020/googlenet", {"size": 24}, "use data.image_size=25 or more"),
        ("allcnn", {"size": 8}, "use data.image_size=9 or more"),
        ("resnet18", {"model.stem": "tiny"}, "model.stem=tiny is not one of"),
        ("resnet50", {"model.block": "basic", "model.groups": 2}, "use model.block=bottleneck"),
        ("resnet18", {"model.layers": "[2,2,2]"}, "give as many of both"),
        ("resnet18", {"model.block": "bottlneck"}, "did you mean 'bottleneck'"),
        ("wide_resnet28_10", {"model.depth": 27}, "6 n \\+ 4"),
        ("lenet", {"model.pooling": "min"}, "model.pooling=min is not one of max, avg"),
        ("googlenet", {"model.form": "keras"}, "model.form=keras"),
        ("alexnet", {"model.widths": "[1,2]"}, "five convolutions"),
        ("vgg11", {"model.layers": "[1,1,2]"}, "model.layers has 3 numbers: VGG has five stages"),
        ("menon2020/vgg16", {"model.layers": "[2]"}, "VGG has five stages"),
        ("mobilenet", {"model.width_multiplier": 0.01}, "leaves no channels"),
        ("lenet", {"model.activation": "rellu"}, "did you mean 'relu'"),
        ("lenet", {"model.init": "xavier"}, "did you mean 'xavier_"),
    ],
)
def test_a_users_mistake_is_one_clear_line(name: str, overrides: dict[str, object], message: str) -> None:
    overrides = dict(overrides)
    size = overrides.pop("size", 32)
    with pytest.raises(UserError, match=message) as caught:
        build_meta(name, *(f"{key}={value}" for key, value in overrides.items()), size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["lenet", "alexnet", "vgg11", "agrawal2020/alexnet", "allcnn", "nin", "agrawal2020/googlenet"]
)
def test_the_smallest_image_works(name: str) -> None:
    size = {"lenet": 16, "alexnet": 15, "vgg11": 32, "allcnn": 9, "nin": 4}.get(name, 31 if "alex" in name else 25)
    forward_backward(build_meta(name, size=size), 3, size)


def test_options_change_what_they_say() -> None:
    lenet = build("lenet", "model.pooling=avg")
    assert [type(m) for m in lenet.modules() if isinstance(m, nn.AvgPool2d | nn.MaxPool2d)] == 2 * [nn.AvgPool2d]
    wide = [m.p for m in build_meta("wide_resnet28_10", "model.dropout=0.3").modules() if isinstance(m, nn.Dropout)]
    assert wide.count(0.3) == 12
    assert sum(isinstance(m, nn.LocalResponseNorm) for m in build_meta("alexnet_paper").modules()) == 2
    assert parameters(build_meta("resnet20", "model.shortcut=projection")) == 269_722 + 16 * 32 + 64 + 32 * 64 + 128
    assert parameters(build_meta("resnet18", "model.se_reduction=16", size=224, classes=1000)) == GOLDEN["se_resnet18"]


def test_local_response_norm_is_the_papers() -> None:
    """b = a / (2 + 1e-4 times the sum of the squares of five neighboring channels) ** 0.75."""
    norm = next(m for m in build_meta("alexnet_paper").modules() if isinstance(m, nn.LocalResponseNorm))
    a = torch.randn(1, 7, 2, 2) * 30
    squares = torch.nn.functional.pad(a.square(), (0, 0, 0, 0, 2, 2))
    total = sum(squares[:, shift : shift + 7] for shift in range(5))
    torch.testing.assert_close(norm(a), a / (2 + 1e-4 * total) ** 0.75)


def test_default_arguments_are_the_published_form() -> None:
    network = ResNet9(in_channels=3, num_classes=10, image_size=32)
    assert BatchNorm().placement == "auto"
    assert parameters(network) == GOLDEN["resnet9"]


FAMILIES = {
    "lenet": (["lenet"], 16),
    "vgg": (["vgg11", "model.layers=[1,1,1,1,1]", "model.hidden=64", "model.init=kaiming_normal"], 32),
    "alexnet": (["alexnet", "model.hidden=64", "model.widths=[32,64,64,64,64]"], 16),
    "resnet": (["resnet18", "model.widths=[16,32,64,128]"], 8),
    "bottleneck": (["resnext50", "model.widths=[16,32,64,128]", "model.layers=[1,1,1,1]", "model.groups=4"], 8),
    "se": (["se_resnet18", "model.widths=[16,32,64,128]"], 8),
    "resnet20": (["resnet20"], 8),
    "resnet20v2": (["resnet20v2"], 8),
    "preact": (["preact_resnet18", "model.widths=[16,32,64,128]"], 8),
    "wide": (["wide_resnet28_10", "model.depth=10", "model.width=2"], 8),
    "googlenet": (["googlenet_bn"], 8),
    "mobilenet": (["mobilenet", "model.width_multiplier=0.25"], 16),
    "densenet": (["densenet_bc100", "model.layers=[4,4,4]"], 8),
    "allcnn": (["allcnn", "model.width=48"], 16),
    "nin": (["nin"], 8),
    "resnet9": (["resnet9", "model.width=16"], 8),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_overfits_64_digits(family: str) -> None:
    """Every class of network, narrow and with small images, learns 64 digits by heart.

    The whole configs at 32x32 take an hour on two cores: `python scripts/networks_table.py --overfit` does them. What
    need not learn is GoogLeNet without batch norm under plain SGD (chhipani2021's 11.4%).
    """
    (name, *overrides), size = FAMILIES[family]
    torch.manual_seed(0)
    network = build(name, *overrides, channels=1, size=size)
    assert table().overfit(network, *table().digits(1, size), steps=120, rate=2e-3) > 0
