"""Checkpoints that a thread writes while the next epoch trains: what they hold, their order, and what goes wrong."""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from convolt.errors import RunError
from convolt.runs.checkpoints import SafeCheckpointIO, intact_epochs
from convolt.runs.history import read_rows
from convolt.runs.state_copy import StateCopy
from convolt.system.background import Background
from convolt.system.signals import Interrupted
from convolt.tasks.classification import ClassificationTask
from convolt.tasks.task import Task
from convolt.training.callbacks import keep_checkpoints
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints

ADAM = ("optim=adam", "scheduler=onecycle", "augmentation=mixup", "trainer.early_stopping.patience=9")
SAVE = SafeCheckpointIO.save_checkpoint


class At(Callback):
    """Does something once when a step of an epoch, or the chunk that it is in, has ended."""

    def __init__(self, epoch: int, do: Callable[[], object]) -> None:
        self.epoch, self.do = epoch, do

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch and trainer.fit_loop.epoch_loop.batch_idx >= 3:
            self.epoch = -1
            self.do()


@pytest.fixture
def with_callback(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callback], None]:
    """Let a callback take part in the runs of this test, as one of ours."""
    from convolt.training.trainer import _callbacks

    def add(callback: Callback) -> None:
        monkeypatch.setattr("convolt.training.trainer._callbacks", lambda *a, **k: [callback, *_callbacks(*a, **k)])

    return add


@pytest.fixture
def before_writing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], None]:
    """Do something in the thread before it writes a file, whose name it is told."""

    def patch(do: Callable[[str], object]) -> None:
        def save(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            if storage_options is None:
                do(Path(path).name)
            SAVE(self, checkpoint, path, storage_options)

        monkeypatch.setattr(SafeCheckpointIO, "save_checkpoint", save)

    return patch


def contents(folder: Path) -> dict[str, Any]:
    return {path.name: torch.load(path, weights_only=True) for path in sorted((folder / "checkpoints").glob("*.ckpt"))}


def same(one: Any, other: Any) -> bool:
    """Compare bit by bit, but not what a clock has measured."""
    if isinstance(one, Tensor):
        return torch.equal(one, other) and one.stride() == other.stride() and one.dtype == other.dtype
    if isinstance(one, dict):
        keys = [key for key in one if "second" not in str(key)]
        return list(one) == list(other) and all(same(one[key], other[key]) for key in keys)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_files_hold_what_they_would_hold_if_training_had_stood_still(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_writing: Any
) -> None:
    complete, copied_late = StateCopy.complete, []

    def slowly(self: StateCopy) -> None:
        copied_late.append(len(self._late))
        time.sleep(0.2)  # the first step waits for it
        complete(self)

    with monkeypatch.context() as patch:
        patch.setattr(StateCopy, "complete", slowly)
        before_writing(lambda name: time.sleep(0.1))  # training goes on meanwhile
        train(*ADAM, "trainer.max_epochs=3", directory="thread")
    assert copied_late == [3, 3, 3]  # the largest layer and its two moments
    with monkeypatch.context() as patch:
        patch.setattr(Background, "start", lambda self, work: work())
        train(*ADAM, "trainer.max_epochs=3", directory="still")
    found, expected = contents(tmp_path / "thread"), contents(tmp_path / "still")
    assert list(found) == ["best.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt"]
    assert same(found, expected)
    assert found["best.ckpt"]["state_dict"]._metadata == expected["best.ckpt"]["state_dict"]._metadata
    for name, epochs in {
        "epoch-0002.ckpt": 2,
        "epoch-0003.ckpt": 3,
        "best.ckpt": found["best.ckpt"]["epoch"] + 1,
    }.items():
        assert intact_epochs(tmp_path / "thread/checkpoints" / name) == epochs
    assert not list((tmp_path / "thread").rglob("*.tmp"))


def test_a_task_that_changes_its_weights_between_epochs_waits_for_their_copy(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, start = StateCopy.complete, Task.on_train_epoch_start
    ended: list[dict[str, Any]] = []

    def slowly(self: StateCopy) -> None:
        time.sleep(0.2)
        complete(self)

    def begin(self: Any) -> None:
        ended.append({name: tensor.clone() for name, tensor in self.state_dict().items()})
        start(self)
        for parameter in self.parameters():
            parameter.data.mul_(0.5)

    monkeypatch.setattr(StateCopy, "complete", slowly)
    monkeypatch.setattr(ClassificationTask, "on_train_epoch_start", begin)
    train(*ADAM, "trainer.max_epochs=3")
    assert same(dict(contents(tmp_path / "run")["epoch-0002.ckpt"]["state_dict"]), ended[2])


def test_one_is_written_while_the_next_epoch_trains_and_none_beside_it(
    train: Any, tmp_path: Path, with_callback: Any, before_writing: Any
) -> None:
    seen: list[str] = []
    trains = threading.Event()

    def write(name: str) -> None:
        seen.append(name)
        if name == "epoch-0001.ckpt":
            assert trains.wait(60)
            time.sleep(0.3)
            seen.append("end of it")

    before_writing(write)
    with_callback(At(1, lambda: (seen.append("trains"), trains.set())))
    train("trainer.max_epochs=3")
    assert seen[:4] == ["epoch-0001.ckpt", "trains", "end of it", "best.ckpt"]
    assert [name for name in seen if name.startswith("epoch")] == [f"epoch-000{n}.ckpt" for n in (1, 2, 3)]
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"convolt-background"})
    index = json.loads((tmp_path / "run/checkpoints/index.json").read_text())
    assert set(index) == {"best.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt"}


