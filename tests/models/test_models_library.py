import sys
from types import ModuleType

import pytest
import torch
import torchvision
from torch import nn

from convolt.errors import UserError
from convolt.models.blocks import BatchNorm
from convolt.models.library import Timm, Torchvision
from models.networks import build_meta, parameters


def make(name: str, channels: int = 3, classes: int = 10, size: int = 32, **keywords: object) -> Torchvision:
    with torch.device("meta"):
        return Torchvision(in_channels=channels, num_classes=classes, image_size=size, name=name, **keywords)


def test_the_config_builds_a_network_of_torchvision() -> None:
    network = build_meta("torchvision", "model.name=shufflenet_v2_x0_5", channels=1)
    assert type(network.network).__name__ == "ShuffleNetV2"
    assert network.network.conv1[0].in_channels == 1
    assert network.network.fc.out_features == 10


def test_weights_and_logits_are_torchvisions() -> None:
    torch.manual_seed(3)
    ours = Torchvision(in_channels=3, num_classes=7, image_size=32, name="mobilenet_v3_small", kwargs={"dropout": 0.5})
    torch.manual_seed(3)
    theirs = torchvision.models.mobilenet_v3_small(num_classes=7, dropout=0.5)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert next(m for m in ours.modules() if isinstance(m, nn.Dropout)).p == 0.5


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "densenet121", "convnext_tiny", "swin_t", "squeezenet1_0"])
def test_the_first_convolution_is_made_anew(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=10)
    old = next(m for m in theirs.modules() if isinstance(m, nn.Conv2d))
    ours = make(name, channels=1)
    new = next(m for m in ours.modules() if isinstance(m, nn.Conv2d))
    assert new.in_channels == 1
    for key in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(new, key) == getattr(old, key)
    assert parameters(theirs) - parameters(ours) == 2 * old.weight[:, 0].numel()


@pytest.mark.parametrize(("name", "size", "heads"), [("googlenet", 64, 3), ("inception_v3", 299, 2)])
def test_auxiliary_heads_come_after_the_logits(name: str, size: int, heads: int) -> None:
    network = make(name)
    images = torch.empty(2, 3, size, size, device="meta")
    outputs = network.train()(images)
    assert [tuple(head.shape) for head in outputs] == heads * [(2, 10)]
    assert network.eval()(images).shape == (2, 10)
    assert network.auxiliary_weight == 0.3


def test_the_first_of_the_tuple_is_the_main_head() -> None:
    torch.manual_seed(0)
    network = Torchvision(
        in_channels=3, num_classes=10, image_size=32, name="googlenet", kwargs={"dropout": 0.0, "dropout_aux": 0.0}
    )
    images = torch.randn(2, 3, 32, 32)
    outputs = network.train()(images)
    theirs = network.network(images)
    for ours, expected in zip(outputs, (theirs.logits, theirs.aux_logits2, theirs.aux_logits1), strict=True):
        torch.testing.assert_close(ours, expected)


def test_without_auxiliary_heads_there_is_no_tuple() -> None:
    network = make("googlenet", kwargs={"aux_logits": False})
    assert network.train()(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


def test_vision_transformers_are_built_for_the_image_size() -> None:
    assert make("vit_b_16").eval()(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 10)
    with pytest.raises(UserError, match="vit_b_16 does not take these settings"):
        make("vit_b_16", size=28)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"name": "mobilnet_v3_small"}, "did you mean 'mobilenet_v3_small'"),
        ({"name": "resnet18", "kwargs": {"dropuot": 1}}, "resnet18 does not take these settings: .*dropuot"),
        ({"name": "resnet18", "batchnorm": BatchNorm("after")}, "leave out batchnorm"),
        ({"name": "resnet18", "batchnorm": BatchNorm(momentum=0.2)}, "leave out batchnorm"),
        ({"name": "resnet18", "activation": "gelu"}, "leave out batchnorm"),
        ({"name": "resnet18", "init": "keras"}, "leave out batchnorm"),
    ],
)
def test_a_users_mistake_is_one_clear_line(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(**keywords)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_without_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_keywords: object) -> None:
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"no weights for torchvision's squeezenet1_1 .*model\.pretrained=false"):
        Torchvision(in_channels=3, num_classes=10, image_size=32, name="squeezenet1_1", pretrained=True)


def test_pretrained_weights_keep_all_but_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_keywords: state)
    network = Torchvision(in_channels=3, num_classes=10, image_size=32, name="squeezenet1_1", pretrained=True)
    assert network.network.classifier[1].out_channels == 10
    assert torch.equal(network.network.features[0].weight, state["features.0.weight"])


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'convolt\[timm\]'"):
        Timm(in_channels=3, num_classes=10, image_size=32, name="xception41")


def test_timm_networks_are_made_by_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in, for timm need not be installed."""
    asked = {}

    def create_model(name: str, **keywords: object) -> nn.Module:
        asked.update(keywords, name=name)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 10))

    timm = ModuleType("timm")
    timm.create_model = create_model
    timm.list_models = lambda: ["xception41", "inception_v4"]
    monkeypatch.setitem(sys.modules, "timm", timm)
    network = Timm(in_channels=1, num_classes=10, image_size=2, name="xception41.tf_in1k", kwargs={"drop_rate": 0.1})
    assert asked == {
        "name": "xception41.tf_in1k",
        "pretrained": False,
        "num_classes": 10,
        "in_chans": 1,
        "drop_rate": 0.1,
    }
    assert network(torch.zeros(3, 1, 2, 2)).shape == (3, 10)
    with pytest.raises(UserError, match="did you mean 'xception41'"):
        Timm(in_channels=1, num_classes=10, image_size=2, name="xception")
    with pytest.raises(UserError, match="leave out batchnorm"):
        Timm(in_channels=1, num_classes=10, image_size=2, name="xception41", init="keras")
