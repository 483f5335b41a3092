"""Writes folders of synthetic runs and studies whose numbers are known, for tests of reports."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = ("cat", "dog", "eel")


def make_run(folder: Path, accuracy: float | None, seed: int = 0, overrides: tuple[str, ...] = (), **more: Any) -> Path:
    """Write a run directory: finished with an accuracy, or in the state that `status` describes."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([*overrides, f"seed={seed}"]))
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump({"seed": seed, "trainer": {"precision": "32-true"}}))
    status = {"state": "finished", "epoch": 2, "max_epochs": 2} | more.pop("status", {})
    (folder / "status.json").write_text(json.dumps(status))
    if accuracy is None:
        return folder
    metrics = {"train/accuracy": accuracy + 0.05, "val/accuracy": accuracy + 0.01, "test/accuracy": accuracy}
    metrics |= {"train/loss": 0.3, "val/loss": 0.4, "test/loss": 1 - accuracy, "test/f1": accuracy - 0.01}
    matrix = [[8, 1, 1], [0, 9, 1], [0, 0, 10]]
    result = {
        "metrics": metrics | more.pop("metrics", {}),
        "per_class": [
            {"class": c, "precision": 0.9, "recall": r, "f1": 0.9, "accuracy": r, "support": 10}
            for c, r in zip(CLASSES, (0.8, 0.9, 1.0), strict=True)
        ],
        "confusion_matrix": matrix,
        **{"parameters": 61706, "macs": 416520, "seconds": 90.0 + seed, "images_per_second": 5000.0},
        **{"git_commit": "a" * 40, "dataset_hash": "d" * 64, "device": "cpu", "precision": "32-true", "slots": 1},
        **{"versions": {"torch": "2.15"}, "checkpoint": "best", "tested_epoch": 2, "epochs": 2, "seed": seed},
    }
    (folder / "result.json").write_text(json.dumps(result | more))
    lines = ["epoch,train/loss,train/accuracy,val/loss,val/accuracy,learning_rate,images_per_second,seconds"]
    lines += [f"{e},{1 / e},{accuracy - 0.2 / e},{1.2 / e},{accuracy - 0.3 / e},0.1,5000,45" for e in (1, 2)]
    (folder / "metrics.csv").write_text("\n".join(lines))
    return folder


def make_study(folder: Path, rows: dict[str, dict[int, float | None]], **more: Any) -> Path:
    """Write a study: each row's accuracy by seed, None for a run that is missing; `row_NAME` adds to a row."""
    seeds = sorted({seed for row in rows.values() for seed in row})
    spec: dict[str, Any] = {"name": folder.name, "title": "The optimizers", "question": "Which is best?", "sweep": {}}
    spec |= {"base": ["model=lenet"], "baseline": next(iter(rows)), "seeds": seeds, "overrides": [], "rows": {}}
    for name, values in rows.items():
        extra = more.pop(f"row_{name}", {})
        runs = [{"dir": f"{name}/seed={seed}", "seed": seed} for seed in values]
        spec["rows"][name] = {"overrides": [f"optim={name}"], "published": None, "runs": runs} | extra.pop("spec", {})
        for seed, accuracy in values.items():
            if accuracy is not None:
                make_run(folder / f"{name}/seed={seed}", accuracy, seed, **extra)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(spec | more))
    return folder


def write_predictions(run: Path, predicted: list[int], targets: list[int], start: int = 0) -> None:
    """Write predictions that are sure of their classes."""
    np.savez(
        run / "predictions.npz",
        probabilities=np.eye(3, dtype=np.float32)[predicted],
        targets=np.array(targets),
        indices=np.arange(start, start + len(targets)),
    )
