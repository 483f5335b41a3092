"""Write docs/results/plan.csv: what a run of each published row takes on one core of this machine, cheapest first.

python scripts/published_plan.py [--only STUDY ...] [--seconds 1] [--out FILE]

Nothing is trained and no data are read: for each network and shape of its batches some training steps on random bytes
are measured, in processor time, in the precision and memory format that `trainer` chooses. A run is then its epochs of
training images, the evaluations (a third of a step an image) and the test; augmentation, metrics and checkpoints are
not in it, which counts for the smallest networks. Early stopping may end a run before: `at_most`.
`hydra.sweeper.dry_run=true hydra.sweeper.measure=true` measures one study more exactly, where its data are.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.config.settings import Settings
from convolt.system.files import atomic_write
from convolt.system.installation import CONF
from convolt.training.machine import Machine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "plan.csv"
IMAGES = {
    "mnist": (60_000, 10_000),
    "fashion_mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "voc2012": (1_464, 1_449),
}
"""Training and test images of each dataset."""

FORWARD_SHARE = 1 / 3
"""Of a training step's time, an evaluation's."""

LARGE_IMAGE, FEW_IMAGES = 64, 8
"""Wider images are measured in batches of at most so many, which on a CPU take as long an image as large ones."""

COLUMNS = ("study", "row", "seconds_a_run", "at_most", "seeds", "hours_of_all_seeds", "epochs", "training_images",
           "batch_size", "image_size", "images_per_second", "device")  # fmt: skip


def list_rows(only: list[str]) -> list[tuple[str, str, DictConfig, int]]:
    """Return the study, the name, the composed settings and the number of seeds of every published row."""
    found = []
    for path in sorted((CONF / "study").glob("*.yaml")):
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
        for row, each in page["runs"].items():
            if (each or {}).get("published") and (not only or path.stem in only):
                cfg = compose([*page["base"], *each.get("overrides", []), "trainer.threads=1"])
                found.append((path.stem, row, cfg, len(page["seeds"])))
    return found


def describe_steps(cfg: DictConfig) -> str:
    """Return what decides how long a training step takes: the network and the shape of the batch."""
    model = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(model, dict)
    rest = {name: cfg.data[name] for name in ("batch_size", "image_size", "channels")}
    optimizer = str(cfg.optim["_target_"])
    return json.dumps([{key: value for key, value in model.items() if key != "init"}, rest, optimizer], sort_keys=True)


def measure_images_per_second(cfg: DictConfig, seconds: float) -> float:
    """Return how many images are trained in a second of one core.

    Args:
        cfg: The composed settings; pretrained weights are not loaded.
        seconds: Of steps, at least; one step at least.
    """
    machine = Machine.of(Settings.of(cfg).trainer)
    machine.apply()
    torch.manual_seed(0)
    cfg = cfg.copy()
    if cfg.model.get("pretrained"):
        cfg.model.pretrained = False
    network = machine.prepare(build(cfg.model, "model")).to(machine.device)
    optimizer = build(cfg.optim, "optim")(network.parameters())
    side, size = int(cfg.data.image_size), int(cfg.data.batch_size)
    size = min(size, FEW_IMAGES) if side > LARGE_IMAGE else size
    images = torch.randint(256, (size, int(cfg.data.channels), side, side), dtype=torch.uint8).float() / 255
    if machine.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        shape = _as_list(network(images[:2]))[0].shape[2:]
    labels = torch.randint(int(cfg.data.num_classes), (size, *shape))

    def step() -> None:
        optimizer.zero_grad()
        with machine.autocast():
            loss = torch.stack([F.cross_entropy(each, labels) for each in _as_list(network(images))]).sum()
        torch.autograd.backward(loss)
        optimizer.step()

    step()
    steps, began = 0, time.process_time()
    while steps == 0 or time.process_time() - began < seconds:
        step()
        steps += 1
    return steps * size / (time.process_time() - began)


def _as_list(outputs: Any) -> list[Tensor]:
    return [*outputs] if isinstance(outputs, tuple | list) else [outputs]


def count_images(cfg: DictConfig) -> tuple[int, int]:
    """Return the images that a run trains on, and those that it evaluates, over all epochs and the test."""
    train, test = IMAGES[str(cfg.choices.data)]
    held_out = round(train * cfg.data.val_fraction)
    epochs = Settings.of(cfg).epochs
    copies = int(cfg.augmentation.get("copies", 0))
    return epochs * (train - held_out) * (1 + copies), epochs * held_out + test


def main() -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="STUDY", help="these studies alone")
    parser.add_argument("--seconds", type=float, default=1.0, help="of steps, for each network and shape")
    parser.add_argument("--out", type=Path, default=PAGE, help="where to write")
    arguments = parser.parse_args()
    speeds: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for study, row, cfg, seeds in list_rows(arguments.only):
        key = describe_steps(cfg)
        if key not in speeds:
            speeds[key] = measure_images_per_second(cfg, arguments.seconds)
            print(f"{study}, {row}: {speeds[key]:,.1f} images/s", flush=True)
        trained, evaluated = count_images(cfg)
        seconds = (trained + FORWARD_SHARE * evaluated) / speeds[key]
        rows.append(
            {
                "study": study,
                "row": row,
                "seconds_a_run": round(seconds),
                "at_most": "yes" if Settings.of(cfg).trainer.early_stopping.patience is not None else "",
                "seeds": seeds,
                "hours_of_all_seeds": f"{seconds * seeds / 3600:.2f}",
                "epochs": Settings.of(cfg).epochs,
                "training_images": trained,
                "batch_size": cfg.data.batch_size,
                "image_size": cfg.data.image_size,
                "images_per_second": f"{speeds[key]:.4g}",
                "device": Machine.of(Settings.of(cfg).trainer).device_name,
            }
        )
    rows.sort(key=lambda each: (each["seconds_a_run"], each["study"], each["row"]))
    with atomic_write(arguments.out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    hours = sum(float(each["hours_of_all_seeds"]) for each in rows)
    print(f"{len(rows)} rows, {len(speeds)} measured, {hours:,.0f} hours of one core with all seeds: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
