"""Build the networks of conf/model in tests, by the functions of scripts/networks_table.py."""

import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


@lru_cache
def table() -> ModuleType:
    """scripts/networks_table.py as a module."""
    spec = importlib.util.spec_from_file_location("networks_table", ROOT / "scripts" / "networks_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["networks_table"] = module
    spec.loader.exec_module(module)
    return module


def names(*, of_pixels: bool = False) -> list[str]:
    return table().names(of_pixels=of_pixels)


def build(name: str, *overrides: str, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
    return table().build(name, channels, size, classes, overrides)


def build_meta(name: str, *overrides: str, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return build(name, *overrides, channels=channels, size=size, classes=classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def smallest_size(name: str) -> int:
    """32, or 64 for the two AlexNets whose stem is the ImageNet one at every size."""
    return 64 if name in ("srivastava2020/alexnet", "masilamani2021/alexnet") else 32
