"""Side by side with what people use: the same network on the same images, trained in turn.

    python benchmarks/peers.py [--workloads lenet_mnist ...] [--threads 1 2] [--rounds 3] [--steps N] [--out FILE]

- ours: `convolt.training.run.run` with all metrics, logging, checkpoints and the bar; the training of its second epoch,
  with the metrics and all that is logged, but without the checkpoint, which benchmarks/checkpoints.py measures.
- limit: a plain PyTorch loop over standardized tensors on the device, which neither shuffles nor augments.
- plain: the loop of examples/plain_loop.py, which shuffles, crops and flips as ours does.
- usual: torchvision's transforms of single images in a DataLoader.
- lightning: a Lightning Trainer with its defaults over the batches of `plain`; metrics at every step, as it is taught.

All compute in the precision that `trainer.precision=auto` chooses. Ours, limit and plain keep channels last in memory
where ours would; the others have PyTorch's format. On a CPU one thread is pinned to one core, and what counts is
processor time, that of child processes included; then two to two, where the clock counts, since threads that wait spin.
`tiny` is a network whose step is all Python: the host's cost of a step. Each round measures all in turn; a ratio is the
median of the rounds' ratios, above 1 where ours is faster, with the smallest and the largest. Images are random bytes,
so nothing is downloaded; on a GPU so many that the limit's epoch lasts half a second. The utilisation is ours' share of
the operations a second of a large matrix product in the same precision. Prints a table, writes JSON.
"""

from convolt.system.cores import spin_briefly  # isort: skip

spin_briefly()  # as train.py does, before torch is imported

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contenders import CONTENDERS, LEAST_SECONDS, Course, Spent, limit, pin
from convolt.config.compose import compose
from convolt.models.summary import count_multiply_adds
from convolt.training.compilation import FLOPS_PER_MULTIPLY_ADD
from machine import this_machine, write

TINY = ["model._target_=contenders.Tiny", "~model.pooling", "~model.dropout", "trainer.precision=32-true"]
WORKLOADS: dict[str, dict[str, Any]] = {
    "tiny": {"model": "lenet", "shape": (8, 1), "padding": 0, "steps": 6000, "options": TINY},
    "lenet_mnist": {"model": "lenet", "shape": (28, 1), "padding": 2, "steps": 100},
    "resnet20_cifar10": {"model": "resnet20", "shape": (32, 3), "padding": 0, "steps": 6},
    "resnet18_cifar10": {"model": "resnet18", "shape": (32, 3), "padding": 0, "steps": 2},
    "vgg16_cifar10": {"model": "vgg16", "shape": (32, 3), "padding": 0, "steps": 3},
    "mobilenet_cifar10": {"model": "mobilenet", "shape": (32, 3), "padding": 0, "steps": 3},
}
"""By name; `steps` are those of an epoch on a CPU."""

TINY_BATCH = 8
TINY_CONTENDERS = ("limit", "ours", "lightning")
MOST_IMAGES = 2**20


