"""The benchmarks in a small form: that they work and write their figures, not how fast anything is."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def measured(name: str, *options: str, folder: Path) -> Any:
    out = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options, "--out", str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["command"].startswith(f"python benchmarks/{name}.py")
    assert {"date", "device", "versions", "load"} <= set(record)
    return record["results"]


def gpu(kind: str, folder: Path) -> dict[str, Any]:
    out = folder / "rows.jsonl"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), kind, "--small", "--out", str(out), "--data", str(folder)]
    command += ["--budget", "480"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all({"device", "date", "versions", "git_commit", "seconds"} <= set(row) for row in rows)
    assert {row["status"] for row in rows} == {"ok", "left out"}
    assert str(out) in done.stdout
    return {row["step"]: row.get("figures") or row["reason"] for row in rows}


def test_gpu_check_in_its_small_form(tmp_path: Path) -> None:
    found = gpu("check", tmp_path)
    assert found["killed_and_resumed"]["epochs"] == 5
    assert 2 <= found["killed_and_resumed"]["epochs_when_killed"] < 5
    assert (found["killed_and_resumed"]["evaluate"], found["killed_and_resumed"]["predict"]) == ("equal", 0)
    if not torch.cuda.is_available():
        assert found["gpu_tests"] == found["find_batch_size"] == "no CUDA device"
        assert sum(reason == "no CUDA device" for reason in found.values()) == 15
    assert str(tmp_path / "cifar10") in found["cifar10"]


def test_gpu_measure_in_its_small_form(tmp_path: Path) -> None:
    found = gpu("measure", tmp_path)
    lenet = found["lenet_128"]
    assert set(lenet["medians"]) == {"limit", "ours", "usual", "lightning"}
    ratio = lenet["medians"]["ours"] / lenet["medians"]["limit"]
    assert lenet["ours_to_limit"]["median"] == pytest.approx(ratio, abs=0.002)
    assert set(lenet["ours_to_limit"]) == {"median", "least", "most"}
    assert 0 < lenet["utilisation"] < 1
    assert set(found["host_step"]["processor"]["medians"]) == {"limit", "ours", "lightning"}
    assert found["runs_at_once"]["table"][0]["runs"] == 2
    assert found["trace"] == found["resnet18_512"] == "not in the small form"


def test_peers_and_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("scripts", "benchmarks"):
        monkeypatch.syspath_prepend(str(BENCHMARKS.parent / folder))
    peers, table = map(importlib.import_module, ("peers", "performance_table"))
    monkeypatch.setattr(peers, "peak", lambda *_: 10**12)
    threads = ["trainer.threads=1"]
    tiny = peers.measure("tiny", 16, 8, 1, threads, peers.TINY_CONTENDERS)
    lenet = peers.measure("lenet_mnist", 64, 16, 1, threads, list(peers.CONTENDERS))
    costs = lenet["processor"]["microseconds_a_step"]
    assert list(costs) == ["limit", "ours", "plain", "usual", "lightning"]
    assert lenet["processor"]["ours_to_usual"]["median"] == pytest.approx(
        costs["usual"][0] / costs["ours"][0], abs=0.002
    )
    assert peers.compare([6.0, 2.0, 9.0], [3.0, 4.0, 3.0]) == {"median": 2.0, "least": 0.5, "most": 3.0}
    assert all(16 < rate < 10**6 for rates in lenet["images_per_second"].values() for rate in rates)

    two = lenet | {"threads": 2, "workload": "resnet20_cifar10"}
    rows = dict(table.peers({"results": [tiny, lenet, lenet | {"workload": "resnet20_cifar10"}, two]}))
    first, second, *_ = rows
    both = [f"{lenet['processor'][f'ours_to_{who}']['median']:.2f}" for who in ("plain", "limit")]
    ratios = f"{both[0]} ({both[1]})"
    clock = f"{lenet['ours_to_limit']['median']:.2f}"
    how = f"batch 16, {lenet['precision']}"
    assert first == f"ours / plain loop that crops and flips (on tensors, unchanged), one core, {how}"
    assert rows[first] == f"LeNet {ratios}, ResNet-20 {ratios}"
    assert second == "the host's cost of a step"
    assert rows[second].startswith(f"{tiny['processor']['medians']['ours']:,.0f} µs (a plain loop: ")
    assert rows[f"ResNet-20 on cifar10, {how}, 2 threads: ours / plain loop on tensors"].startswith(f"{clock} (")
    assert "Lightning's defaults" in rows[f"LeNet on mnist, {how}, 1 thread: ours / what people use"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_runs_beside_each_other_add_no_copy_of_the_dataset(tmp_path: Path) -> None:
    found = measured("memory", "--runs", "2", "--images", "3000", "--no-alone", folder=tmp_path)
    (two,) = found["beside each other"]
    assert two["processes"] == 2
    assert two["Rss"] > 1.5 * found["array_bytes"]
    assert two["Pss"] < 1.1 * found["array_bytes"]
    assert two["Private_Dirty"] == 0


def test_scaling(tmp_path: Path) -> None:
    found = measured("scaling", "--rounds", "1", "--largest", "2048", folder=tmp_path)
    assert len(found) == 6
    assert all(len(row["sizes"]) == len(row["seconds"]) for row in found.values())


def test_startup(tmp_path: Path) -> None:
    found = measured("startup", "--rounds", "1", folder=tmp_path)
    assert list(found) == ["config error", "--help", "imports", "first training step"]


def test_sweep(tmp_path: Path) -> None:
    small = ["--runs", "2", "--epochs", "1", "--start-runs", "0"]
    found = measured("sweep", *small, "--overrides", "pictures.enabled=false", "trainer.threads=1", folder=tmp_path)
    assert found["runs"] == 2
    assert found["local_to_basic"] == pytest.approx(
        found["seconds"]["local"][0] / found["seconds"]["basic"][0], rel=0.01
    )


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("report")
    module.write_study(tmp_path / "drawn", rows=2, seeds=2, images=100)
    found = module.measure([str(module.REPORT), str(tmp_path / "drawn"), "--no-figures"])
    assert found["processor"] > 0
    assert found["peak_mb"] > 50
    lines = (tmp_path / "drawn/report/tables/paired_images.csv").read_text().splitlines()
    assert lines[1].startswith("row1,row0,100,2,")
