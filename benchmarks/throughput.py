"""Training images a second: ours against the limit and against the usual pipeline, measured in turn.

    python benchmarks/throughput.py [--workloads lenet_mnist ...] [--rounds 5] [--images N] [--out FILE]

- limit: a plain PyTorch loop over standardized tensors on the device; same precision, memory format and optimizer.
- ours: `convolt.training.run.run` with all metrics, logging, checkpoints and the progress bar; the training part of
  its second epoch.
- usual: torchvision's per-image transforms in a DataLoader with worker processes, float32, as common templates have it;
  on 51,200 images at most.

Images are random bytes of the dataset's shape, so nothing is downloaded, and so many that the limit's epoch lasts half
a second. Each round measures all three in turn; a ratio is the median of the rounds' ratios, with the smallest and the
largest beside it. The utilisation is the share of the operations a second of a large matrix product in the same
precision. Prints a table, writes JSON.
"""

from convolt.system.cores import spin_briefly  # isort: skip

spin_briefly()  # as train.py does, before torch is imported

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.config.settings import Settings
from convolt.models.summary import count_multiply_adds
from convolt.runs.history import read_rows
from convolt.training.compilation import FLOPS_PER_MULTIPLY_ADD
from convolt.training.machine import Machine
from convolt.training.run import run
from machine import this_machine, write

WORKLOADS: dict[str, dict[str, Any]] = {
    "lenet_mnist": {"model": "lenet", "shape": (28, 1), "padding": 2},
    "resnet18_cifar10": {"model": "resnet18", "shape": (32, 3), "padding": 0},
    "vgg16_cifar10": {"model": "vgg16", "shape": (32, 3), "padding": 0},
    "mobilenet_cifar10": {"model": "mobilenet", "shape": (32, 3), "padding": 0},
}


LEAST_SECONDS = 0.5
"""What is measured lasts at least so long."""

MOST_IMAGES = 2**20


