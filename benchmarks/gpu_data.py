"""CIFAR-10 from contact sheets that travel in two halves: `.gpu/cifar10`, unpacked by `.gpu/unpack.py`."""

import shutil
import subprocess
import sys
from typing import Any

from gpu_step import ROOT, LeftOutError, Place, expect, tail

LAID = ROOT / ".gpu"
IMAGES_OF_A_SHEET = 1024


def cifar10(place: Place) -> dict[str, Any]:
    """Keep the sheets that are laid here beside the prepared datasets; unpack them once both halves have come."""
    import numpy as np

    prepared = place.data / "cifar10"
    if (prepared / "dataset.json").is_file():
        return {"prepared": str(prepared)}
    kept = place.data / "sheets"  # outlives .gpu, which the second half replaces
    laid = [path for path in (LAID / "cifar10").glob("*") if path.suffix in (".webp", ".npy")]
    if laid:
        (kept / "cifar10").mkdir(parents=True, exist_ok=True)
        for path in laid:
            shutil.copyfile(path, kept / "cifar10" / path.name)
        shutil.copyfile(LAID / "unpack.py", kept / "unpack.py")
    if not kept.is_dir():
        raise LeftOutError(f"neither {prepared} nor {LAID / 'cifar10'} is there")
    for split in ("train", "test"):
        labels, sheets = kept / "cifar10" / f"{split}_labels.npy", list((kept / "cifar10").glob(f"{split}_*.webp"))
        if not labels.is_file() or len(sheets) * IMAGES_OF_A_SHEET < len(np.load(labels, mmap_mode="r")):
            raise LeftOutError(f"{kept} holds {len(sheets)} {split} sheets so far: lay the other half into .gpu")
    line = [sys.executable, str(kept / "unpack.py"), str(place.data), "cifar10"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, tail(done.stdout + done.stderr))
    return {"prepared": str(prepared), "unpacked": done.stdout.splitlines()}
