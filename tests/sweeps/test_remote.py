"""Sweeps on Ray and SLURM: real engines on this machine, and what they would ask a cluster for."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import fake_slurm
from convolt.errors import UserError
from hydra_plugins.convolt_sweeps.remote_launcher import RemoteLauncher

ROOT = Path(__file__).resolve().parents[2]
ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
slurm = pytest.mark.skipif(find_spec("submitit") is None, reason="the extra slurm is not installed")
SMALL = ["trainer.max_epochs=2", "data.train_size=200", "trainer.accelerator=cpu", "pictures.enabled=false"]
LOCAL = ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.cpus_per_task=1"]
Make = Callable[..., Any]


@pytest.fixture
def start(data_root: Path, tmp_path: Path) -> Make:
    """Start `python train.py ...` as a user does; the callbacks of remote_probe can be named."""

    def make(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        known = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        # Ray makes its workers so nice that they hardly run at all beside other tests.
        calm = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        more = {"PYTHONPATH": known} | calm | (env or {})
        command = [sys.executable, str(ROOT / "train.py"), f"data.root={data_root}", *SMALL, *arguments]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | more, **pipes)

    return make


@pytest.fixture
def call(start: Make) -> Make:
    """Run such a command; return its exit status and what it printed."""

    def make(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        process = start(*arguments, env=env)
        try:
            output, errors = process.communicate(timeout=240)
        finally:
            process.kill()
        return process.returncode, output + errors

    return make


@pytest.fixture
def study(tmp_path: Path) -> Make:
    """Write a study of probed runs, {row: what it does}; return how it is named on the command line."""

    def make(**rows: str) -> list[str]:
        page = tmp_path / "pages/study/mine.yaml"
        page.parent.mkdir(parents=True)
        (tmp_path / "probe").mkdir()
        probe = {"_target_": "remote_probe.Probe", "folder": str(tmp_path / "probe")}
        base = [f"+callbacks.probe.{name}={value}" for name, value in probe.items()]
        listed = {
            row: {"overrides": [f"+callbacks.probe.name={row}", f"optim.lr=0.00{number}", *what.split()]}
            for number, (row, what) in enumerate(rows.items(), 1)
        }
        OmegaConf.save({"title": "Mine", "base": base, "runs": listed, "seeds": [0]}, page)
        page.write_text("# @package hydra.sweeper.study\n" + page.read_text())
        return ["study=mine", f"hydra.searchpath=[file://{tmp_path / 'pages'}]", "hydra.sweep.dir=study"]

    return make


def spans(tmp_path: Path) -> list[tuple[float, float, str, str]]:
    """Return from when to when each run that ended was trained last, and the GPU and slots that it saw."""
    found = []
    for file in (tmp_path / "probe").iterdir():
        lines = [line.split() for line in file.read_text().splitlines()]
        if lines[-1][0] == "ended":
            found.append((float(lines[-2][1]), float(lines[-1][1]), lines[-1][3], lines[-1][4]))
    return found


def most_at_once(found: list[tuple[float, float, str, str]]) -> int:
    return max(sum(one[0] <= other[0] < one[1] for one in found) for other in found)


def starts(tmp_path: Path) -> dict[str, int]:
    return {file.name: file.read_text().count("began") for file in (tmp_path / "probe").iterdir()}


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def runs_of(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {file.parent.parent.name: read(file) for file in (tmp_path / "study").glob("*/seed=0/status.json")}


@ray
def test_ray_gives_each_run_a_gpu_and_what_fails_fails_alone(call: Make, study: Make, tmp_path: Path) -> None:
    slow = "+callbacks.probe.seconds=0.7"
    rows = {"a": slow, "b": slow, "raises": "+callbacks.probe.once=raise", "dies": "+callbacks.probe.once=kill"}
    typed = [*study(**rows), "hydra/launcher=ray", "+hydra.launcher.init.num_cpus=2"]
    status, said = call(*typed, "+hydra.launcher.init.num_gpus=2", "hydra.launcher.num_gpus=1")
    assert status == 1, said
    assert "4 runs, 0 finished before; 2 at a time on Ray, 1 CPU and 1 GPU each" in said
    assert "2 of 4 runs finished" in said
    states = runs_of(tmp_path)
    assert {row: state["state"] for row, state in states.items()} == {
        "a": "finished", "b": "finished", "raises": "failed", "dies": "failed"
    }  # fmt: skip
    assert states["raises"]["error"] == "ValueError: what a pity"
    assert "its process was killed" in states["dies"]["error"]
    found = spans(tmp_path)
    assert len(found) == 2
    assert most_at_once(found) == 2
    assert {gpu for *_, gpu, _ in found} == {"0", "1"}
    for gpu in ("0", "1"):
        assert most_at_once([each for each in found if each[2] == gpu]) == 1
    assert {slots for *_, slots in found} == {"1"}

    # The same command finishes the study, and runs nothing twice; here two runs share the only GPU.
    status, said = call(*typed, "+hydra.launcher.init.num_gpus=1", "hydra.launcher.num_gpus=0.5")
    assert status == 0, said
    assert "4 runs, 2 finished before; 2 at a time on Ray, 1 CPU and 0.5 GPU each" in said
    assert starts(tmp_path) == {"a": 1, "b": 1, "raises": 2, "dies": 2}
    again = [each for each in spans(tmp_path) if each not in found]
    assert {each[2:] for each in again} == {("0", "2")}


@slurm
def test_submitit_local_goes_on_where_a_job_was_killed_or_told_to_stop(
    start: Make, call: Make, study: Make, tmp_path: Path, settings: Make
) -> None:
    from convolt.training.run import run

    typed = [*study(dies="+callbacks.probe.once=kill", stops="+callbacks.probe.seconds=1"), *LOCAL]
    process = start(*typed)
    wait_until(lambda: list(tmp_path.glob("study/stops/seed=0/checkpoints/epoch-0001.ckpt")))
    os.kill(read(tmp_path / "study/stops/seed=0/status.json")["pid"], signal.SIGUSR2)  # as SLURM does before the end
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "1 of 2 runs finished" in said
    states = runs_of(tmp_path)
    assert states["stops"]["state"] == "finished"  # started again at once
    assert states["dies"]["state"] == "failed"
    assert "its job was killed" in states["dies"]["error"]

    status, said = call(*typed)
    assert status == 0, said
    assert starts(tmp_path) == {"dies": 2, "stops": 2}
    done = read(tmp_path / "study/stops/seed=0/result.json")
    assert done["threads"] == 1
    assert (tmp_path / "study/stops/seed=0/output.log").read_text().count("resumes after epoch 1") == 1
    whole = run(settings(*SMALL, "optim.lr=0.002"), tmp_path / "whole")
    assert done["metrics"] == whole["metrics"]


@slurm
def test_slurm_is_asked_for_what_the_runs_need_and_queues_them_again(
    start: Make, study: Make, tmp_path: Path, settings: Make
) -> None:
    from convolt.training.run import run

    tools = fake_slurm.install(tmp_path / "slurm")
    options = ["partition=gpu", "timeout_min=90", "cpus_per_task=1", "mem_gb=16", "array_parallelism=8"]
    asked = ["hydra/launcher=slurm", *(f"hydra.launcher.{each}" for each in options)]
    process = start(*study(a="+callbacks.probe.seconds=1.5", b=""), *asked, env=tools)
    wait_until(lambda: list(tmp_path.glob("study/a/seed=0/checkpoints/epoch-0001.ckpt")))
    os.kill(read(tmp_path / "study/a/seed=0/status.json")["pid"], signal.SIGUSR2)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, said + errors
    assert "2 runs, 0 finished before; 2 at a time as jobs of SLURM, 1 CPU threads each" in said

    script = (tmp_path / "slurm/script.sh").read_text()
    folder = tmp_path / "study/.submitit/%A_%a/%A_%a_0_log"
    assert sorted(re.findall(r"^#SBATCH --(.*)$", script, re.MULTILINE)) == sorted([
        "array=0-1%2", "ntasks-per-node=1", "cpus-per-task=1", "gpus-per-node=1", "mem=16GB", "nodes=1",
        "partition=gpu", "job-name=mine", "open-mode=append", "requeue", "signal=USR2@120", "time=90", "wckey=submitit",
        f"error={folder}.err", f"output={folder}.out",
    ])  # fmt: skip
    command = script.splitlines()[-1]
    assert command.startswith("srun --unbuffered --output ")
    assert "submitit.core._submit" in command

    # The job was queued again by scontrol, and its run ends with the bits of one that was never stopped.
    assert (tmp_path / "slurm/0.queued").read_text() == "again\n"
    assert starts(tmp_path) == {"a": 2, "b": 1}
    done = read(tmp_path / "study/a/seed=0/result.json")
    assert done["metrics"] == run(settings(*SMALL, "optim.lr=0.001"), tmp_path / "whole")["metrics"]


@slurm
def test_what_sbatch_refuses_is_told_in_a_line(call: Make, study: Make, tmp_path: Path) -> None:
    tools = fake_slurm.install(tmp_path / "slurm")
    (tmp_path / "slurm/bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpuu' >&2; exit 1\n")
    status, said = call(*study(a=""), "hydra/launcher=slurm", "hydra.launcher.partition=gpuu", env=tools)
    assert status == 2, said
    assert "error: hydra/launcher=slurm: sbatch refused the jobs (sbatch: error: invalid partition: gpuu)" in said
    assert "Traceback" not in said


@ray
@slurm
def test_a_study_has_the_same_tables_by_every_launcher(call: Make, tmp_path: Path) -> None:
    ours = ["hydra.launcher.num_cpus=1", "+hydra.launcher.init.num_cpus=2"]
    debug = ["hydra/launcher=slurm", "hydra.launcher.cluster=debug", "hydra.launcher.cpus_per_task=1"]
    launchers = {"local": ["hydra.launcher.n_jobs=2"], "ray": ["hydra/launcher=ray", *ours], "slurm": debug}
    tables = {}
    for name, options in launchers.items():
        untuned = ["study=optimizers", "hydra.sweeper.tune=null", "model=lenet", "data=digits"]
        typed = [*untuned, "seed=0", "hydra.sweeper.report=true"]
        status, said = call(*typed, "hydra.sweeper.rows=[sgd,adam]", f"hydra.sweep.dir={name}", *options)
        assert status == 0, said
        assert "2 of 2 runs finished" in said
        assert "epoch 2/2" not in said
        assert "epoch 2/2" in (tmp_path / name / "adam/seed=0/output.log").read_text()
        files = sorted((tmp_path / name / "report/tables").glob("*.csv"))
        tables[name] = {file.name: without_times(file.read_text()) for file in files}
    assert tables["local"]
    assert tables["local"] == tables["ray"] == tables["slurm"]
    pids = {read(file)["pid"] for file in tmp_path.glob("slurm/*/seed=0/status.json")}
    assert len(pids) == 1  # submitit's debug executor, all in one process


def without_times(text: str) -> list[list[str]]:
    """Return a table's cells but those of what depends on the machine's load."""
    lines = [line.split(",") for line in text.splitlines()]
    of_the_machine = "second|time|memory|slots|shared|finished|images/s|training_share"
    changing = {n for n, name in enumerate(lines[0]) if re.search(of_the_machine, name)}
    return [[cell for n, cell in enumerate(line) if n not in changing] for line in lines]


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_a_missing_extra_is_told_in_a_line(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, f"convolt.sweeps.{engine}", raising=False)
    with pytest.raises(UserError, match=rf"needs packages that are missing .*pip install 'convolt\[{engine}\]'"):
        RemoteLauncher(engine).setup(hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]


@ray
@slurm
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hydra/launcher=ray hydra.launcher.num_gpus=1.5", "a part of 1, or a whole number"),
        ("hydra/launcher=ray hydra.launcher.num_cpus=0", "more than 0"),
        ("hydra/launcher=ray hydra.launcher.retries=-1", "0 or more"),
        ("hydra/launcher=ray trainer=ddp", "a sweep gives each run one device"),
        ("hydra/launcher=slurm hydra.launcher.cluster=slurmm", "did you mean 'slurm'"),
        ("hydra/launcher=slurm hydra.launcher.timeout_min=0", "minutes, more than 0"),
        ("hydra/launcher=slurm", "there is no SLURM on this machine"),
        ("hydra/launcher=slurm model=resnet81", "did you mean 'resnet18'"),
    ],
)
def test_mistakes_are_told_before_anything_starts(answer: Make, tmp_path: Path, typed: str, message: str) -> None:
    status, said = answer(f"-m {typed} seed=0,1 data.root={tmp_path / 'data'}")
    assert status == 2, said
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@ray
def test_ray_is_not_asked_for_what_it_does_not_have() -> None:
    from convolt.sweeps.ray import _count_slots

    assert _count_slots({"CPU": 16, "GPU": 4}, 4, 1) == 4
    assert _count_slots({"CPU": 16, "GPU": 4}, 2, 0.25) == 8
    assert _count_slots({"CPU": 3}, 1, 0) == 3
    with pytest.raises(UserError, match=r"hydra\.launcher\.num_gpus=1: Ray has 0 GPUs"):
        _count_slots({"CPU": 3}, 1, 1)
