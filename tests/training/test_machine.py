"""What `auto` becomes, and that it reaches PyTorch in a run, an evaluation and a prediction; GPUs are played here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from convolt.config.settings import Settings
from convolt.errors import RunError, UserError
from convolt.inference.evaluate import compare, evaluate
from convolt.inference.trained import Predictor, TrainedRun
from convolt.system import memory
from convolt.system.cublas import WORKSPACE
from convolt.training import start
from convolt.training.build import Experiment, largest_batch
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
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H100")


def machine_of(cfg: DictConfig, rank: int = 0) -> Machine:
    return Machine.of(Settings.of(cfg).trainer, rank)


def test_what_auto_becomes_on_a_gpu(gpu: None, settings: Any) -> None:
    machine = machine_of(settings("trainer.devices=[1]"))
    assert (machine.device, machine.precision) == (torch.device("cuda", 1), "bf16-mixed")
    record = machine.record()
    assert [record[name] for name in ("channels_last", "tf32", "cudnn_benchmark", "deterministic")] == [
        True, True, True, False
    ]  # fmt: skip
    assert not machine_of(settings("trainer.deterministic=true")).cudnn_benchmark
    assert machine.fused
    old = settings("trainer.devices=[1]")
    for name in ("tf32", "cudnn_benchmark", "fused"):  # of a run that was made before there were such keys
        del old.trainer[name]
    assert machine_of(old) == machine


def test_each_process_of_a_run_has_its_device_and_its_share_of_the_threads(
    gpu: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLT_THREADS", "6")
    cfg = settings("trainer.devices=[1,0]", "trainer.threads=auto", "trainer.strategy=ddp")
    ranks = [machine_of(cfg, rank) for rank in (0, 1)]
    assert [str(machine.device) for machine in ranks] == ["cuda:1", "cuda:0"]
    assert [(machine.processes, machine.threads) for machine in ranks] == [(2, 3), (2, 3)]
    assert ranks[0].trainer_arguments()["devices"] == [1, 0]
    typed = settings("trainer.devices=2", "trainer.threads=5")
    assert machine_of(typed).threads == 5
    alone = Machine.of(Settings.of(typed).trainer, one_device=True)
    assert (alone.processes, str(alone.device)) == (1, "cuda:0")
    cpu = machine_of(settings("trainer.accelerator=cpu", "trainer.precision=16-mixed"))
    assert (cpu.precision, cpu.fused) == ("bf16-mixed", None)  # as Lightning has it


def test_a_machine_reaches_pytorch(gpu: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    machine_of(settings("trainer.tf32=false")).apply()
    state = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
    assert state == (True, False, "highest")
    assert os.environ[WORKSPACE] == ":4096:8"  # for a later run that is to repeat its bits: PyTorch looks once
    machine_of(settings("trainer.deterministic=true")).apply()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_a_deterministic_run_tells_cublas_before_torch_is_imported(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    seen: list[str | None] = []

    def imports(**_: Any) -> Any:
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
        assert (machine.precision, machine.tf32, machine.deterministic) == (precision, False, True)
        assert machine.cudnn_benchmark
    assert len(applied) == 2
    typed = Machine.of(trained.settings.trainer.model_copy(update={"precision": "32-true"}))
    assert typed.as_recorded(trained.result).precision == precision
    assert typed.as_recorded(trained.result, but={"precision"}).precision == "32-true"
    trained.result["device"] = "another processor"
    assert Predictor.load(trained).machine.precision == "32-true"


def test_the_peak_is_that_of_the_device_that_trains_and_begins_after_the_search(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Any] = []
    monkeypatch.setattr(
        "convolt.training.build.reset_peak_memory", lambda device: order.append(("forget", str(device)))
    )
    monkeypatch.setattr("convolt.training.build.largest_batch", lambda *_: order.append("search") or 64)
    monkeypatch.setattr("convolt.training.result.peak_memory", lambda device: order.append(("peak", device)) or 7)
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
    experiment = Experiment(Settings.of(cfg), machine_of(cfg), None, None, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"looks at one device: set data\.batch_size for several"):
        largest_batch(experiment)


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
def test_what_does_not_repeat_its_bits_is_named(settings: Any, tmp_path: Path, said: str, line: str) -> None:
    cfg = settings()
    with (
        pytest.raises(RunError) as caught,
        explain_failures("training", Settings.of(cfg), tmp_path, machine_of(cfg)),
    ):
        raise RuntimeError(said)
    assert str(caught.value).startswith(line)


def test_the_advice_after_a_failure_looks_at_what_auto_became(gpu: None, settings: Any, tmp_path: Path) -> None:
    advice = []
    for options in ((), ("trainer.precision=32-true",)):
        cfg = settings(*options)
        with (
            pytest.raises(RunError) as caught,
            explain_failures("training", Settings.of(cfg), tmp_path, machine_of(cfg)),
        ):
            raise MemoryError
        advice.append("trainer.precision=bf16-mixed" in str(caught.value))
    assert advice == [False, True]
