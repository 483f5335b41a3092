"""Runs an hour by launcher and slots, and what one run costs apart from its training: the parts of docs/scaling.md.

    python benchmarks/slots.py [--runs 8] [--epochs 3] [--slots 1 2 4] [--launchers local ray slurm] [--data digits]
                               [--root data] [--out FILE]

Each sweep trains LeNets, one a seed, with a thread each. `slurm` is submitit's local executor, which has no slots: it
starts all runs at once, so a sweep gets as many runs at a time as there are slots by hydra.sweeper.max_batch_size.
File operations are counted by strace, where it is installed, over a sweep of one run.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from convolt.runs.history import read_rows
from convolt.system.files import read_json
from machine import write

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
_CALL = re.compile(r"(?:^|\s)(\w+)\((.*)")
_READING = ("access", "faccessat2", "stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "getcwd")


def options(launcher: str, slots: int) -> list[str]:
    """Return what is typed for a launcher with so many slots."""
    return {
        "local": [f"hydra.launcher.n_jobs={slots}"],
        "ray": ["hydra/launcher=ray", f"+hydra.launcher.init.num_cpus={slots}"],
        "slurm": [
            *("hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.cpus_per_task=1"),
            f"hydra.sweeper.max_batch_size={slots}",
        ],
    }[launcher]


def sweep(folder: Path, runs: int, *overrides: str, trace: Path | None = None) -> float:
    """Run a sweep over so many seeds; return its wall-clock seconds."""
    tracer = ["strace", "-f", "-qq", "-y", "-e", "trace=%file,fsync,fdatasync,flock,getdents64", "-o", str(trace)]
    command = [sys.executable, str(TRAIN), "-m", f"seed=range({runs})", f"hydra.sweep.dir={folder}", *overrides]
    started = time.perf_counter()
    subprocess.run([*(tracer if trace else []), *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def size(folder: Path) -> dict[str, int]:
    """Return the files below a folder and their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def operations(trace: Path, folders: dict[str, Path]) -> dict[str, dict[str, int]]:
    """Count the file operations of a trace by the folder that they name, and by kind."""
    counts = {name: Counter[str]() for name in folders}
    for line in trace.read_text(errors="replace").splitlines():
        found = _CALL.search(line)
        where = next((name for name, folder in folders.items() if str(folder) in line), None)
        if found and where:
            kind = "look" if found[1] in _READING else found[1].removesuffix("at").removesuffix("2")
            counts[where][kind] += 1
    return {name: {"all": count.total(), **dict(count.most_common())} for name, count in counts.items()}


def parts(folder: Path, settings: list[str], root: Path) -> dict[str, Any]:
    """Measure what one run leaves and asks for: without pictures, with them, and as a job of submitit."""
    found: dict[str, Any] = {}
    for name, more in (("run", ["pictures.enabled=false"]), ("run_with_pictures", [])):
        sweep(folder / name, 1, *settings, *more, *options("local", 1))
        found[name] = size(next(path.parent for path in (folder / name).glob("*/result.json")))
    sweep(folder / "slurm", 1, *settings, "pictures.enabled=false", *options("slurm", 1))
    found["submitit"] = size(folder / "slurm/.submitit")
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import convolt.sweeps.preload"], check=True)
    found["imports_seconds"] = round(time.perf_counter() - started, 2)
    if shutil.which("strace"):
        packages = Path(torch.__file__).parents[1]
        for epochs in (1, 6):
            below, trace = folder / f"traced-{epochs}", folder / f"trace-{epochs}"
            more = [f"trainer.max_epochs={epochs}", "pictures.enabled=false", *options("local", 1)]
            sweep(below, 1, *settings, *more, trace=trace)
            named = {"run_directory": below, "prepared_data": root, "packages": packages}
            found[f"operations_{epochs}_epochs"] = operations(trace, named)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--launchers", nargs="+", default=["local", "ray", "slurm"])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", default="data")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    root = Path(arguments.root).absolute()
    settings = ["model=lenet", f"data={arguments.data}", f"data.root={root}", "trainer.threads=1"]
    settings += [f"trainer.max_epochs={arguments.epochs}", "trainer.accelerator=cpu"]
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sweep(folder / "warm", 1, *settings)  # prepares the data, reads the files
        for launcher in arguments.launchers:
            for slots in arguments.slots:
                below = folder / f"{launcher}-{slots}"
                command = [*settings, "pictures.enabled=false", *options(launcher, slots)]
                taken = sweep(below, arguments.runs, *command)
                results = [read_json(file) for file in below.glob("*/result.json")]
                epochs = [sum(row["seconds"] for row in read_rows(file)) for file in below.glob("*/metrics.csv")]
                row = {
                    "launcher": launcher,
                    "slots": slots,
                    "seconds": round(taken, 1),
                    "runs_per_hour": round(3600 * arguments.runs / taken),
                    "seconds_of_a_run": round(sum(result["seconds"] for result in results) / len(results), 2),
                    "of_these_its_epochs": round(sum(epochs) / len(epochs), 2),
                }
                print(row, flush=True)
                table.append(row)
        found = parts(folder, settings, root)
    results = {"runs": arguments.runs, "epochs": arguments.epochs, "data": arguments.data, "sweeps": table, **found}
    print(found)
    write(results, arguments.out)


if __name__ == "__main__":
    main()
