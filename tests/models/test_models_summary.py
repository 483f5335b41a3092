import pytest
import torch
from torch import nn

from convolt.errors import UserError
from convolt.models.library import Torchvision
from convolt.models.summary import LayerRow, count_multiply_adds, summarize_network
from models.networks import build, build_meta


@pytest.fixture
def lenet() -> nn.Module:
    return build("lenet", channels=1)


LENET_MACS = [6 * 25 * 28 * 28, 16 * 6 * 25 * 10 * 10, 400 * 120, 120 * 84, 84 * 10]


def test_lenet_by_hand(lenet: nn.Module) -> None:
    summary = summarize_network(lenet, 1, 32, "lenet")
    assert (summary.parameters, summary.trainable_parameters, summary.macs) == (61_706, 61_706, sum(LENET_MACS))


def test_layers_of_lenet_by_hand(lenet: nn.Module) -> None:
    rows = summarize_network(lenet, 1, 32, "lenet").layers
    assert rows[0] == LayerRow("stages.0.0.conv", "Conv2d", (6, 28, 28), 156, LENET_MACS[0])
    assert [row.type for row in rows if row.macs] == ["Conv2d", "Conv2d", "Linear", "Linear", "Linear"]
    assert [row.macs for row in rows if row.macs] == LENET_MACS
    assert [row.parameters for row in rows if row.parameters] == [156, 2_416, 48_120, 10_164, 850]
    assert [row.output_shape for row in rows if row.type == "MaxPool2d"] == [(6, 14, 14), (16, 5, 5)]
    assert rows[-1].output_shape == (10,)


@pytest.mark.parametrize(
    "name", ["resnet50", "googlenet", "densenet_bc100", "menon2020/resnet20v2", "agrawal2020/vgg16"]
)
def test_layers_add_up(name: str) -> None:
    network = build_meta(name)
    summary = summarize_network(network, 3, 32, name)
    assert summary.macs == count_multiply_adds(network, 3, 32)
    assert sum(row.parameters for row in summary.layers) == summary.parameters


def test_layers_add_up_where_a_module_computes_beside_its_children() -> None:
    with torch.device("meta"):
        network = Torchvision(in_channels=3, num_classes=10, image_size=32, name="vit_b_16")
    summary = summarize_network(network, 3, 32, "vit_b_16")
    assert summary.macs == count_multiply_adds(network, 3, 32)
    assert sum(row.parameters for row in summary.layers) == summary.parameters


def test_frozen_parameters_are_not_trainable(lenet: nn.Module) -> None:
    lenet.stages.requires_grad_(False)
    summary = summarize_network(lenet, 1, 32, "lenet")
    assert (summary.parameters, summary.trainable_parameters) == (61_706, 61_706 - 156 - 2_416)


def test_nothing_is_changed() -> None:
    network = build("resnet20", "model.dropout=0.5")
    network.stages[0].eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    summarize_network(network, 3, 32, "resnet20")
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(not module._forward_hooks for module in network.modules())


def test_a_size_that_is_too_small_names_one_that_works() -> None:
    with torch.device("meta"):
        network = Torchvision(in_channels=1, num_classes=10, image_size=32, name="alexnet")
    with pytest.raises(UserError, match=r"^alexnet cannot take 1x32x32 images: use data\.image_size=64 or more$"):
        summarize_network(network, 1, 32, "alexnet")
    assert summarize_network(network, 1, 64, "alexnet").macs > 0


def test_training_alone_can_be_what_fails() -> None:
    """Inception v3 evaluates 96x96 images, but its auxiliary head, in training, needs larger ones."""
    with torch.device("meta"):
        network = Torchvision(in_channels=3, num_classes=10, image_size=96, name="inception_v3")
    network.eval()(torch.empty(1, 3, 96, 96, device="meta"))
    with pytest.raises(UserError, match=r"inception_v3 cannot take 3x96x96 images: use data\.image_size=\d+ or more"):
        summarize_network(network, 3, 96, "inception_v3")


def test_a_bug_of_a_network_of_ours_is_no_mistake_of_the_users() -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise IndexError("a bug")

    with pytest.raises(UserError, match=r"^broken fails on 3x32x32 images: IndexError: a bug \(.*summary\.py:\d+\)$"):
        summarize_network(Broken(), 3, 32, "broken")
    Broken.__module__ = "convolt.models.broken"
    with pytest.raises(IndexError, match="a bug"):
        summarize_network(Broken(), 3, 32, "broken")
