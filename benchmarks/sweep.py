"""A sweep of LeNets by our launcher against Hydra's basic one, measured in turn, and what the start of a run costs.

    python benchmarks/sweep.py [--runs 12] [--epochs 3] [--rounds 1] [--data mnist --root data] [--out FILE]

The start of a run is what a sweep of one run at a time takes longer for each further run, less that run's epochs: it
holds the new process, the config, data, network and trainer, the test, and all that is written but the pictures.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from convolt.runs.history import read_rows
from machine import write

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def sweep(folder: Path, runs: int, *overrides: str) -> float:
    """Run a sweep over so many seeds; return its wall-clock seconds."""
    command = [sys.executable, str(TRAIN), "-m", f"seed=range({runs})", f"hydra.sweep.dir={folder}", *overrides]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def epoch_seconds(folder: Path) -> float:
    """Return the median over the runs of the seconds of all their epochs."""
    return statistics.median(sum(row["seconds"] for row in read_rows(file)) for file in folder.glob("*/metrics.csv"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--start-runs", type=int, default=5, help="runs of the sweep that tells what a start costs; 0: not told"
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", default="data")
    parser.add_argument("--overrides", nargs="+", default=[], help="more settings of all runs")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    settings = [
        "model=lenet",
        f"data={arguments.data}",
        f"data.root={Path(arguments.root).absolute()}",
        f"trainer.max_epochs={arguments.epochs}",
        *arguments.overrides,
    ]
    seconds: dict[str, list[float]] = {"basic": [], "local": [], "start": []}
    with tempfile.TemporaryDirectory() as temporary:
        sweep(Path(temporary) / "warm", 1, *settings)  # prepares the data, reads the files
        for turn in range(arguments.rounds):
            folder = Path(temporary) / str(turn)
            for launcher in ("basic", "local"):
                taken = sweep(folder / launcher, arguments.runs, f"hydra/launcher={launcher}", *settings)
                seconds[launcher].append(taken)
            if (more := arguments.start_runs) < 2:
                continue
            one_by_one = [*settings, "hydra.launcher.n_jobs=1", "pictures.enabled=false"]
            few, many = (sweep(folder / str(count), count, *one_by_one) for count in (1, more))
            seconds["start"].append((many - few) / (more - 1) - epoch_seconds(folder / str(more)))
    medians = {name: statistics.median(values) for name, values in seconds.items() if values}
    results: dict[str, Any] = {
        "runs": arguments.runs,
        "epochs": arguments.epochs,
        "data": arguments.data,
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "local_to_basic": round(medians["local"] / medians["basic"], 3),
        "runs_per_hour": {name: round(3600 * arguments.runs / medians[name]) for name in ("basic", "local")},
        "start_of_a_run_seconds": round(medians["start"], 2) if "start" in medians else None,
    }
    print(results)
    write(results, arguments.out)


if __name__ == "__main__":
    main()
