"""benchmarks/gpu.py without a GPU: its machinery, and that every command of its steps is one that there is."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convolt.config.compose import compose

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STEPS = """
import os, pathlib, subprocess, time
from gpu_step import LeftOutError, Step, command, expect


def hangs(place):
    child = subprocess.Popen(["sleep", "60"])
    (place.data / "pid").write_text(str(child.pid))
    print("waits for ever", flush=True)
    child.wait()


def fails(place):
    expect(2 * 2 == 5, "4 instead of 5")


def raises(place):
    return {}["nothing"]


def left_out(place):
    raise LeftOutError("no such thing here")


STEPS = [
    Step("hangs", hangs, 3, 1), Step("works", lambda place: {"answer": 42, "small": place.small}, 60, 1),
    Step("fails", fails, 60, 1), Step("raises", raises, 60, 1), Step("left_out", left_out, 60, 1),
    Step("lacks", fails, 60, 1, needs=("no_such_package",)), Step("cuda", fails, 60, 1, cuda=True),
    Step("large", fails, 60, 1, small=False), Step("alone", lambda place: {"others": 0}, 60, 1, alone=True),
]
"""
MACHINE = {"cuda": False, "missing": [], "record": {"device": "Card 1 (PCIe)", "git_commit": "abc", "versions": {}}}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script as a module, beside the steps above as fake_steps."""
    (tmp_path / "fake_steps.py").write_text(STEPS)
    for folder in (BENCHMARKS, tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{BENCHMARKS.parent / 'src'}{os.pathsep}{tmp_path}")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    import gpu as module

    monkeypatch.setattr(module, "probe", lambda: MACHINE)
    yield module
    for name in [name for name in sys.modules if name in ("gpu", "fake_steps") or name.startswith("gpu_")]:
        del sys.modules[name]


def rows_of(gpu: Any, tmp_path: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    out = tmp_path / "rows.jsonl"
    usual = ["check", "--small", "--steps", "fake_steps", "--out", str(out), "--data", str(tmp_path), "--jobs", "4"]
    status = gpu.main([*usual, *options])
    return status, {row["step"]: row for row in map(json.loads, out.read_text().splitlines())}


def ended(pid: int) -> bool:
    """Wait until a process that another one started is gone, or a zombie whom nobody asks for."""
    for _ in range(100):
        asked = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if asked.stdout.strip()[:1] in ("", "Z"):
            return True
        time.sleep(0.05)
    return False


def test_a_step_that_hangs_is_killed_and_the_rest_goes_on(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows = rows_of(gpu, tmp_path)
    assert status == 1
    assert {name: row["status"] for name, row in rows.items()} == {
        "hangs": "timeout", "works": "ok", "fails": "failed", "raises": "failed", "left_out": "left out",
        "lacks": "left out", "cuda": "left out", "large": "left out", "alone": "ok",
    }  # fmt: skip
    assert list(rows)[-1] == "alone"
    assert rows["works"]["figures"] == {"answer": 42, "small": True}
    assert rows["hangs"]["reason"] == "killed after 3 s"
    assert rows["hangs"]["output"] == "waits for ever"
    assert 3 <= rows["hangs"]["seconds"] < 20
    assert ended(int((tmp_path / "pid").read_text()))
    assert rows["fails"]["output"] == "4 instead of 5"
    assert rows["raises"]["output"].endswith("KeyError: 'nothing'")
    assert rows["left_out"]["reason"] == "no such thing here"
    assert rows["lacks"]["reason"] == "no_such_package is missing"
    assert rows["cuda"]["reason"] == "no CUDA device"
    assert {row["device"] for row in rows.values()} == {"Card 1 (PCIe)"}
    assert all(row["date"] and row["git_commit"] == "abc" for row in rows.values())
    said = capsys.readouterr().out
    assert "2 ok, 2 failed, 1 timeout, 4 left out" in said
    assert '{"answer": 42, "small": true}' in said


def test_steps_are_chosen_and_left_out_when_time_is_up(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows_of(gpu, tmp_path, "--only", "works")[0] == 0
    (tmp_path / "rows.jsonl").unlink()
    status, rows = rows_of(gpu, tmp_path, "--from", "lacks", "--budget", "0.01")
    assert set(list(rows)[:-1]) == {"lacks", "cuda", "large"}  # side by side, in any order
    assert list(rows)[-1] == "alone"
    assert rows["alone"]["reason"] == "no time"
    assert status == 1  # nothing was checked
    with pytest.raises(SystemExit, match="there is no step tracee: hangs, works"):
        rows_of(gpu, tmp_path, "--only", "tracee")
    monkeypatch.setitem(MACHINE, "missing", ["hydra", "pydantic"])
    assert rows_of(gpu, tmp_path, "--only", "works")[1]["works"]["reason"] == "hydra, pydantic are missing"


def test_without_a_gpu_only_the_small_form_runs(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["measure"])
    assert "there is no CUDA device: --small runs on a CPU" in capsys.readouterr().err


def test_laid_wheels_are_installed_where_hydra_is_missing(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/laid-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("laid.py", "")
        wheel.writestr("laid-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: laid\nVersion: 1.0\n")
        wheel.writestr("laid-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("laid-1.0.dist-info/RECORD", "laid.py,,\n")
    monkeypatch.setattr(gpu, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(gpu, "SITE", tmp_path / "site")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    real = gpu.missing
    monkeypatch.setattr(gpu, "missing", lambda names: real(["laid" if name == "hydra" else name for name in names]))
    assert gpu.find_packages() == []
    assert (tmp_path / "site/laid.py").is_file()
    assert os.environ["PYTHONPATH"].split(os.pathsep)[2] == str(tmp_path / "site")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_the_guesses_fit_into_the_budgets(gpu: Any) -> None:
    import gpu_check
    import gpu_measure

    assert sum(step.about for step in gpu_measure.STEPS) <= gpu.BUDGETS["measure"]
    together = [step for step in gpu_check.STEPS if not step.alone]  # four at a time
    assert sum(step.about for step in together) / 4 + 25 <= gpu.BUDGETS["check"]
    assert all(step.limit >= 1.5 * step.about for step in [*gpu_check.STEPS, *gpu_measure.STEPS])


class Composed(Exception):  # noqa: N818
    """The first command of a step, composed."""


def test_every_command_of_the_steps_composes(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    import gpu_check
    import gpu_measure
    import gpu_step

    def composed(script: str, *arguments: str, env: Any = None) -> str:
        assert script == "train.py"
        raise Composed(compose([a for a in arguments if not a.startswith(("-m", "hydra.", "seed=range"))]), arguments)

    for module in (gpu_step, gpu_check, gpu_measure):
        monkeypatch.setattr(module, "command", composed)
    monkeypatch.setattr(gpu_step.Place, "images", tmp_path)
    card = type("Card", (), {"uuid": "1-2", "total_memory": 1})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    (tmp_path / "data/cifar10").mkdir(parents=True)
    (tmp_path / "data/cifar10/dataset.json").touch()
    found = {}
    others = (
        "cifar10",
        "gpu_tests",
        "mig",
        "sweep",
        "runs_at_once",
        "checkpoints",
        "host_step",
    )  # no command, or one that the small form runs
    for step in [*gpu_check.STEPS, *gpu_measure.STEPS]:
        if step.name in others or step.name.endswith(("_512", "_128", "_compiled")):
            continue
        place = gpu_step.Place(tmp_path / step.name, tmp_path / "data", True, False)
        place.folder.mkdir()
        with pytest.raises(Composed) as caught:
            step.work(place)
        found[step.name], arguments = caught.value.args
        assert found[step.name].trainer.accelerator == "gpu"
        assert any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments)
    assert {name for name, cfg in found.items() if cfg.trainer.deterministic} == {
        "killed_and_resumed", "bf16_true", "tf32", *(f"deterministic_{name}" for name in gpu_check.DETERMINISTIC)
    }  # fmt: skip
    assert {name for name, cfg in found.items() if cfg.trainer.gradient_clip_val} == {
        "clip_bf16_mixed", "clip_16_mixed", "bf16_true"
    }  # fmt: skip
    assert found["clip_16_mixed"].trainer.precision == "16-mixed"
    assert found["deterministic_vgg16"].model.head == found["deterministic_alexnet"].model.head == "imagenet"
    assert found["compiled"].data.train_size == 4096
    assert found["find_batch_size"].trainer.find_batch_size
    assert found["fast_cifar10"].data.name == "cifar10"
    assert found["trace"].debug.profile


def test_every_step_reads_what_its_commands_leave(
    gpu: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    import gpu_check
    import gpu_measure
    import gpu_step

    def done(script: str, *arguments: str, env: Any = None) -> str:
        if script == "evaluate.py":
            return "equal to the run's own numbers, bit for bit"
        runs = [int(a[11:-1]) for a in arguments if a.startswith("seed=range(")]
        place = next(a.partition("=")[2] for a in arguments if a.startswith(("hydra.run.dir=", "hydra.sweep.dir=")))
        for run in [Path(place, str(number)) for number in range(*runs)] if runs else [Path(place)]:
            shutil.copytree(finished, run)
            result = json.loads((finished / "result.json").read_text())
            result |= {"compiled": True, "batch_size": 64, "peak_memory_bytes": 2**35}
            result |= {"seed": int(run.name), "slots": max(runs)} if runs else {}
            (run / "result.json").write_text(json.dumps(result))
            if "debug=profile" in arguments:
                (run / "profile").mkdir()
                event = {"name": "ProfilerStep#3", "dur": 3000}
                (run / "profile/steps.pt.trace.json").write_text(json.dumps({"traceEvents": [event]}))
                for name in ("operators", "epoch"):
                    (run / f"profile/{name}.txt").write_text("data  1 s\n")
        return "without NVIDIA's MPS, runs take turns on the GPU: why not"

    for module in (gpu_step, gpu_check, gpu_measure):
        monkeypatch.setattr(module, "command", done)
    monkeypatch.setattr(gpu_check, "differing_predictions", lambda *_: 0)
    card = type("Card", (), {"uuid": "1-2", "total_memory": 2**36})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    (tmp_path / "data/cifar10").mkdir(parents=True)
    (tmp_path / "data/cifar10/dataset.json").touch()
    found = {}
    others = ("cifar10", "gpu_tests", "mig", "killed_and_resumed", "checkpoints", "host_step")
    for step in [*gpu_check.STEPS, *gpu_measure.STEPS]:
        if step.name not in others and not step.name.endswith(("_512", "_128", "_compiled")):
            folder = tmp_path / step.name
            folder.mkdir()
            found[step.name] = step.work(gpu_step.Place(folder, tmp_path / "data", True, False))
    assert found["compiled"]["batches_2"]["batch_size"] == 64
    assert found["peak_memory"]["card_bytes"] == 2**36
    assert found["uuid"] | {"sweep": 2, "CUDA_VISIBLE_DEVICES": "GPU-1-2"} == found["uuid"]
    assert found["tf32"] | {"evaluate": "equal", "predict": 0} == found["tf32"]
    assert found["sweep"]["runs"] == 4
    row = found["fast_cifar10"]["rows"][0]
    assert row["row"] == "resnet9-16"
    assert row["seconds_of_the_run"] > row["seconds_of_training"] > 0
    rows = [(row["jobs_per_gpu"], row["mps"], row["runs"]) for row in found["runs_at_once"]["table"]]
    assert rows == [(1, False, 8), (4, False, 8), ("auto", False, 8)]
    assert found["runs_at_once"]["mps"].startswith("without NVIDIA's MPS")
    assert found["runs_at_once"]["table"][0]["to_one_slot"] == 1
    assert found["trace"]["resnet18_512"]["clock_ms"] == 3.0


def test_sheets_come_in_two_halves(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_data
    from gpu_step import LeftOutError, Place

    place = Place(tmp_path, tmp_path / "data", False, True)
    laid = tmp_path / "laid"
    monkeypatch.setattr(gpu_data, "LAID", laid)
    with pytest.raises(LeftOutError, match="is there"):
        gpu_data.cifar10(place)

    (laid / "cifar10").mkdir(parents=True)
    (laid / "unpack.py").write_text(
        "import sys, pathlib\nhere = pathlib.Path(__file__).parent / 'cifar10'\n"
        "out = pathlib.Path(sys.argv[1]) / sys.argv[2]\nout.mkdir()\n(out / 'dataset.json').touch()\n"
        "print(sorted(path.name for path in here.iterdir()))\n"
    )
    (laid / "cifar10/train_000.webp").touch()
    with pytest.raises(LeftOutError, match="holds 1 train sheets so far: lay the other half"):
        gpu_data.cifar10(place)

    (laid / "cifar10/train_000.webp").unlink()
    (laid / "cifar10/train_001.webp").touch()
    (laid / "cifar10/test_000.webp").touch()
    for split, count in (("train", 1025), ("test", 10)):
        np.save(laid / f"cifar10/{split}_labels.npy", np.zeros(count))
    found = gpu_data.cifar10(place)
    sheets = ["test_000.webp", "test_labels.npy", "train_000.webp", "train_001.webp", "train_labels.npy"]
    assert found == {"prepared": str(tmp_path / "data/cifar10"), "unpacked": [str(sheets)]}
    assert gpu_data.cifar10(place) == {"prepared": str(tmp_path / "data/cifar10")}


def test_a_trace_is_counted_by_steps(gpu: Any) -> None:
    from gpu_measure import counted

    events: list[dict[str, Any]] = []
    for step in (3, 4):
        events += [
            {"name": f"ProfilerStep#{step}", "cat": "user_annotation", "dur": 3000},
            {"name": f"ProfilerStep#{step}", "cat": "gpu_user_annotation", "dur": 2500},
            *({"name": "sgemm", "cat": "kernel", "dur": 400} for _ in range(3)),
            *({"name": "cudaLaunchKernel", "cat": "cuda_runtime", "dur": 5} for _ in range(3)),
            {"name": "cudaStreamSynchronize", "cat": "cuda_runtime", "dur": 5},
            {"name": "cudaMemcpyAsync", "cat": "cuda_runtime", "dur": 5},
        ]
    assert counted(events) == {
        "steps": 2, "clock_ms": 3.0, "kernels_ms": 1.2, "kernels": 3.0, "launches": 3.0,
        "waits": {"cudaStreamSynchronize": 1.0}, "copies": 1.0,
    }  # fmt: skip


def test_bits_are_compared_in_nested_states(gpu: Any) -> None:
    import torch

    from gpu_check import equal

    state = {"state": {0: {"step": torch.tensor(3.0), "name": "a"}}, "groups": [{"lr": 0.1, "params": [0, 1]}]}
    other = {"state": {0: {"step": torch.tensor(3.0), "name": "a"}}, "groups": [{"lr": 0.1, "params": [0, 1]}]}
    assert equal(state, other)
    other["state"][0]["step"] += 1e-6
    assert not equal(state, other)


def test_the_performance_table_takes_the_latest_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import performance_table

    spread = {"median": 0.9, "least": 0.8, "most": 1.0}
    found = {"workload": "lenet_mnist", "batch_size": 128, "options": ["trainer.compile=true"],
             "medians": {"ours": 1234567.8}, "ours_to_limit": spread}  # fmt: skip
    row = {"step": "lenet_128_compiled", "status": "ok", "device": "Card", "cores": 16, "versions": {"torch": "2.11"},
           "date": "2026-12-01T10:00:00+0000", "precision": "bf16-mixed", "figures": found}  # fmt: skip
    tried = {"row": "resnet9-16", "seed": 0, "test/accuracy": 0.9412, "seconds_from_process_start": 31.26,
             "seconds_of_training": 20.04}  # fmt: skip
    shared = {"jobs_per_gpu": 4, "mps": True, "slots": 4, "runs": 8, "runs_per_hour": 2400, "to_one_slot": 2.5}
    table = [shared, {"jobs_per_gpu": "auto", "mps": False, "slots": 8, "runs": 8, "runs_per_hour": 2800}]
    host = {"processor": {"medians": {"limit": 344.6, "ours": 367.1, "lightning": 1234.5}}}
    rows = [
        row | {"figures": found | {"batch_size": 1}}, row, row | {"step": "host_step", "figures": host},
        row | {"step": "trace", "figures": {"steps": 10}},
        row | {"step": "fast_cifar10", "figures": {"rows": [tried]}}, row | {"step": "late", "status": "left out"},
        row | {"step": "runs_at_once", "figures": {"table": table}},
    ]  # fmt: skip
    (tmp_path / "gpu_card_measure.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(performance_table, "RESULTS", tmp_path)
    lines = performance_table.table(everything=True).strip().splitlines()
    link = "[2026-12-01](../benchmarks/results/gpu_card_measure.jsonl)"
    assert lines[0] == "Card, 16 cores, PyTorch 2.11:"
    assert lines[4:] == [
        "| LeNet on mnist, batch 128, bf16-mixed, trainer.compile=true: ours / plain loop on tensors | "
        f"0.90 (0.80 to 1.00) (1,234,568 images/s) | {link} |",
        f"| the host's cost of a step | 367 µs (a plain loop: 345 µs, Lightning's defaults: 1,234 µs) | {link} |",
        "| resnet9-16 of study=fast_cifar10, seed 0 | "
        f"94.12% in 31.3 s from the start of the process (20.0 s of training) | {link} |",
        f"| 8 LeNets on one GPU, 4 at a time by MPS | 2,400 runs an hour (2.50 times one at a time) | {link} |",
        f"| 8 LeNets on one GPU, 8 at a time (jobs_per_gpu=auto) | 2,800 runs an hour | {link} |",
    ]
