"""How cost grows: with the dataset, the minibatch, the image and the number of classes.

    python benchmarks/scaling.py [--rounds 3] [--largest 160000] [--out FILE]

Of each it measures a row of doublings and fits the exponent of cost ~ size^exponent (least squares of the logarithms):
1 is linear, less is better, 0 does not grow. What is measured:

- preparation of a dataset (arrays to prepared arrays) by its images
- an epoch of the loader with crop and flip by its images
- the same images by the size of the minibatch, by the area of an image
- the metrics of an epoch by its images, by the number of classes
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convolt.data.augment import Augmentation
from convolt.data.loader import BatchLoader, Preprocessing
from convolt.data.prepare import prepare
from convolt.data.sources.arrays import Arrays
from convolt.data.transforms import Crop, Flip
from convolt.metrics.images import ImageMetrics
from machine import this_machine, write

DEVICE = this_machine().device


def bytes_of(images: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8)


def preparation(images: int) -> Callable[[], None]:
    """Prepare so many 16x16 images."""
    arrays = {"x_train": bytes_of(images, 16).numpy(), "y_train": np.arange(images) % 10}
    arrays |= {"x_test": arrays["x_train"][:100], "y_test": arrays["y_train"][:100]}

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, array in arrays.items():
                np.save(Path(folder) / f"{name}.npy", array)
            prepare(Arrays(folder), Path(folder) / "data")

    return work


def epoch(images: int, batch_size: int = 128, side: int = 32) -> Callable[[], None]:
    """Go through an epoch of augmented minibatches."""
    loader = BatchLoader(
        bytes_of(images, side).to(DEVICE),
        torch.arange(images, device=DEVICE) % 10,
        torch.arange(images),
        Preprocessing(0, side, [0.5] * 3, [0.2] * 3, DEVICE),
        batch_size,
        DEVICE,
        epoch=lambda: 0,
        augmentation=Augmentation({"crop": Crop(4), "flip": Flip()}),
    )

    def work() -> None:
        for _ in loader:
            pass
        _wait()

    return work


def metrics(images: int, classes: int = 10) -> Callable[[], None]:
    """Compute the metrics of an epoch."""
    kept = ImageMetrics(classes, training=False).to(DEVICE)
    logits = torch.randn(256, classes, device=DEVICE)
    targets = torch.arange(256, device=DEVICE) % classes

    def work() -> None:
        for _ in range(images // 256):
            kept.add(logits, targets, logits.mean())
        kept.compute()
        _wait()

    return work


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def doublings(largest: int, times: int = 4) -> list[int]:
    return [largest // 2**k for k in reversed(range(times))]


def rows(largest: int) -> dict[str, tuple[list[int], Callable[[int], Callable[[], None]]]]:
    """Return what is measured: sizes, and what to do at each."""
    fixed = max(1024, largest // 8)
    return {
        "preparation by images": (doublings(largest), preparation),
        "loader by images": (doublings(largest), epoch),
        "loader by batch size": ([32, 64, 128, 256, 512], lambda size: epoch(fixed, batch_size=size)),
        "loader by pixels": (
            [16**2, 24**2, 32**2, 48**2, 64**2, 96**2],
            lambda pixels: epoch(max(256, fixed // 8), side=math.isqrt(pixels)),
        ),
        "metrics by images": (doublings(largest), metrics),
        "metrics by classes": ([10, 20, 50, 100, 200, 500, 1000], lambda classes: metrics(fixed, classes)),
    }


def seconds(work: Callable[[], None], rounds: int) -> float:
    work()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Fit the slope of log cost over log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=160_000, help="images of the largest dataset")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(this_machine().threads)
    found: dict[str, Any] = {}
    for name, (sizes, make) in rows(arguments.largest).items():
        costs = [seconds(make(size), arguments.rounds) for size in sizes]
        found[name] = {
            "sizes": sizes,
            "seconds": [float(f"{cost:.4g}") for cost in costs],
            "exponent": round(exponent(sizes, costs), 2),
        }
        print(f"{name:<24} {sizes[0]:>6,} to {sizes[-1]:>7,}: exponent {found[name]['exponent']:>5}", flush=True)
    write(found, arguments.out)


if __name__ == "__main__":
    main()
