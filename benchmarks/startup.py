"""Seconds from a cold command line to a config error, to --help, to the first training step, and of the imports alone.

python benchmarks/startup.py [--rounds 5] [--out FILE]
"""

import argparse
import os
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


def seconds_until_exit(arguments: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=False)
    return time.perf_counter() - started


def seconds_until_first_step(folder: Path) -> float:
    """Start a run on the digits whose callback leaves when the first training batch has ended."""
    (folder / "leave.py").write_text(
        "import os\nfrom pytorch_lightning.callbacks import Callback\n\n\nclass Leave(Callback):\n"
        "    def on_train_batch_end(self, *_):\n        os._exit(0)\n"
    )
    started = time.perf_counter()
    command = [sys.executable, str(TRAIN), "+callbacks.leave._target_=leave.Leave", "force=true", "hydra.run.dir=run"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    seen: dict[str, list[float]] = {name: [] for name in (*COMMANDS, "first training step")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds_until_first_step(folder)  # prepares the digits, reads the files
        for _ in range(arguments.rounds):
            for name, command in COMMANDS.items():
                seen[name].append(seconds_until_exit(command, folder))
            seen["first training step"].append(seconds_until_first_step(folder))
    results = {
        name: {"median": round(statistics.median(all_), 2), "all": [round(s, 2) for s in all_]}
        for name, all_ in seen.items()
    }
    for name, figures in results.items():
        print(f"{name:<20} {figures['median']:>6} s")
    write(results, arguments.out)


if __name__ == "__main__":
    main()
