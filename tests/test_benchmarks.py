"""The benchmarks in a small form: that they work and write their figures, not how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def measured(name: str, *options: str, folder: Path) -> Any:
    out = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options, "--out", str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["command"].startswith(f"python benchmarks/{name}.py")
    assert {"date", "device", "versions", "load"} <= set(record)
    return record["results"]


def test_throughput(tmp_path: Path) -> None:
    options = ["--workloads", "lenet_mnist", "--rounds", "1", "--images", "512", "--batch-size", "64"]
    (found,) = measured("throughput", *options, "trainer.threads=1", folder=tmp_path)
    assert set(found["medians"]) == {"limit", "ours", "usual"}
    ratio = found["medians"]["ours"] / found["medians"]["limit"]
    assert found["ours_to_limit"]["median"] == pytest.approx(ratio, abs=0.002)
    assert 0 < found["utilisation"] < 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_runs_beside_each_other_add_no_copy_of_the_dataset(tmp_path: Path) -> None:
    found = measured("memory", "--runs", "2", "--images", "8000", "--no-alone", folder=tmp_path)
    (two,) = found["beside each other"]
    assert two["processes"] == 2
    assert two["Rss"] > 1.5 * found["array_bytes"]
    assert two["Pss"] < 1.1 * found["array_bytes"]
    assert two["Private_Dirty"] == 0


def test_scaling(tmp_path: Path) -> None:
    found = measured("scaling", "--rounds", "1", "--largest", "4096", folder=tmp_path)
    assert len(found) == 6
    assert all(len(row["sizes"]) == len(row["seconds"]) for row in found.values())


def test_startup(tmp_path: Path) -> None:
    found = measured("startup", "--rounds", "1", folder=tmp_path)
    assert list(found) == ["config error", "--help", "imports", "first training step"]


def test_sweep(tmp_path: Path) -> None:
    found = measured("sweep", "--runs", "2", "--epochs", "1", "--start-runs", "0", folder=tmp_path)
    assert found["runs"] == 2
    assert found["local_to_basic"] == pytest.approx(
        found["seconds"]["local"][0] / found["seconds"]["basic"][0], rel=0.01
    )
