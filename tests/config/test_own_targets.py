"""A `_target_` of the user's own: classes and functions of any signature are built, what is wrong is told in a line."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from convolt.config.check import NETWORK_KEYS
from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.config.settings import Settings
from convolt.errors import UserError
from convolt.inference.trained import TrainedRun
from convolt.models.summary import summarize_network
from convolt.system.installation import CONF
from convolt.training.build import make_data, make_network
from convolt.training.machine import Machine
from convolt.training.run import run

NETWORKS = '''
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        layers = nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
        self.layers = nn.Sequential(*layers)

    def forward(self, images):
        return self.layers(images)


class Positional(Plain):
    def __init__(self, num_classes, /, activation="tanh"):
        super().__init__(num_classes)
        self.activation = activation


class Anything(Plain):
    def __init__(self, **given):
        super().__init__(given["num_classes"])
        self.given = sorted(given)


class HandsOn(Plain):
    def __init__(self, **given):
        super().__init__(**given)


class Fixed(Plain):
    def __init__(self):
        super().__init__(10)


class Lazy(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        layers = nn.LazyConv2d(4, 3, stride=2), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes)
        self.layers = nn.Sequential(*layers)

    def forward(self, images):
        return self.layers(images)


class Looks(Plain):
    """Neither runs on the meta device."""
    def forward(self, images):
        return super().forward(images) * (1 if float(images.sum()) >= 0 else 2)


def function(num_classes, image_size):
    return Plain(num_classes)


class Few(Plain):
    def __init__(self, num_classes):
        super().__init__(num_classes - 1)


class Many(Plain):
    def __init__(self, num_classes, **more):
        super().__init__(num_classes + 1)


class Pair(Plain):
    def forward(self, images):
        return super().forward(images), images


class Dictionary(Plain):
    def forward(self, images):
        return {"logits": super().forward(images)}


class PairInTraining(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class Chosen(Plain):
    def forward(self, images):
        return super().forward(images).argmax(1, keepdim=True)


class Flat(Plain):
    def forward(self, images):
        return super().forward(images).flatten()


class Maps(nn.Conv2d):
    def __init__(self, num_classes):
        super().__init__(1, num_classes, 1)


class Single(Plain):
    def forward(self, images):
        return super().forward(images)[..., None]


class Untrainable(Plain):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.requires_grad_(False)


class Raises(Plain):
    def __init__(self, num_classes):
        raise RuntimeError("no\\nway")


class Colored(Plain):
    def __init__(self):
        super().__init__()
        self.layers[0] = nn.Conv2d(3, 4, 3)


class Needs(Plain):
    def __init__(self, depth):
        super().__init__()


number = 3


def not_a_network():
    return 3


def optimizer(parameters, lr, weight_decay):
    return None


class PickyOptimizer(torch.optim.SGD):
    def __init__(self, parameters, lr, weight_decay):
        raise ValueError(f"lr={lr} is odd")


def schedule(optimizer, epochs, steps_per_epoch, warmup_epochs):
    return "cosine"
'''
STEP = "torch.optim.lr_scheduler.StepLR"
RUN = "trainer.max_epochs=1 trainer.threads=1 pictures.enabled=false data.train_size=64 hydra.run.dir=run"


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of pages, and modules that Python can import."""
    folder = tmp_path_factory.mktemp("own")
    modules = folder / "modules"
    modules.mkdir()
    (modules / "own_networks.py").write_text(NETWORKS)
    (modules / "own_broken.py").write_text("import math\n\nmath.nope\n")
    (modules / "own_needy.py").write_text("import a_library_that_is_missing\n")
    pages = {
        "model/plain": "_target_: own_networks.Plain",
        "model/empty": "",
        "optim/whole": "_target_: torch.optim.RAdam\nlr: 0.001\nweight_decay: 0.0",
        "optim/linear": "_target_: torch.nn.Linear\n_partial_: true\nlr: 0.001\nweight_decay: 0.0",
        "optim/nothing": "_target_: own_networks.optimizer\n_partial_: true\nlr: 0.001\nweight_decay: 0.0",
        "optim/picky": "_target_: own_networks.PickyOptimizer\n_partial_: true\nlr: 0.001\nweight_decay: 0.0",
        "scheduler/whole": "_target_: own_networks.schedule\nwarmup_epochs: 0.0",
        "scheduler/text": "_target_: own_networks.schedule\n_partial_: true\nwarmup_epochs: 0.0",
        "scheduler/step_lr": f"_target_: {STEP}\n_partial_: true\nstep_size: 1\nwarmup_epochs: 0.0",
        "augmentation/alien": "transforms: {turn: {_target_: torchvision.transforms.RandomRotation, degrees: 5}}",
    }
    for name, text in pages.items():
        (folder / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(f"{text}\n")
    sys.path.insert(0, str(modules))
    yield folder
    sys.path.remove(str(modules))


@pytest.fixture
def network(settings: Any) -> Callable[..., tuple[Any, Any]]:
    """Build a network of `own_networks` for the digits: network("Plain", ...) returns it and its summary."""

    def make(name: str, *overrides: str) -> tuple[Any, Any]:
        cfg = OmegaConf.to_container(settings(*overrides))
        common = {key: cfg["model"][key] for key in NETWORK_KEYS}  # type: ignore[index,call-overload]
        cfg["model"] = common | {"_target_": name if "." in name else f"own_networks.{name}"}  # type: ignore[index,call-overload]
        made = OmegaConf.create(cfg)
        assert isinstance(made, DictConfig)
        data, filled_in = make_data(Settings.of(made))
        return make_network(filled_in, data)

    return make


def test_the_keys_that_networks_need_not_take_are_those_of_the_common_page() -> None:
    assert tuple(OmegaConf.load(CONF / "train.yaml").model) == NETWORK_KEYS


@pytest.mark.parametrize("name", ["Plain", "Positional", "Anything", "HandsOn", "Fixed", "Lazy", "Looks", "function"])
def test_a_constructor_gets_those_of_our_keys_that_it_takes(network: Any, name: str) -> None:
    made, summary = network(name)
    assert summary.output_shape == (10,)
    assert summary.parameters == sum(parameter.numel() for parameter in made.parameters())
    assert summary.parameters == 40 + 50 if name != "Lazy" else summary.parameters == 40 + 8 + 900 * 10 + 10
    assert made.training
    assert made(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    if name == "Positional":
        assert made.activation == "relu"
    if name == "Anything":
        assert made.given == sorted(NETWORK_KEYS)


def test_a_function_of_torchvision_gets_the_keys_that_its_class_takes(network: Any) -> None:
    with pytest.raises(UserError, match=r"fails on 1x32x32 images: RuntimeError: .*to have 3 channels, but got 1"):
        network("torchvision.models.resnet18")


@pytest.mark.parametrize(
    "override", ["model.activation=gelu", "batchnorm=before", "batchnorm.eps=0.01", "model.init=keras"]
)
def test_what_was_chosen_is_not_left_out(network: Any, override: str) -> None:
    key = "batchnorm" if override.startswith("batchnorm") else override.removeprefix("model.").split("=")[0]
    with pytest.raises(UserError, match=rf"^model\.{key}: own_networks\.Plain takes no such argument"):
        network("Plain", override)


def test_the_rest_of_a_page_must_be_taken() -> None:
    node = OmegaConf.create({"_target_": "own_networks.Plain", "num_clases": 3, "init": "auto"})
    with pytest.raises(UserError, match=r"^model\.num_clases: own_networks\.Plain .* did you mean 'num_classes'\?$"):
        build(node, "model", optional=["init"])
    nested = {"_target_": "builtins.dict", "inner": [{"_target_": "own_networks.Plain", "num_clases": 3}]}
    with pytest.raises(UserError, match=r"^key\.inner\[0\]\.num_clases: own_networks\.Plain takes no such argument"):
        build(OmegaConf.create(nested), "key")


def test_one_of_ours_that_lacks_an_argument_is_told(network: Any) -> None:
    with pytest.raises(UserError, match=r"^model: convolt\.models\.library\.Torchvision fails: TypeError: .*missing"):
        network("convolt.models.library.Torchvision")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Few", "gives 9 logits, but data=digits has 10 classes"),
        ("Many", "gives 11 logits, but data=digits has 10 classes"),
        ("Pair", "returns a tuple of 2 in evaluation: return logits alone"),
        ("Dictionary", "returns a dict of 1 in evaluation"),
        ("PairInTraining", "returns a tuple of 2 in training: give it an attribute auxiliary_weight"),
        ("Chosen", r"returns a tensor of int64 of shape \(1, 1\)"),
        ("Flat", r"returns a tensor of shape \(10,\) in evaluation"),
        ("Maps", "labels every pixel, but data=digits has one label an image"),
        ("Single", r"gives logits of shape \(10, 1\) for an image"),
        ("Untrainable", "has no parameters to train"),
        ("Raises", r"^model: own_networks\.Raises fails: RuntimeError: no way \(.*own_networks\.py:\d+\)$"),
        ("Colored", r"fails on 1x32x32 images: RuntimeError: .* \(.*own_networks\.py:13\)$"),
        ("Needs", r"^model: own_networks\.Needs fails: TypeError: .*missing 1 required positional argument: 'depth'$"),
        ("Plian", r"^model\._target_=own_networks\.Plian: there is no 'Plian' in own_networks; did you mean 'Plain'"),
        ("number", "is of type int, no class or function"),
        ("not_a_network", r"makes something of type int, no Module of torch"),
        ("torch.nn.functional.Linear", r"there is no 'Linear' in torch\.nn\.functional; did you mean 'linear'"),
        ("torch.optm.Adam", "there is no 'optm' in torch; did you mean 'optim'"),
        ("torch.optim.Adam", r"is no Module of torch"),
        ("convolt.models.lennet.LeNet", "there is no 'lennet' in convolt.models; did you mean 'lenet'"),
        (
            "own_nets.Plain",
            "there is no module 'own_nets'; is it in the working directory, or its folder on PYTHONPATH",
        ),
        ("own_broken.Plain", r"importing own_broken fails: AttributeError: .* \(.*own_broken\.py:3\)$"),
        ("own_needy.Plain", r"importing own_needy fails: ModuleNotFoundError: .*a_library_that_is_missing"),
        ("own networks.Plain", "names nothing: write MODULE.CLASS"),
        ("os.system", "^model: Target 'os.system' is blocklisted because it allows .+"),
    ],
)
def test_what_is_wrong_with_a_network_is_a_line(network: Any, name: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        network(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("model=empty", "model has no _target_"),
        (
            "model=plain +model._partial_=true",
            "model: own_networks.Plain is wanted itself: take `_partial_` out of its page",
        ),
        ("optim=whole", "optim: torch.optim.RAdam gets its first arguments later: add `_partial_: true` to its page"),
        ("optim=linear", r"optim\._target_=torch\.nn\.Linear is no Optimizer of torch"),
        ("optim=nothing", r"optim: own_networks\.optimizer makes something of type NoneType, no Optimizer of torch"),
        ("optim=picky", r"optim: own_networks\.PickyOptimizer fails: ValueError: lr=0\.001 is odd \(.*\.py:\d+\)$"),
        ("scheduler=whole", "scheduler: own_networks.schedule gets its first arguments later"),
        ("scheduler=text", r"is called with \(optimizer, epochs, steps_per_epoch\) and returns something of type str"),
        (
            "scheduler=step_lr",
            r"is called with \(optimizer, epochs, steps_per_epoch\) and fails: TypeError: .* multiple values",
        ),
        ("scheduler.warmup_epochs=3", "a warm-up of 3 epochs does not fit into a run of 1"),
        (
            "augmentation=alien",
            "augmentation.transforms.turn is of type RandomRotation: one of convolt.data.augment's",
        ),
        ("+callbacks.mine._target_=torch.nn.Identity", "is no Callback of pytorch_lightning"),
        ("+callbacks.mine=3", "callbacks.mine=3: set a class or function"),
        (
            "data.source._target_=builtins.object",
            "data.source is of type object: a class with a `name` and `write",
        ),
        (
            "trainer=cpu trainer.devices=[0]",
            r"trainer\.devices=\[0\]: a CPU has no numbered devices; set trainer\.devices=1",
        ),
        ("trainer=cpu trainer.devices=[]", r"trainer\.devices=\[\]: a CPU has no numbered devices"),
        ("trainer.devices=-1", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_another_part_is_a_line_and_nothing_is_left(
    answer: Any, own: Path, data_root: Path, arguments: str, line: str
) -> None:
    status, said = answer(f"--config-dir {own} {arguments} {RUN} data.root={data_root}")
    assert status == 2
    assert len(said.splitlines()) == 1
    assert re.search(line, said), said
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("devices", "line"),
    [
        ([2], "numbered from 0 to 1"),
        ([-1], "numbered from 0 to 1"),
        ([0, 0], "list each device once"),
        ([], "list each device once"),
        ([0, 1, 2], "numbered from 0 to 1"),
        (3, "there are 2 here"),
    ],
)
def test_devices_that_are_not_there_are_told(
    settings: Any, monkeypatch: pytest.MonkeyPatch, devices: Any, line: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    trainer = Settings.of(settings("trainer.accelerator=cuda", "trainer.strategy=ddp")).trainer

    def processes(devices: Any) -> int:
        return Machine.of(trainer.model_copy(update={"devices": devices})).processes

    with pytest.raises(UserError, match=line):
        processes(devices)
    assert processes([1]) == 1
    assert processes([1, 0]) == 2


def test_a_network_of_ones_own_trains_and_is_used_afterwards(own: Path, data_root: Path, tmp_path: Path) -> None:
    """An optimizer that knows no weight decay, and a network that knows none of our keys but the number of classes."""
    page = own / "optim/no_decay.yaml"
    page.write_text("_target_: torch.optim.Rprop\n_partial_: true\nlr: 0.001\nweight_decay: 0.0\n")
    overrides = [f"hydra.searchpath=[file://{own}]", f"data.root={data_root}", "model=plain", "optim=no_decay"]
    result = run(compose([*overrides, *RUN.split()[:-1]]), tmp_path / "run")
    assert result["parameters"] == 90
    assert result["metrics"]["test/loss"] > 0
    task = TrainedRun(tmp_path / "run").task()
    assert summarize_network(task.network, 1, 32, "plain").parameters == 90
    with pytest.raises(UserError, match=r"^optim\.weight_decay: torch\.optim\.Rprop takes no such argument"):
        run(compose([*overrides, *RUN.split()[:-1], "optim.weight_decay=0.1"]), tmp_path / "decayed")
