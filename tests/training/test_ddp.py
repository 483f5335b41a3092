"""Runs in two processes on this machine's CPU, held to the same run in one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from convolt.config.compose import compose
from convolt.data.loader import BatchLoader, Preprocessing
from convolt.errors import RunError, UserError
from convolt.inference.evaluate import evaluate
from convolt.inference.trained import TrainedRun
from convolt.runs.config_hash import config_hash
from convolt.system.files import read_json
from convolt.system.seeding import torch_seed
from convolt.system.signals import Interrupted
from convolt.training import ddp
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints
from convolt.training.resume import ResumePoint, check_resumable
from convolt.training.run import run

ROOT = Path(__file__).resolve().parents[2]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
ONE = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1"]
LONGER = ["trainer.max_epochs=3", "scheduler=onecycle", "optim=momentum"]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def small(data_root: Path, tiny: Path) -> Make:
    """Make the config of a LeNet on 81 images in steps of 26, 26, 26 and 3."""
    usual = [f"data.root={data_root}", "data=arrays", f"data.path={tiny}", "data.image_size=16", "data.batch_size=26"]
    usual += ["trainer.threads=1", "trainer.precision=32-true", "pictures.enabled=false", "trainer.max_epochs=1"]
    return lambda *overrides: compose([*usual, *overrides])


@pytest.fixture(scope="module")
def cut(small: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run in two processes that was interrupted after the first of three epochs."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with interrupted_after(1):
        run(small(*LONGER, *TWO), folder)
    return folder


@pytest.fixture(scope="module")
def whole(small: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The directories of the same run, uninterrupted, in one process and in two."""
    folder = tmp_path_factory.mktemp("whole")
    run(small(*LONGER, *ONE), folder / "one")
    run(small(*LONGER, *TWO), folder / "two")
    return folder / "one", folder / "two"


@contextmanager
def interrupted_after(epoch: int) -> Iterator[None]:
    """Interrupt a run when an epoch's checkpoint is written."""
    whole = KeepCheckpoints.on_train_epoch_end

    def cut(self: Any, trainer: Any, pl_module: Any) -> None:
        whole(self, trainer, pl_module)
        if trainer.current_epoch + 1 == epoch:
            raise Interrupted(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeepCheckpoints, "on_train_epoch_end", cut)
        with pytest.raises(Interrupted):
            yield


