"""Write docs/networks.md, the table of every network of conf/model.

python scripts/networks_table.py                  write the page
python scripts/networks_table.py --check          exit 1 if the page or a parameter count in a YAML's header is stale
python scripts/networks_table.py --overfit NAME   train a network on 64 images until it knows them (no name: all)
"""

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn
from torch.fx import Node, Tracer

from convolt.config.pages import kept_pages
from convolt.errors import UserError
from convolt.models.blocks import SqueezeExcitation
from convolt.models.summary import count_multiply_adds
from convolt.system.installation import CONF

ROOT = Path(__file__).resolve().parent.parent
MODELS = CONF / "model"
PAGE = ROOT / "docs" / "networks.md"
HEADER = re.compile(
    r"^# (?P<title>[^:\n]+): (?P<paper>.+)\n"
    r"# (?P<parameters>[\d,]+) parameters at (?P<channels>\d+)x(?P<size>\d+)x(?P=size), (?P<classes>\d+) classes"
    r"(?P<of_pixels> of pixels)?$",
    re.MULTILINE,
)
SMALL = (3, 32, 10)
"""Channels, size and classes of the columns that all networks share: CIFAR-10's."""


@dataclass(frozen=True)
class Count:
    """Parameters and multiply-adds of a network for one size of images."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Row:
    """A line of the table: what a YAML's header says and what was counted."""

    name: str
    title: str
    paper: str
    header_parameters: int
    channels: int
    size: int
    classes: int
    depth: int
    own: Count
    small: Count | None


def names(*, of_pixels: bool = False) -> list[str]:
    """The options of the group `model` that are one network each: those whose header tells parameters.

    Args:
        of_pixels: Those that label every pixel, instead of those that label images.
    """
    found = []
    for path in sorted(MODELS.rglob("*.yaml")):
        match = HEADER.search(path.read_text())
        if match and bool(match["of_pixels"]) == of_pixels:
            found.append(str(path.relative_to(MODELS).with_suffix("")))
    return found


@cache
def _composed(name: str) -> DictConfig:
    with kept_pages(), initialize_config_dir(str(CONF), version_base=None):
        return compose("train", [f"model={name}"])


def build(name: str, channels: int, size: int, classes: int, overrides: Iterable[str] = ()) -> nn.Module:
    """Build a network as `python train.py model=NAME key=value...` does, for images of channels x size x size."""
    cfg = _composed(name).copy()
    sizes = [f"model.in_channels={channels}", f"model.image_size={size}", f"model.num_classes={classes}"]
    cfg.merge_with_dotlist([*sizes, *overrides])
    try:
        network: nn.Module = instantiate(cfg.model)
    except InstantiationException as error:
        raise (error.__cause__ if isinstance(error.__cause__, UserError) else error) from None
    return network


class WeightTracer(Tracer):
    """Traces down to single layers; squeeze and excitation stays whole, for papers do not count it as depth."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether to look inside a module."""
        return isinstance(m, SqueezeExcitation) or super().is_leaf_module(m, module_qualified_name)


def depth(network: nn.Module) -> int:
    """Count the convolutions and dense layers on the longest way from the image to the logits."""
    graph = WeightTracer().trace(network.eval())
    longest: dict[Node, int] = {}
    for node in graph.nodes:
        weighted = node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), nn.Conv2d | nn.Linear
        )
        longest[node] = max((longest[source] for source in node.all_input_nodes), default=0) + weighted
    return max(longest.values())


def row(name: str) -> Row:
    """Build and count one network."""
    match = HEADER.search((MODELS / f"{name}.yaml").read_text())
    assert match is not None, f"conf/model/{name}.yaml lacks its header"
    channels, size, classes = (int(match[key]) for key in ("channels", "size", "classes"))
    with torch.device("meta"):
        network = build(name, channels, size, classes)
        own = _count(network, channels, size)
        try:
            at_32 = (channels, size, classes) == SMALL
            small: Count | None = own if at_32 else _count(build(name, *SMALL), *SMALL[:2])
        except UserError:
            small = None
    return Row(
        name=name,
        title=match["title"],
        paper=match["paper"],
        header_parameters=int(match["parameters"].replace(",", "")),
        channels=channels,
        size=size,
        classes=classes,
        depth=depth(network),
        own=own,
        small=small,
    )


def _count(network: nn.Module, channels: int, size: int) -> Count:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Count(parameters, count_multiply_adds(network, channels, size))