def write_arrays(folder: Path, side: int, channels: int, images: int) -> Path:
    """Write random images and labels of ten classes as data=arrays reads them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", images), ("test", 16)):
        np.save(folder / f"x_{split}.npy", random.integers(0, 256, (count, side, side, channels), np.uint8))
        np.save(folder / f"y_{split}.npy", np.arange(count) % 10)
    return folder


def settings(name: str, folder: Path, batch_size: int, options: Sequence[str]) -> Any:
    """Compose the run of ours, which the others are to resemble."""
    workload = WORKLOADS[name]
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
            f"augmentation={'none' if name == 'tiny' else 'crop_flip'}",
            "optim=momentum",
            "optim.lr=0.001",
            "trainer.max_epochs=2",
            "trainer.test=none",
            "pictures.enabled=false",
            *workload.get("options", ()),
            *options,
        ]
    )


def enough_images(name: str, batch_size: int, options: Sequence[str], least: int) -> int:
    """Return how many images, whole batches of them, an epoch must have to last long enough on a GPU."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_arrays(folder / "arrays", *WORKLOADS[name]["shape"], least)
        spent = limit(Course(settings(name, folder, batch_size, options), folder))
    wanted = min(max(least, int(spent.images / spent.clock * LEAST_SECONDS)), MOST_IMAGES)
    return -(-wanted // batch_size) * batch_size


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


def measure(
    name: str, images: int, batch_size: int, rounds: int, options: Sequence[str], contenders: Sequence[str]
) -> dict[str, Any]:
    """Measure a workload in turn, round by round."""
    seen: dict[str, list[Spent]] = {who: [] for who in contenders}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_arrays(folder / "arrays", *WORKLOADS[name]["shape"], images)
        course = Course(settings(name, folder, batch_size, options), folder)
        for _ in range(rounds):
            for who in contenders:
                seen[who].append(CONTENDERS[who](course))
        network, data, machine = course.network(as_ours=False), course.cfg.data, course.machine
    rates = {who: [spent.images / spent.clock for spent in all_] for who, all_ in seen.items()}
    costs = {who: [1e6 * s.processor / s.images * batch_size for s in all_] for who, all_ in seen.items()}
    macs = count_multiply_adds(network.cpu(), data.channels, data.image_size) * FLOPS_PER_MULTIPLY_ADD / 2
    by_clock = {f"ours_to_{who}": compare(rates["ours"], rates[who]) for who in contenders if who != "ours"}
    by_processor = {f"ours_to_{who}": compare(costs[who], costs["ours"]) for who in contenders if who != "ours"}
    return {
        "workload": name,
        "batch_size": batch_size,
        "images": images,
        "options": list(options),
        "threads": machine.threads,
        "precision": machine.precision,
        "images_per_second": {who: [round(rate, 1) for rate in all_] for who, all_ in rates.items()},
        "medians": {who: round(statistics.median(all_), 1) for who, all_ in rates.items()},
        **by_clock,
        "processor": {
            "microseconds_a_step": {who: [round(cost, 1) for cost in all_] for who, all_ in costs.items()},
            "medians": {who: round(statistics.median(all_), 1) for who, all_ in costs.items()},
            **by_processor,
        },
        "utilisation": round(statistics.median(rates["ours"]) * macs / peak(machine.device.type, machine.precision), 3),
    }


def compare(ours: list[float], other: list[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest of the rounds' ratios."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def show(found: dict[str, Any]) -> None:
    """Print what was measured of a workload."""
    print(f"{found['workload']}, batch {found['batch_size']}, {found['threads']} threads, {found['precision']}")
    for who, rate in found["medians"].items():
        line = (
            f"  {who:<10} {rate:>10,.0f} images/s {found['processor']['medians'][who]:>12,.0f} us of processors a step"
        )
        if who != "ours":
            for kind, ratios in (("processor", found["processor"]), ("clock", found)):
                one = ratios[f"ours_to_{who}"]
                line += f"   by {kind} {one['median']:.2f} ({one['least']:.2f} to {one['most']:.2f})"
        print(line)
    print(f"  utilisation {found['utilisation']:.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS)[:4])
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of a CPU; default: one, then two")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of an epoch; default: by workload and device")
    parser.add_argument("--batch-size", type=int, help="default: 512 on a GPU, 128 on a CPU")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("options", nargs="*", help="of all: trainer.precision=32-true; of ours: trainer.compile=true")
    arguments = parser.parse_args()
    on_gpu = this_machine().device.type == "cuda"
    found = []
    for threads in [None] if on_gpu else sorted(arguments.threads):
        options = list(arguments.options)
        if threads:
            pin(threads)
            options.append(f"trainer.threads={threads}")
        for name in arguments.workloads:
            batch_size = arguments.batch_size or (512 if on_gpu else 128)
            contenders = arguments.contenders
            if name == "tiny":
                batch_size, contenders = TINY_BATCH, [who for who in contenders if who in TINY_CONTENDERS]
                if threads != min(arguments.threads):
                    continue
            images = (arguments.steps or WORKLOADS[name]["steps"]) * batch_size
            if on_gpu and not arguments.steps and name != "tiny":
                images = enough_images(name, batch_size, options, 51_200)
            found.append(measure(name, images, batch_size, arguments.rounds, options, contenders))
            show(found[-1])
    write(found, arguments.out)


if __name__ == "__main__":
    main()