def arrays(folder: Path, side: int, channels: int, images: int) -> Path:
    """Write random images and labels of ten classes as data=arrays reads them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", images), ("test", 256)):
        np.save(folder / f"x_{split}.npy", random.integers(0, 256, (count, side, side, channels), np.uint8))
        np.save(folder / f"y_{split}.npy", np.arange(count) % 10)
    return folder


def settings(workload: dict[str, Any], folder: Path, batch_size: int, options: list[str]) -> Any:
    """Compose the run that is measured."""
    side, channels = workload["shape"]
    return compose(
        [
            f"model={workload['model']}",
            "data=arrays",
            f"data.path={folder / 'arrays'}",
            f"data.root={folder / 'data'}",
            f"data.padding={workload['padding']}",
            f"data.image_size={side + 2 * workload['padding']}",
            f"data.channels={channels}",
            "data.num_classes=10",
            "data.val_fraction=0",
            f"data.batch_size={batch_size}",
            "augmentation=crop_flip",
            "optim=momentum",
            "trainer.max_epochs=2",
            "pictures.enabled=false",
            *options,
        ]
    )


def network_of(cfg: Any) -> nn.Module:
    network: nn.Module = build(cfg.model, "model")
    return network


def steps(
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    device: str,
    precision: str,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Train on the batches; return the number of images."""
    seen = 0
    for images, targets, *_ in batches:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = F.cross_entropy(network(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seen += len(images)
    if device == "cuda":
        torch.cuda.synchronize()
    return seen


def limit(cfg: Any, folder: Path, batch_size: int) -> float:
    """Measure the plain loop over tensors on the device."""
    resolved = Machine.of(Settings.of(cfg).trainer)
    resolved.apply()  # cuDNN's choice among others, which a run would make for the later rounds alone
    machine = this_machine()
    device, precision = machine.device.type, machine.precision
    images = torch.from_numpy(np.load(folder / "arrays/x_train.npy")).to(device)
    images = F.pad(images, (0, 0, *(cfg.data.padding,) * 4)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    targets = torch.from_numpy(np.load(folder / "arrays/y_train.npy")).to(device)
    network = network_of(cfg).to(device)
    if machine.channels_last:
        images, network = (
            images.contiguous(memory_format=torch.channels_last),
            network.to(memory_format=torch.channels_last),
        )
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=resolved.fused)
    batches = list(zip(images.split(batch_size), targets.split(batch_size), strict=True))
    steps(network, iter([*batches[:3], batches[-1]]), device, precision, optimizer)
    started, seen, seconds = time.perf_counter(), 0, 0.0
    while seconds < LEAST_SECONDS:
        seen += steps(network, iter(batches), device, precision, optimizer)
        seconds = time.perf_counter() - started
    return seen / seconds


def enough_images(name: str, batch_size: int, options: list[str], least: int) -> int:
    """Return how many images, whole batches of them, an epoch must have to last long enough to be measured."""
    workload = WORKLOADS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        arrays(folder / "arrays", *workload["shape"], least)
        rate = limit(settings(workload, folder, batch_size, options), folder, batch_size)
    wanted = min(max(least, int(rate * LEAST_SECONDS)), MOST_IMAGES)
    return -(-wanted // batch_size) * batch_size


def ours(cfg: Any, folder: Path, name: str) -> float:
    """Measure a run as on a terminal; its first epoch is the warm-up."""
    os.environ["FORCE_COLOR"] = "1"  # shows the bar
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        run(cfg, folder / "runs" / name)
    return read_rows(folder / "runs" / name / "metrics.csv")[1]["images_per_second"]


def peak(device: str, precision: str) -> float:
    """Return the multiply-adds a second of a large matrix product, the best of five."""
    side = 8192 if device == "cuda" else 2048
    kind = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return side**3 / min(seconds[1:])


class PerImage(Dataset[Any]):
    """One transformed image at a time."""

    def __init__(self, folder: Path, padding: int) -> None:
        from torchvision import transforms

        self.images = np.load(folder / "arrays/x_train.npy")
        self.targets = np.load(folder / "arrays/y_train.npy")
        channels, side = self.images.shape[3], self.images.shape[1] + 2 * padding
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.Pad(padding),
                transforms.RandomCrop(side, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * channels, [0.5] * channels),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.targets[index])


def usual(cfg: Any, folder: Path, batch_size: int) -> float:
    """Measure the DataLoader with per-image transforms, float32; the start of its workers is not counted."""
    machine = this_machine()
    device, workers = machine.device.type, min(8, max(2, machine.threads))
    loader = DataLoader(
        PerImage(folder, cfg.data.padding), batch_size, shuffle=True, num_workers=workers, pin_memory=device == "cuda"
    )
    network = network_of(cfg).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    batches = ((x.to(device, non_blocking=True), y.to(device, non_blocking=True)) for x, y in loader)
    steps(network, iter([next(batches)]), device, "32-true", optimizer)
    started = time.perf_counter()
    measured = itertools.islice(batches, max(1, 51_200 // batch_size))
    return steps(network, measured, device, "32-true", optimizer) / (time.perf_counter() - started)


def measure(
    name: str, images: int, batch_size: int, rounds: int, options: list[str], *, with_usual: bool
) -> dict[str, Any]:
    """Measure a workload in turn, round by round."""
    workload = WORKLOADS[name]
    seen: dict[str, list[float]] = {"limit": [], "ours": []} | ({"usual": []} if with_usual else {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        arrays(folder / "arrays", *workload["shape"], images)
        cfg = settings(workload, folder, batch_size, options)
        for turn in range(rounds):
            seen["limit"].append(limit(cfg, folder, batch_size))
            seen["ours"].append(ours(cfg, folder, str(turn)))
            if with_usual:
                seen["usual"].append(usual(cfg, folder, batch_size))
    machine = Machine.of(Settings.of(cfg).trainer)
    macs = count_multiply_adds(network_of(cfg), cfg.data.channels, cfg.data.image_size) * FLOPS_PER_MULTIPLY_ADD / 2
    rate = statistics.median(seen["ours"])
    return {
        "workload": name,
        "batch_size": batch_size,
        "images": images,
        "options": options,
        "threads": torch.get_num_threads(),
        "images_per_second": {what: [round(rate, 1) for rate in rates] for what, rates in seen.items()},
        "medians": {what: round(statistics.median(rates), 1) for what, rates in seen.items()},
        "ours_to_limit": ratio(seen["ours"], seen["limit"]),
        "ours_to_usual": ratio(seen["ours"], seen["usual"]) if with_usual else None,
        "utilisation": round(rate * macs / peak(machine.device.type, machine.precision), 3),
    }


def ratio(ours: list[float], other: list[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest of the rounds' ratios."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, help="training images of an epoch; default: by workload and device")
    parser.add_argument("--batch-size", type=int, help="default: 512 on a GPU, 128 on a CPU")
    parser.add_argument("--no-usual", action="store_true", help="leave out the usual pipeline")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("options", nargs="*", help="of ours: trainer.compile=true, trainer.threads=1")
    arguments = parser.parse_args()
    device = this_machine().device.type
    threads = next((o.split("=")[1] for o in arguments.options if o.startswith("trainer.threads=")), "auto")
    torch.set_num_threads(this_machine(f"trainer.threads={threads}").threads)
    batch_size = arguments.batch_size or (512 if device == "cuda" else 128)
    found = []
    for name in arguments.workloads:
        least = 1_280 if device == "cpu" and name != "lenet_mnist" else 51_200
        images = arguments.images or enough_images(name, batch_size, arguments.options, least)
        one = measure(name, images, batch_size, arguments.rounds, arguments.options, with_usual=not arguments.no_usual)
        found.append(one)
        rates = "  ".join(f"{what} {rate:>9,.0f}" for what, rate in one["medians"].items())
        ratios = "  ".join(
            f"ours/{what} {one[key]['median']:.2f} ({one[key]['least']:.2f} to {one[key]['most']:.2f})"
            for what, key in (("limit", "ours_to_limit"), ("usual", "ours_to_usual"))
            if one[key]
        )
        print(f"{name:<18} {rates} images/s  {ratios}  utilisation {one['utilisation']:.1%}", flush=True)
    write(found, arguments.out)


if __name__ == "__main__":
    main()
