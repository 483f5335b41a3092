"""Writes the folders of a tuned, settling study whose numbers are known, and those of a search."""

import json
from pathlib import Path
from typing import Any

SPACE = {"optim.lr": {"low": 0.001, "high": 1, "log": True}, "optim.nesterov": [True, False]}
TRIALS = [(0.01, True), (0.1, False), (0.03, True), (1.0, False)]
SCORES = {
    "sgd": [(0.80, 0.82), (0.90, 0.92), (0.85, 0.87), None],
    "momentum": [(0.81, 0.83), (0.84, 0.86), (0.88, 0.88), (0.94, 0.92)],
    "adam": [(0.95, 0.93), (0.70, 0.72), None, None],
}
"""Of the tuning seeds 1000 and 1001; None where the trial diverged."""
CHOICES = {"sgd": (1, 0.91, {}), "momentum": (3, 0.93, {"optim.lr": "high"}), "adam": (0, 0.94, {"optim.lr": "low"})}

ACCURACY = {
    "sgd": [0.60, 0.62, 0.64, 0.61, 0.63],
    "momentum": [0.61, 0.60, 0.67, 0.61, 0.65],
    "adam": [0.70, 0.721, 0.742],
}
# adam - sgd: 0.10, 0.101, 0.102: mean 0.101, s = 0.001, half = 16.284 * 0.001 / √3 = 0.0094016
# momentum - sgd: 0.01, -0.02, 0.03, 0, 0.02: mean 0.008, s² = 0.00037, half = 6.565 * 0.0192354 / √5 = 0.0564743
VERDICTS = [
    {"row": "momentum", "swept": [], "verdict": "undecided", "n": 5, "mean": 0.008, "chance": 0.4, "reason": ""}
    | {"low": 0.008 - 0.0564743, "high": 0.008 + 0.0564743},
    {"row": "adam", "swept": [], "verdict": "told", "n": 3, "mean": 0.101, "chance": None, "reason": ""}
    | {"low": 0.101 - 0.0094016, "high": 0.101 + 0.0094016},
]
SETTLING = {
    "looks": [3, 5, 8], "error": 0.05, "margin": 0.01, "metric": "test/accuracy", "comparisons": 2,
    "critical_values": [16.284, 6.565, 4.15], "verdicts": VERDICTS,
}  # fmt: skip


def write_run(folder: Path, seed: int, metrics: dict[str, float], **more: Any) -> None:
    """Write a finished run."""
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": "finished", "epoch": 2, "max_epochs": 2}))
    numbers = {"seconds": 30.0, "threads": 2, "slots": 1, "parameters": 61706, "seed": seed, "checkpoint": "best"}
    (folder / "result.json").write_text(json.dumps({"metrics": metrics} | numbers | more))


def write_trials(path: Path, row: str, prefix: str) -> dict[str, Any]:
    """Write the trials of a row; return what `study.json` says of them."""
    trials = []
    for number, ((lr, nesterov), scores) in enumerate(zip(TRIALS, SCORES[row], strict=True)):
        runs = []
        for index, seed in enumerate((1000, 1001)):
            name, score = f"{prefix}trial={number:02},seed={seed}", scores[index] if scores else None
            write_run(path / name, seed, {} if score is None else {"val/accuracy": score})
            runs.append({"dir": name, "seed": seed, "score": score, "diverged": score is None})
        trials.append({"number": number, "values": {"optim.lr": lr, "optim.nesterov": nesterov}, "runs": runs})
    trial, score, edges = CHOICES[row]
    choice = {"trial": trial, "values": trials[trial]["values"], "score": score, "edges": edges}
    return {"row": row, "swept": [], "space": SPACE, "trials": trials, "choice": choice}


def write_study(path: Path, **more: Any) -> Path:
    """Write the study; `more` replaces keys of `study.json`."""
    rows: dict[str, Any] = {}
    for row, values in ACCURACY.items():
        runs = [{"dir": f"{row}/seed={seed}", "seed": seed, "overrides": []} for seed in range(len(values))]
        untuned = [{"dir": f"{row}/untuned/seed={seed}", "seed": seed, "overrides": []} for seed in range(3)]
        rows[row] = {"overrides": [f"optim={row}"], "published": None, "runs": runs, "untuned": untuned}
        for seed, value in enumerate(values):
            metrics = {"test/accuracy": value, "val/accuracy": value + 0.01, "test/loss": 1 - value, "test/f1": value}
            write_run(path / f"{row}/seed={seed}", seed, metrics)
        for seed in range(3):
            write_run(path / f"{row}/untuned/seed={seed}", seed, {"test/accuracy": values[seed] - 0.1 * (1 + seed)})
    rows["adam"]["published"] = {"test/accuracy": 0.75, "source": "somebody 2020"}
    cells = [write_trials(path, row, f"{row}/tuning/") for row in ACCURACY]
    tuning = {"trials": 4, "seeds": [1000, 1001], "extend": 0, "monitor": "val/accuracy", "cells": cells}
    spec = {"name": "decide", "title": "Which optimizer is best, each at its own rate", "baseline": "sgd", "sweep": {}}
    spec |= {"base": [], "overrides": [], "rows": rows, "tuning": tuning, "settling": SETTLING}
    rewrite(path, spec | more)
    return path


def write_search(path: Path) -> Path:
    """Write a plain sweep over an interval."""
    cell = write_trials(path, "sgd", "") | {"row": "search"}
    tuning = {"trials": 4, "seeds": [1000, 1001], "extend": 0, "monitor": "val/accuracy", "cells": [cell]}
    spec = {"kind": "search", "name": "find", "title": "Search over optim.lr", "overrides": ["model=lenet"]}
    rewrite(path, spec | {"rows": {"search": {"overrides": [], "runs": []}}, "tuning": tuning})
    return path


def read(path: Path) -> Any:
    """Return the content of `study.json`."""
    return json.loads((path / "study.json").read_text())


def rewrite(path: Path, spec: Any) -> None:
    """Write `study.json`."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "study.json").write_text(json.dumps(spec))
