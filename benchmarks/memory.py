"""Memory of a run and of several runs beside each other on one dataset.

    python benchmarks/memory.py [--runs 1 2 4] [--no-alone] [--images 60000 --side 32 --channels 3] [--out FILE]

- alone: peak resident memory of a run of ours and of a plain loop over the same images as a tensor of bytes, each in a
  fresh process, LeNet on the CPU.
- beside each other: the proportional set size (each page counted once, however many processes map it) of the dataset's
  arrays, summed over all processes of a sweep of n runs at once, its largest value, against the arrays' size. With a
  copy in each run it would be n times that size.

Images are random bytes, so nothing is downloaded. Reads /proc, so Linux only.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from machine import write

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def arrays(folder: Path, images: int, side: int, channels: int) -> list[str]:
    """Write random images as data=arrays reads them; return the overrides of a run on them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, count in (("train", images), ("test", 1000)):
        np.save(folder / f"x_{split}.npy", random.integers(0, 256, (count, side, side, channels), np.uint8))
        np.save(folder / f"y_{split}.npy", np.arange(count) % 10)
    return ["model=lenet", "data=arrays", f"data.path={folder}", f"data.root={folder.parent / 'data'}",
            "data.batch_size=128", "pictures.enabled=false", "trainer.max_epochs=1",
            "augmentation=crop_flip"]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | more


def peak_of_a_run(overrides: list[str], folder: Path) -> int:
    """Return the peak resident bytes of `python train.py`."""
    command = [sys.executable, str(TRAIN), *overrides, "trainer.threads=1", f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    peak: int = json.loads((folder / "result.json").read_text())["peak_memory_bytes"]
    return peak


def peak_of_a_loop(images: Path) -> int:
    """Return the peak resident bytes of this script's `--loop`."""
    command = [sys.executable, __file__, "--loop", str(images)]
    return int(subprocess.run(command, check=True, env=environment(), capture_output=True, text=True).stdout)


def loop(folder: Path) -> None:
    """Train a LeNet for an epoch by a plain loop, and print the peak of this process."""
    import torch
    import torch.nn.functional as F

    from convolt.models.lenet import LeNet

    torch.set_num_threads(1)
    images = torch.from_numpy(np.load(folder / "x_train.npy"))
    targets = torch.from_numpy(np.load(folder / "y_train.npy"))
    side, channels = images.shape[2], images.shape[3]
    network = LeNet(in_channels=channels, num_classes=10, image_size=side)
    optimizer = torch.optim.Adam(network.parameters())
    for chosen in torch.randperm(len(images)).split(128):
        loss = F.cross_entropy(network(images[chosen].permute(0, 3, 1, 2).float() / 255), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def processes_below(root: int) -> list[int]:
    """Return a process and all its descendants."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def mapped(pid: int, name: str) -> dict[str, int]:
    """Return Rss, Pss and private dirty bytes of a process's mappings of files of a name."""
    sizes = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        return sizes
    inside = False
    for line in lines:
        head = line.split(maxsplit=5)
        if "-" in head[0]:
            inside = len(head) == 6 and head[5].endswith(name)
        elif inside and head[0][:-1] in sizes:
            sizes[head[0][:-1]] += int(head[1]) * 1024
    return sizes


def beside_each_other(overrides: list[str], folder: Path, runs: int) -> dict[str, Any]:
    """Run a sweep of so many runs at once; return the largest sums over its processes that were seen."""
    command = [sys.executable, str(TRAIN), "-m", f"seed=range({runs})", *overrides, "trainer.max_epochs=3",
               f"hydra.launcher.n_jobs={runs}", f"hydra.sweep.dir={folder}"]  # fmt: skip
    peak: dict[str, Any] = {"processes": 0, "Rss": 0, "Pss": 0, "Private_Dirty": 0}
    sweep = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    while sweep.poll() is None:
        seen = [mapped(pid, "train_images.npy") for pid in processes_below(sweep.pid)]
        sums = {name: sum(each[name] for each in seen) for name in ("Rss", "Pss", "Private_Dirty")}
        sums["processes"] = sum(each["Rss"] > 0 for each in seen)
        peak = {name: max(value, sums[name]) for name, value in peak.items()}
        time.sleep(0.4)
    if sweep.returncode:
        raise SystemExit(f"the sweep failed: {' '.join(command)}")
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--no-alone", action="store_true", help="leave out the run and the loop that are alone")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        return loop(arguments.loop)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        overrides = arrays(folder / "arrays", arguments.images, arguments.side, arguments.channels)
        size = arguments.images * arguments.side**2 * arguments.channels
        results: dict[str, Any] = {"array_bytes": size, "network": "lenet"}
        peak_of_a_run(overrides, folder / "warm")  # prepares the arrays
        if not arguments.no_alone:
            results["peak_bytes"] = {
                "ours": peak_of_a_run(overrides, folder / "alone"),
                "plain loop": peak_of_a_loop(folder / "arrays"),
            }
            print(" ".join(f"{name}: {peak / 2**20:,.0f} MiB" for name, peak in results["peak_bytes"].items()))
        results["beside each other"] = []
        for runs in arguments.runs:
            peak = beside_each_other(overrides, folder / f"sweep{runs}", runs)
            one = {"runs": runs} | peak | {"pss_to_array": round(peak["Pss"] / size, 3)}
            results["beside each other"].append(one)
            print(f"{runs} runs: {peak['processes']} mapped the images at once, {peak['Pss'] / size:.2f} of their size")
    write(results, arguments.out)
    return None


if __name__ == "__main__":
    main()
