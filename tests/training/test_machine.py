"""What `auto` becomes, and that it reaches PyTorch in a run, an evaluation and a prediction; GPUs are played here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from convolt.errors import RunError, UserError
from convolt.inference.evaluate import compare, evaluate
from convolt.inference.trained import Predictor, TrainedRun
from convolt.system import memory
from convolt.system.cublas import WORKSPACE
from convolt.training import start
from convolt.training.build import largest_batch
from convolt.training.failures import explain_failures
from convolt.training.machine import Machine
from convolt.training.trainer import _leave_signals_to_us


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as far as questions go."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))


def test_what_auto_becomes_on_a_gpu(gpu: None, settings: Any) -> None:
    machine = Machine.of(settings("trainer.devices=[1]").trainer)
    assert (machine.device, machine.precision) == (torch.device("cuda", 1), "bf16-mixed")
    assert machine.record() == {
        "channels_last": True, "tf32": True, "cudnn_benchmark": True, "deterministic": False
    }  # fmt: skip
    assert not Machine.of(settings("trainer.deterministic=true").trainer).cudnn_benchmark
    old = settings().trainer
    for name in ("tf32", "cudnn_benchmark"):  # of a run that was made before there were such keys
        del old[name]
    assert Machine.of(old).record() == machine.record()


def test_a_machine_reaches_pytorch(gpu: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    Machine.of(settings("trainer.tf32=false").trainer).apply()
    state = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
    assert state == (True, False, "highest")
    assert os.environ[WORKSPACE] == ":4096:8"  # for a later run that is to repeat its bits: PyTorch looks once
    Machine.of(settings("trainer.deterministic=true").trainer).apply()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_a_deterministic_run_tells_cublas_before_torch_is_imported(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    seen: list[str | None] = []

    def imports() -> Any:
        seen.append(os.environ.get(WORKSPACE))
        raise ImportError("torchvision")

    monkeypatch.setattr(start, "fast_imports", imports)
    for options in ((), ("trainer.deterministic=true",)):
        with pytest.raises(UserError):
            start.start_run(settings(*options), tmp_path / "run")
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with pytest.raises(UserError):
        start.start_run(settings("trainer.deterministic=true"), tmp_path / "run")
    assert seen == [None, ":4096:8", ":16:8"]


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_network_is_used_as_it_was_tested(
    train: Any, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    options = ("model=resnet9", "model.width=8", "trainer.max_epochs=1", "data.train_size=200")
    more = (
        "trainer.tf32=false",
        "trainer.cudnn_benchmark=true",
        "data.eval_batch_size=200",
        "trainer.deterministic=true",
    )
    result = train(f"trainer.precision={precision}", *options, *more)
    assert (result["precision"], result["tf32"], result["cudnn_benchmark"], result["deterministic"]) == (
        precision, False, True, True
    )  # fmt: skip
    trained = TrainedRun(tmp_path / "run")
    applied: list[Machine] = []
    apply = Machine.apply
    monkeypatch.setattr(Machine, "apply", lambda self, *a: applied.append(self) or apply(self, *a))
    evaluation = evaluate(trained)
    assert compare(trained, evaluation) == []
    predictor = Predictor.load(trained)
    stored = torch.from_numpy(np.load(data_root / "digits/test_images.npy"))
    said = torch.cat([predictor(part) for part in stored.split(predictor.batch_size)])
    np.testing.assert_array_equal(said.numpy(), np.load(tmp_path / "run/predictions.npz")["probabilities"])
    for machine in applied:
        assert (machine.precision, machine.record()["tf32"], machine.deterministic) == (precision, False, True)
        assert machine.cudnn_benchmark
    assert len(applied) == 2
    elsewhere = trained.trainer_settings(trained.cfg.trainer, torch.device("cpu"), typed=["precision"])
    assert elsewhere.precision == precision
    trained.result["device"] = "another processor"
    assert Predictor.load(trained).machine.precision == "32-true"


def test_the_peak_is_that_of_the_device_that_trains_and_begins_after_the_search(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Any] = []
    monkeypatch.setattr("convolt.training.run.reset_peak_memory", lambda device: order.append(("forget", str(device))))
    monkeypatch.setattr("convolt.training.run.largest_batch", lambda *_: order.append("search") or 64)
    monkeypatch.setattr("convolt.training.run.peak_memory", lambda device: order.append(("peak", device)) or 7)
    monkeypatch.setattr(pl.Trainer, "fit", _noting(order, "fit", pl.Trainer.fit))
    result = train("trainer.find_batch_size=true", "trainer.max_epochs=1", "data.train_size=128")
    assert order == ["search", ("forget", "cpu"), "fit", ("peak", "cpu")]
    assert result["peak_memory_bytes"] == 7
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(("reset", device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(("max", device)) or 5)
    memory.reset_peak_memory("cuda:1")
    assert memory.peak_memory("cuda:1") == 5
    assert asked == ["init", ("reset", "cuda:1"), ("max", "cuda:1")]


def _noting(order: list[Any], name: str, function: Any) -> Any:
    return lambda *arguments, **more: order.append(name) or function(*arguments, **more)


def test_a_batch_is_not_searched_for_where_auto_finds_several_gpus(gpu: None, settings: Any) -> None:
    cfg = settings("trainer.find_batch_size=true", "trainer.devices=auto")
    with pytest.raises(UserError, match=r"looks at one device: set data\.batch_size for several"):
        largest_batch(cfg, None, None, None)  # type: ignore[arg-type]


def test_lightning_asks_no_process_at_each_step_whether_it_was_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *a, **k: asked.append(a))
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()
    assert len(asked) == 1  # else nothing has to be kept from it any more
    _leave_signals_to_us(trainer)
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set ...",
         "trainer.deterministic=true: grid_sampler_2d_backward has no form that repeats its bits"),
        ("Deterministic behavior was enabled ... you must set an environment variable before running your PyTorch "
         "application: CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG=:16:8.",
         "trainer.deterministic=true: this process has used the GPU before and not told cuBLAS to repeat its bits: "
         "set CUBLAS_WORKSPACE_CONFIG=:4096:8 before Python starts"),
    ],
)  # fmt: skip
def test_what_does_not_repeat_its_bits_is_named(tmp_path: Path, said: str, line: str) -> None:
    with pytest.raises(RunError) as caught, explain_failures("training", OmegaConf.create(), tmp_path):
        raise RuntimeError(said)
    assert str(caught.value).startswith(line)
