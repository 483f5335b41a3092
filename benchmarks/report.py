"""Seconds and memory of a report on 200 runs with 10,000 test images each, with figures and without.

    python benchmarks/report.py [--rows 20 --seeds 10 --images 10000] [--rounds 1] [--out FILE]

Runs are drawn: images are hard for all rows, rows differ a little, seeds less. The study has a baseline, so that its
report has everything about single images. Processor time and the peak of resident memory are those of the whole process
of `python report.py STUDY`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

REPORT = Path(__file__).resolve().parents[1] / "report.py"
CLASSES = 10
EPOCHS = 20


def write_run(folder: Path, seed: int, row: int, ease: Any, targets: Any) -> None:
    """Write a finished run whose networks are right where images are easy."""
    random = np.random.default_rng([row, seed])
    score = ease + 0.02 * row + 0.7 * random.standard_normal(len(ease))
    logits = random.standard_normal((len(ease), CLASSES)).astype(np.float32)
    logits[np.arange(len(ease)), targets] = np.where(score > 0, logits.max(1) + score, logits.min(1))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (targets, predicted), 1)
    accuracy, recall = float((predicted == targets).mean()), confusion.diagonal() / confusion.sum(1)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([f"optim.lr={row}", f"seed={seed}"]))
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump({"seed": seed, "trainer": {"precision": "32-true"}}))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "epoch": EPOCHS, "max_epochs": EPOCHS}))
    numbers = {"accuracy": accuracy, "loss": 1 - accuracy, "f1": accuracy, "precision": accuracy, "recall": accuracy}
    result = {
        "metrics": {f"{split}/{name}": value for split in ("train", "val", "test") for name, value in numbers.items()},
        "per_class": [
            {"class": str(c), "precision": r, "recall": r, "f1": r, "accuracy": r, "support": len(ease) // CLASSES}
            for c, r in enumerate(recall)
        ],
        **{"confusion_matrix": confusion.tolist(), "parameters": 61706, "macs": 416520, "seconds": 90.0 + seed},
        **{"images_per_second": 5000.0, "git_commit": "a" * 40, "dataset_hash": "d" * 64, "device": "cpu"},
        **{"precision": "32-true", "slots": 1, "versions": {"torch": "2.15"}, "checkpoint": "best", "seed": seed},
        **{"tested_epoch": EPOCHS, "epochs": EPOCHS, "dataset": "drawn"},
    }
    (folder / "result.json").write_text(json.dumps(result))
    lines = ["epoch,train/loss,train/accuracy,val/loss,val/accuracy,learning_rate,images_per_second,seconds"]
    lines += [
        f"{e},{1 / e},{accuracy - 0.2 / e},{1.2 / e},{accuracy - 0.3 / e},0.1,5000,4" for e in range(1, EPOCHS + 1)
    ]
    (folder / "metrics.csv").write_text("\n".join(lines))
    indices = np.arange(len(ease))
    np.savez(folder / "predictions.npz", probabilities=probabilities, targets=targets, indices=indices)


def write_study(folder: Path, rows: int, seeds: int, images: int) -> None:
    """Write the study."""
    random = np.random.default_rng(0)
    ease, targets = 1.5 + 1.5 * random.standard_normal(images), random.permutation(images) % CLASSES
    described = {}
    for row in range(rows):
        for seed in range(seeds):
            write_run(folder / f"row{row}/seed={seed}", seed, row, ease, targets)
        runs = [{"dir": f"row{row}/seed={seed}", "seed": seed} for seed in range(seeds)]
        described[f"row{row}"] = {"overrides": [f"optim.lr={row}"], "published": None, "runs": runs}
    spec = {"name": "drawn", "title": "Drawn runs", "baseline": "row0", "base": [], "overrides": [], "sweep": {}}
    (folder / "study.json").write_text(json.dumps(spec | {"seeds": list(range(seeds)), "rows": described}))


def measure(command: list[str]) -> dict[str, float]:
    """Run a command; return its seconds, processor seconds and peak of resident memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall, process.returncode = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    processor = usage.ru_utime + usage.ru_stime
    return {"seconds": round(wall, 2), "processor": round(processor, 2), "peak_mb": round(usage.ru_maxrss / 1000, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"runs": arguments.rows * arguments.seeds, "images": arguments.images}
    with tempfile.TemporaryDirectory() as temporary:
        study = Path(temporary) / "drawn"
        write_study(study, arguments.rows, arguments.seeds, arguments.images)
        for name, options in (("tables", ["--no-figures"]), ("with figures", [])):
            rounds = [measure([str(REPORT), str(study), *options]) for _ in range(arguments.rounds)]
            results[name] = min(rounds, key=lambda one: one["processor"])
            print(name, *(f"{key} {value:g}" for key, value in results[name].items()), flush=True)
    from machine import (
        write,
    )  # not before: a child's peak of memory is at least what its parent had, and this has torch

    write(results, arguments.out)


if __name__ == "__main__":
    main()
