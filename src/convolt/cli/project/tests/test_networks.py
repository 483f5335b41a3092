"""The network has the shape it should have, all of it learns, and its page builds it."""

import torch
from convolt.config.compose import compose
from hydra.utils import instantiate
from torch.nn import functional as F

from networks import SmallNet


def test_every_parameter_gets_a_gradient() -> None:
    network = SmallNet(in_channels=3, num_classes=10, width=4)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    logits = network(images)
    assert logits.shape == (8, 10)
    F.cross_entropy(logits, labels).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_page_builds_the_network() -> None:
    cfg = compose(["model=mine", "model.width=8", "optim=radam"])
    assert (cfg.model._target_, cfg.model.width) == ("networks.SmallNet", 8)
    network = SmallNet(cfg.model.in_channels, cfg.model.num_classes, cfg.model.width)
    assert sum(parameter.numel() for parameter in network.parameters()) == 6274
    optimizer = instantiate(cfg.optim)(network.parameters())
    assert isinstance(optimizer, torch.optim.RAdam)