def rows(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()[1:]


def batches(count: int, batch_size: int, rank: int, world_size: int) -> BatchLoader:
    labels = torch.arange(count)
    images = torch.zeros(count, 4, 4, 1, dtype=torch.uint8)
    place: Any = {"rank": rank, "world_size": world_size}
    raw = Preprocessing(0, 4, [0.0], [1.0])
    return BatchLoader(images, labels, labels, raw, batch_size, torch.device("cpu"), epoch=lambda: 3, seed=1, **place)


@pytest.mark.parametrize("count", [40, 41, 43, 48, 64])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_every_step_has_the_images_of_one_process(count: int, world_size: int) -> None:
    alone = [batch.targets.tolist() for batch in batches(count, 16, 0, 1)]
    parts = [batches(count, 16, rank, world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(alone)}
    for joined, *shares in zip(alone, *parts, strict=True):
        counted = [label for share in shares for label in share.targets[: share.num_own].tolist()]
        assert sorted(counted) == sorted(joined)  # each once, whatever fills up a part
        assert [share.weight for share in shares] == [share.num_own * world_size / len(joined) for share in shares]
        assert all(len(share.images) == len(share.targets) >= 2 for share in shares)
        assert max(share.num_own for share in shares) - min(share.num_own for share in shares) <= 1


def gradients(small: Make, folder: Path, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train for an epoch at next to no rate; return the gradients of its steps, and the result."""
    probe = ["+callbacks.probe._target_=ddp_probe.KeepGradients", f"+callbacks.probe.file={folder}.pt"]
    result = run(small("optim=sgd", "optim.lr=1e-12", *probe, *overrides), folder)
    return torch.load(f"{folder}.pt", weights_only=True), result


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_the_gradients_of_every_step_are_those_of_the_joined_batch(small: Make, tmp_path: Path) -> None:
    one, alone = gradients(small, tmp_path / "one")
    two, together = gradients(small, tmp_path / "two", *TWO)
    assert len(one["steps"]) == len(two["steps"]) == 4
    for first, second in zip(one["steps"], two["steps"], strict=True):
        assert max(float(g.abs().max()) for g in first.values()) > 1e-2
        assert largest_difference(first, second) < 1e-6
    assert together["devices"] == 2
    assert together["effective_batch_size"] == alone["effective_batch_size"] == 26
    assert together["learning_rate"] == 1e-12
    assert together["images"] == alone["images"]
    for name in ("train/loss", "train/accuracy", "val/accuracy", "test/accuracy"):
        assert together["metrics"][name] == pytest.approx(alone["metrics"][name], abs=1e-5)


def test_synchronized_batchnorm_is_refused_on_cpus(small: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"between GPUs only; on a CPU set trainer\.sync_batchnorm=false"):
        run(small(*TWO, "trainer.sync_batchnorm=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run(small(*ONE, "trainer.sync_batchnorm=true", "trainer.max_epochs=1"), tmp_path / "one")["devices"] == 1


def test_one_process_measures_what_two_have_measured(small: Make, tmp_path: Path) -> None:
    # Bit for bit, on each image once; the last step of 3 images is filled up in the second process.
    result = run(small(*TWO, "batchnorm=before", "data.batch_size=27"), tmp_path / "two")
    found = evaluate(TrainedRun(tmp_path / "two"), ["split=val"])
    at_val = {k.removeprefix("val/"): v for k, v in result["metrics"].items() if k.startswith("val/")}
    assert found.metrics == at_val
    assert len(found.predicted.targets) == result["images"]["val"]


def test_one_directory_written_by_the_first_process_alone(whole: tuple[Path, Path]) -> None:
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if "tfevents" not in path.name} for folder in whole
    ]
    assert names[0] == names[1]
    assert len({len(list(folder.glob("events.out*"))) for folder in whole}) == 1
    assert [row.split(",")[0] for row in rows(whole[1])] == ["1", "2", "3"]
    assert (read_json(whole[1] / "status.json") or {})["pid"] == os.getpid()
    assert "LOCAL_RANK" not in os.environ
    assert not torch.distributed.is_initialized()


def test_a_run_goes_on_with_other_numbers_of_processes(
    small: Make, cut: Path, whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cut, tmp_path / "run")
    with interrupted_after(2):
        run(small(*LONGER, *ONE), tmp_path / "run")
    assert "processes 2 then, 1 now" in capsys.readouterr().out
    changed = run(small(*LONGER, *TWO), tmp_path / "run")
    assert "processes 1 then, 2 now" in capsys.readouterr().out
    alone = read_json(whole[0] / "result.json")
    assert changed["config_hash"] == alone["config_hash"]
    assert [row.split(",")[0] for row in rows(tmp_path / "run")] == ["1", "2", "3"]
    for name, value in alone["metrics"].items():
        assert changed["metrics"][name] == pytest.approx(value, abs=1e-4), name


def test_with_as_many_processes_as_before_the_bits_are_those_of_an_uninterrupted_run(
    small: Make, cut: Path, whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cut, tmp_path / "run")
    again = run(small(*LONGER, *TWO), tmp_path / "run")
    assert "under other conditions" not in capsys.readouterr().out
    assert again["metrics"] == read_json(whole[1] / "result.json")["metrics"]


def test_where_the_batches_depend_on_the_processes_another_number_is_refused(small: Make, tmp_path: Path) -> None:
    options = ["trainer.max_epochs=2", "augmentation=mixup"]
    with interrupted_after(1):
        run(small(*options, *TWO), tmp_path / "run")
    with pytest.raises(UserError, match=r"began with 2 devices: set trainer\.devices=2"):
        run(small(*options, *ONE), tmp_path / "run")
    found = ResumePoint(tmp_path, 1, None, {"processes": 2, "step_images": 52})
    with pytest.raises(UserError, match="2 devices and steps of 52 images, and would resume with 1 and 26"):
        check_resumable(found, {"dataset_hash": "", "processes": 1, "step_images": 26, "mixes": False}, print)


def test_a_batch_for_each_device_and_its_rate(small: Make, tmp_path: Path) -> None:
    options = ["trainer.batch_per=device", "trainer.learning_rate_rule=linear", "optim=sgd", "optim.lr=0.01"]
    result = run(small(*options, *TWO, "data.batch_size=13", "trainer.accumulate_grad_batches=2"), tmp_path / "run")
    assert result["effective_batch_size"] == 52
    assert result["learning_rate"] == 0.02
    assert result["learning_rate_rule"] == "linear"
    with pytest.raises(UserError, match="the batch does not grow"):
        small("trainer.learning_rate_rule=linear")
    with pytest.raises(UserError, match="each of 2 devices needs two images"):
        run(small(*TWO, "data.batch_size=3"), tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_the_hash_is_that_of_older_versions_and_of_any_number_of_devices(small: Make) -> None:
    cfg = small(*ONE)
    older = small(*ONE)
    for key in ("sync_batchnorm", "batch_per", "learning_rate_rule"):
        del older.trainer[key]
    del older.data.stage
    assert config_hash(cfg) == config_hash(older) == config_hash(small(*TWO))
    others = [small(*TWO, "trainer.batch_per=device"), small(*ONE, "trainer.batch_per=device")]
    others.append(small(*ONE, "trainer.sync_batchnorm=true"))
    assert len({config_hash(each) for each in [cfg, *others]}) == 4


def test_the_port_at_which_processes_meet_is_taken_before_they_know_it() -> None:
    store = ddp._open_store(2)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", store.port))
    machine: Any = SimpleNamespace(processes=2, threads=1)
    environment = ddp._worker_environment(machine, store.port)
    assert environment["MASTER_PORT"] == str(store.port)
    client = torch.distributed.TCPStore("127.0.0.1", store.port, 2, is_master=False)
    client.set("from", "another")
    assert store.get("from") == b"another"


def test_dropout_differs_between_processes() -> None:
    assert len({torch_seed(1, 0), torch_seed(1, 0, 1), torch_seed(1, 0, 2)}) == 3
    assert torch_seed(1, 0, 0) == torch_seed(1, 0)


def test_a_process_that_fails_is_named_with_its_traceback(small: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"process 2 of 2 ended with status 1 \(ValueError: what a pity\)"):
        run(small(*TWO, "+callbacks.fail._target_=ddp_probe.FailElsewhere"), tmp_path / "run")
    status = read_json(tmp_path / "run/status.json")
    assert status["state"] == "failed"
    assert "on_train_epoch_start" in status["traceback"]


def processes_below(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=2) for line in found.splitlines()]
    return [
        int(child)
        for child, parent, command in lines
        if int(parent) == pid and "convolt.training.ddp_worker" in command
    ]


def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("victim", ["first", "second, unnoticed"])
def test_a_killed_process_ends_the_other_soon(tmp_path: Path, tiny: Path, data_root: Path, victim: str) -> None:
    folder = tmp_path / "run"
    command = [
        *(sys.executable, str(ROOT / "train.py"), *TWO, "data=arrays", f"data.path={tiny}", f"data.root={data_root}"),
        *(
            "data.image_size=16",
            "trainer.max_epochs=100000",
            f"hydra.run.dir={folder}",
            "pictures.enabled=false",
            "trainer.threads=1",
        ),
    ]
    if victim == "second, unnoticed":
        command.append("+callbacks.wait._target_=ddp_probe.WaitForEver")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 90
        while not list(folder.glob("checkpoints/epoch-*.ckpt")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (second,) = processes_below(process.pid)
        began = time.monotonic()
        os.kill(process.pid if victim == "first" else second, signal.SIGKILL)
        if victim == "first":
            assert gone(second, 5)
            assert read_json(folder / "status.json")["state"] == "running"  # and the lock is free: cut off
        else:
            _, errors = process.communicate(timeout=25)
            assert time.monotonic() - began < 20
            line = "process 2 of 2 was killed by SIGKILL (out of memory?): the same command resumes after the last"
            assert process.returncode == 1
            assert line in errors
            assert "Traceback" not in errors
            status = read_json(folder / "status.json")
            assert status["state"] == "failed"
            assert status["error"].startswith(line)
        with FileLock(folder / ".lock", timeout=0):
            assert read_json(folder / "checkpoints/index.json")
    finally:
        process.kill()
        process.communicate()


def test_resume_takes_another_number_of_devices(cut: Path, tmp_path: Path, command_here: Make) -> None:
    shutil.copytree(cut, tmp_path / "run")
    done = command_here("resume=run", "trainer.devices=1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["devices"] == 1
    refused = command_here("resume=run", "optim.lr=1")
    assert refused.returncode == 2
    assert "takes no others" in refused.stderr
