"""Seconds from a cold command line to a config error, to --help, to the first training step, and of the imports alone.

By the clock, and of processors, which other work on the machine does not lengthen as much.

python benchmarks/startup.py [--rounds 5] [--out FILE]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import write

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
COMMANDS = {
    "config error": [str(TRAIN), "model=resnet81"],
    "--help": [str(TRAIN), "--help"],
    "imports": ["-c", "import torch, torchvision, pytorch_lightning"],
}


def seconds_of(command: list[str], folder: Path, *, check: bool = False) -> tuple[float, float]:
    """Return the seconds until a command ends, by the clock and of processors."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, *command]
    subprocess.run(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=check)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, processor


def seconds_until_first_step(folder: Path) -> tuple[float, float]:
    """Start a run on the digits whose callback leaves when the first training batch has ended."""
    (folder / "leave.py").write_text(
        "import os\nfrom pytorch_lightning.callbacks import Callback\n\n\nclass Leave(Callback):\n"
        "    def on_train_batch_end(self, *_):\n        os._exit(0)\n"
    )
    command = [str(TRAIN), "+callbacks.leave._target_=leave.Leave", "force=true", "hydra.run.dir=run"]
    return seconds_of(command, folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in (*COMMANDS, "first training step")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds_until_first_step(folder)  # prepares the digits, reads the files
        for _ in range(arguments.rounds):
            for name, command in COMMANDS.items():
                seen[name].append(seconds_of(command, folder))
            seen["first training step"].append(seconds_until_first_step(folder))
    results = {}
    for name, all_ in seen.items():
        clock, processor = ([round(seconds, 2) for seconds in column] for column in zip(*all_, strict=True))
        results[name] = {"median": statistics.median(clock), "all": clock, "processor": statistics.median(processor)}
        print(f"{name:<20} {results[name]['median']:>6.2f} s  {results[name]['processor']:>6.2f} s of processors")
    write(results, arguments.out)


if __name__ == "__main__":
    main()