def page(rows: list[Row], of_pixels: list[Row]) -> str:
    """Render the page from the networks that label images, and those that label pixels."""
    own = [row for row in rows if "/" not in row.name]
    reports = [row for row in rows if "/" in row.name]
    return "\n".join(
        [
            "# Networks",
            "",
            "Made by `python scripts/networks_table.py` from `conf/model`; do not edit.",
            "",
            "Choose one by `model=<config>`; `model=torchvision model.name=...` and `model=timm model.name=...` give",
            "any network of those libraries. Parameters are what is learnt (no batch-norm statistics), auxiliary",
            "heads included. Multiply-adds are those of convolutions and dense layers for one image in eval mode,",
            "what the papers call FLOPs, in millions. Depth is the number of such layers on the longest way from the",
            "image to the logits (a Wide ResNet's name counts its three shortcut convolutions too). The first count",
            "is at the network's own size of images and number of classes, the second at 3x32x32 and 10 classes,",
            "where stems and heads that are `auto` take their small form.",
            "",
            "## Networks of papers",
            "",
            *_table(own),
            "",
            "## Networks of the five reports",
            "",
            "Where they differ from those above; the folder is the report's name.",
            "",
            *_table(reports),
            "",
            "## Networks that label every pixel",
            "",
            "For `data=shapes`, `data=masks` and `data=voc2012`; below 128x128 images they take a quarter of VGG16's",
            "widths and a small head where `model.width`, `model.hidden` and `model.head_kernel` are null.",
            "",
            *_table(of_pixels),
            "",
        ]
    )


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| config | network | depth | own size | parameters | M mult-adds | at 3x32x32 | M mult-adds | paper |"
    yield "|---|---|--:|---|--:|--:|--:|--:|---|"
    for row in rows:
        small = (f"{row.small.parameters:,}", _millions(row.small)) if row.small else ("too small", "")
        cells = [
            f"`{row.name}`",
            row.title,
            str(row.depth),
            f"{row.channels}x{row.size}x{row.size}, {row.classes}",
            f"{row.own.parameters:,}",
            _millions(row.own),
            *small,
            row.paper,
        ]
        yield f"| {' | '.join(cells)} |"


def _millions(count: Count) -> str:
    return f"{count.macs / 1e6:,.1f}"


def problems(rows: list[Row], of_pixels: list[Row]) -> list[str]:
    """Tell what is stale: the page, or a header's count."""
    found = [
        f"{row.name}.yaml: its header says {row.header_parameters:,} parameters; it has {row.own.parameters:,}"
        for row in (*rows, *of_pixels)
        if row.header_parameters != row.own.parameters
    ]
    if not PAGE.exists() or PAGE.read_text() != page(rows, of_pixels):
        found.append("docs/networks.md is stale: run python scripts/networks_table.py")
    return found


def digits(channels: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """64 images of scikit-learn's digits, (64, channels, size, size) with mean 0 and deviation 1, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:64], dtype=torch.float32)[:, None]
    images = nn.functional.interpolate((images - images.mean()) / images.std(), (size, size), mode="bilinear")
    return images.expand(-1, channels, -1, -1).contiguous(), torch.tensor(data.target[:64])


def overfit(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int,
    rate: float = 1e-3,
    bfloat16: bool = False,
) -> int:
    """Train with Adam on one batch, without dropout, until every image is classified rightly.

    Returns:
        The number of steps, or 0 when they were not enough.
    """
    optimizer = torch.optim.Adam(network.parameters(), rate)
    network.train()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    for step in range(steps + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = network(images)
        heads = [head.float() for head in (outputs if isinstance(outputs, tuple) else (outputs,))]
        if bool((heads[0].argmax(1) == labels).all()):
            return step
        weights = [1.0, *[0.3] * (len(heads) - 1)]
        losses = [w * nn.functional.cross_entropy(head, labels) for w, head in zip(weights, heads, strict=True)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the page or a header is stale")
    parser.add_argument("--overfit", nargs="*", metavar="NAME", help="train networks (all of them) on 64 images")
    options = parser.parse_args(arguments)
    if options.overfit is not None:
        return _overfit_all(options.overfit or names())
    rows, of_pixels = ([row(name) for name in names(of_pixels=kind)] for kind in (False, True))
    count = len(rows) + len(of_pixels)
    if options.check:
        found = problems(rows, of_pixels)
        print("\n".join(found) or f"docs/networks.md is up to date: {count} networks")
        return 1 if found else 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(rows, of_pixels))
    stale = problems(rows, of_pixels)
    print("\n".join(stale) or f"docs/networks.md: {count} networks")
    return 1 if stale else 0


def _overfit_all(chosen: list[str]) -> int:
    failed = 0
    for name in chosen:
        torch.manual_seed(0)
        match = HEADER.search((MODELS / f"{name}.yaml").read_text())
        size = 64 if match and name in ("srivastava2020/alexnet", "masilamani2021/alexnet") else 32
        start = time.perf_counter()
        network = build(name, 1, size, 10)
        rate = 3e-4 if any(part in name for part in ("vgg", "alexnet", "googlenet")) else 1e-3
        steps = overfit(network, *digits(1, size), steps=600, rate=rate, bfloat16=True)
        failed += not steps
        print(
            f"{name}: {f'{steps} steps' if steps else 'NOT LEARNT'} ({time.perf_counter() - start:.0f} s)", flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
