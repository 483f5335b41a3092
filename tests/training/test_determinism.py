"""Bit-equal training, step after step, of every network and with every augmentation; on one thread of a CPU."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from convolt.system.installation import CONF
from convolt.training.trainer import _callbacks
from models.networks import build, build_meta, names, smallest_size, table
from models.repeatable import UNREPEATABLE, Recorded, training_operations

AUGMENTATIONS = sorted(path.stem for path in (CONF / "augmentation").glob("*.yaml"))


@pytest.fixture
def deterministic() -> Iterator[None]:
    """What trainer.deterministic=true asks of PyTorch: an operation without a repeatable form is an error."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


SMALLER = {"layers": 1, "widths": 16, "growth": 4, "width": 8, "hidden": 16, "depth": 10, "width_multiplier": 0.25}
"""Values of keys that make a network shallow or narrow, of each of their entries where they have several."""


def small(name: str) -> tuple[str, ...]:
    """Find overrides that make a network small and leave it every kind of layer that it has."""
    node, kept = table()._composed(name).model, []
    for key, value in SMALLER.items():
        if node.get(key) is None:
            continue
        entries = len(node[key]) if OmegaConf.is_list(node[key]) else 0
        override = f"model.{key}={[value] * entries if entries else value}"
        with suppress(Exception):  # not every network can be of this size
            build_meta(name, *kept, override, size=smallest_size(name))
            kept.append(override)
    return tuple(kept)


def trained(network: nn.Module, size: int) -> dict[str, Tensor]:
    """Train for two steps, and return the state."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(2):
        outputs = network(torch.randn(2, 3, size, size))
        heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        loss = sum((F.cross_entropy(head, torch.arange(2)) for head in heads), start=torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("name", names())
def test_every_network_trains_to_the_same_bits(deterministic: None, name: str) -> None:
    overrides, size = small(name), smallest_size(name)
    torch.manual_seed(0)
    network = build(name, *overrides, size=size)
    torch.manual_seed(0)
    again = trained(build(name, *overrides, size=size), size)
    first = trained(copy.deepcopy(network), size)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(value, first[key]) for key, value in network.state_dict().items())
    assert training_operations(build_meta(name, *overrides, size=size), size).isdisjoint(UNREPEATABLE)  # on a GPU


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_augmentation_gives_the_same_bits(train: Any, augmentation: str) -> None:
    options = (f"augmentation={augmentation}", "trainer.deterministic=true", "data.train_size=64", "model.dropout=0.2")
    with Recorded() as recorded:
        first = train(*options, "trainer.max_epochs=1", directory="a")
    assert recorded.names.isdisjoint(UNREPEATABLE)
    again = train(*options, "trainer.max_epochs=1", directory="b")
    assert first["metrics"] == again["metrics"]
    assert first["confusion_matrix"] == again["confusion_matrix"]


def test_deterministic_reaches_pytorch(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            seen.append(torch.are_deterministic_algorithms_enabled())

    monkeypatch.setattr("convolt.training.trainer._callbacks", lambda *a, **k: [Look(), *_callbacks(*a, **k)])
    train("trainer.deterministic=true", "debug=smoke", directory="a")
    train("debug=smoke", directory="b")
    assert seen == [True, False]