@pytest.mark.parametrize("epoch", [1, 3], ids=["an epoch later", "at the end"])
def test_what_the_thread_runs_into_ends_the_run(
    train: Any, tmp_path: Path, before_writing: Any, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    whole = train("trainer.max_epochs=3", directory="whole")

    def fail(name: str) -> None:
        if name == f"epoch-{epoch:04d}.ckpt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context():
        before_writing(fail)
        with pytest.raises(RunError, match=r"no space is left on the disk of .*: free some, and the same command"):
            train("trainer.max_epochs=3")
        monkeypatch.undo()
    assert not (tmp_path / "run/result.json").exists()
    assert len(read_rows(tmp_path / "run/metrics.csv")) == min(epoch + 1, 3)
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "failed"
    assert train("trainer.max_epochs=3")["metrics"] == whole["metrics"]


@pytest.mark.parametrize(("epoch", "kept"), [(2, 1), (1, 0)])
def test_a_resumed_run_forgets_epochs_after_its_checkpoint(
    train: Any,
    tmp_path: Path,
    before_writing: Any,
    with_callback: Any,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    kept: int,
) -> None:
    """As where it was killed while a checkpoint was written."""

    def lose(name: str) -> None:
        if name == f"epoch-{epoch:04d}.ckpt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context():
        before_writing(lose)
        with pytest.raises(RunError):
            train("trainer.max_epochs=4")
        monkeypatch.undo()
    history, status = tmp_path / "run/metrics.csv", tmp_path / "run/status.json"
    assert len(read_rows(history)) == epoch + 1
    found: list[Any] = []
    with_callback(At(kept, lambda: found.extend((read_rows(history), json.loads(status.read_text())["epoch"]))))
    train("trainer.max_epochs=4")
    assert [row["epoch"] for row in found[0]] == list(range(1, kept + 1))
    assert found[1] == kept
    assert len(read_rows(history)) == 4


def stop() -> None:
    raise Interrupted(signal.SIGTERM)


def test_a_signal_lets_the_write_in_flight_end(
    train: Any, tmp_path: Path, with_callback: Any, before_writing: Any
) -> None:
    stopped = threading.Event()
    before_writing(lambda name: (stopped.wait(60), time.sleep(0.2)))
    with_callback(At(1, lambda: (stopped.set(), stop())))
    with pytest.raises(Interrupted):
        train("trainer.max_epochs=3")
    assert intact_epochs(tmp_path / "run/checkpoints/epoch-0001.ckpt") == 1
    assert intact_epochs(tmp_path / "run/checkpoints/best.ckpt") == 1


def test_a_signal_does_not_wait_for_ever(
    train: Any, tmp_path: Path, with_callback: Any, before_writing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(keep_checkpoints, "_GRACE_SECONDS", 0.1)
    before_writing(lambda name: gate.wait(60))
    with_callback(At(1, stop))
    try:
        with pytest.raises(Interrupted):
            train("trainer.max_epochs=3")
        assert not (tmp_path / "run/checkpoints/epoch-0001.ckpt").exists()
    finally:
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "convolt-background":
                thread.join()


def test_checkpoints_of_a_users_callback_are_written_at_once_beside_ours(
    train: Any, tmp_path: Path, before_writing: Any
) -> None:
    written: list[tuple[str, bool]] = []
    before_writing(lambda name: written.append((name, threading.current_thread() is threading.main_thread())))
    own = "{_target_: pytorch_lightning.callbacks.ModelCheckpoint, save_top_k: -1, filename: 'mine-{epoch}'}"
    train("trainer.max_epochs=3", f"+callbacks.mine={own}")
    folder = tmp_path / "run/checkpoints"
    index = json.loads((folder / "index.json").read_text())
    assert {"mine-epoch=0.ckpt", "mine-epoch=1.ckpt", "mine-epoch=2.ckpt", "epoch-0002.ckpt"} < set(index)
    assert all(intact_epochs(folder / name) for name in index)
    assert all(at_once == name.startswith("mine") for name, at_once in written)


def test_an_epochs_seconds_are_all_of_it_and_those_of_its_training_are_told_apart(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = KeepCheckpoints.on_train_epoch_end

    def slowly(*arguments: Any) -> None:
        time.sleep(1)
        keep(*arguments)

    monkeypatch.setattr(KeepCheckpoints, "on_train_epoch_end", slowly)
    began = time.perf_counter()
    result = train("trainer.max_epochs=3", "trainer.test=none")
    seconds = [row["seconds"] for row in read_rows(tmp_path / "run/metrics.csv")]
    assert min(seconds[1:]) > 1  # the first one has no checkpoint before it
    assert sum(seconds) < time.perf_counter() - began
    assert 0 < result["training_seconds"] < sum(seconds) - 2
