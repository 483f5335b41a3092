"""Chunks of batches: the same bits, counters and checkpoints as batch by batch, however Lightning is handed them."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from convolt.config.settings import Settings
from convolt.data.loader import Batch, Chunk
from convolt.errors import UserError
from convolt.tasks.classification import ClassificationTask
from convolt.training.chunked import ChunkedOptimization, batches_of_a_chunk

FEW = ("data.train_size=210", "data.batch_size=20")  # 11 batches, the last of 10 images


def checkpoint(folder: Path, epoch: int = 2) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / f"checkpoints/epoch-{epoch:04d}.ckpt", weights_only=True)
    for timed in state["callbacks"].values():
        timed.pop("training_seconds", None)
        for row in timed.get("rows", ()):
            row["seconds"] = row["images_per_second"] = 0
    return state


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    "options",
    [
        ("optim=adam", "scheduler=onecycle", "model.dropout=0.2", "augmentation=[crop,mixup]"),
        ("trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.1", "optim=momentum"),
        ("trainer.precision=bf16-mixed", "scheduler=plateau", "scheduler.warmup_epochs=0.5"),
        ("trainer.precision=64-true", "scheduler=step", "trainer.early_stopping.patience=1"),
        ("debug.limit_batches=5", "trainer.accumulate_grad_batches=2", "optim=rmsprop"),
    ],
    ids=["onecycle", "accumulated", "plateau", "double", "limited"],
)
def test_a_chunk_ends_with_the_checkpoint_of_its_batches(train: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    single = train(*FEW, *options, "trainer.chunk=1", directory="1")
    for chunk in ("auto", "4"):
        result = train(*FEW, *options, f"trainer.chunk={chunk}", directory=chunk)
        assert result["config_hash"] == single["config_hash"]
        assert result["metrics"] == single["metrics"]
        assert equal(checkpoint(tmp_path / chunk), checkpoint(tmp_path / "1"))


@pytest.mark.parametrize(("before", "after"), [("1", "auto"), ("auto", "1"), ("3", "auto")])
def test_a_run_resumes_with_chunks_of_another_size(
    train: Any, tmp_path: Path, before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*FEW, "trainer.max_epochs=3", "scheduler=onecycle", "trainer.accumulate_grad_batches=2")
    train(*options, directory="whole")
    start = ClassificationTask.on_train_epoch_start

    def stop(self: Any) -> None:
        start(self)
        if self.current_epoch == 1:
            raise KeyError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "on_train_epoch_start", stop)
        with pytest.raises(KeyError):
            train(*options, f"trainer.chunk={before}")
    train(*options, f"trainer.chunk={after}")
    whole, resumed = checkpoint(tmp_path / "whole", 3), checkpoint(tmp_path / "run", 3)
    assert resumed["global_step"] == whole["global_step"] == 3 * 6
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(resumed[key], whole[key])


def test_what_looks_at_every_step_is_handed_single_batches(settings: Any) -> None:
    class Watching(ClassificationTask):
        def on_after_backward(self) -> None:
            pass

    def chunk(*overrides: str, task: type = ClassificationTask) -> int | None:
        return batches_of_a_chunk(Settings.of(settings(*overrides)), task)

    assert chunk() is None
    assert chunk("trainer.chunk=7") == 7
    own = "+callbacks.lr._target_=pytorch_lightning.callbacks.LearningRateMonitor"
    assert chunk("debug.profile=true") == chunk(own) == chunk(task=Watching) == 1
    assert chunk(own, "trainer.chunk=7") == 7


class Loader:
    """Twice as many batches as chunks."""

    def __init__(self, batches: list[Batch], *, chunked: bool) -> None:
        self.batches, self.chunked = batches, chunked

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        pairs = zip(self.batches[::2], self.batches[1::2], strict=True)
        return map(Chunk, pairs) if self.chunked else iter(self.batches)


class CountHooks(Callback):
    """Counts the hooks of batches and of steps."""

    def __init__(self) -> None:
        self.batches = self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.steps += 1


SGD = partial(torch.optim.SGD, lr=0.1)


def fit(
    *, chunked: bool, scaled: bool = False, kind: type[ClassificationTask] = ClassificationTask,
    optimizer: Callable[..., Optimizer] = SGD, **options: Any,
) -> tuple[list[torch.Tensor], pl.Trainer, list[int]]:  # fmt: skip
    torch.manual_seed(0)
    task = kind(nn.Linear(2, 3), 3, optimizer)
    batches = [Batch(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]), 4, 1.0) for _ in range(6)]
    hooks, seen = CountHooks(), []
    if scaled:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        options["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler)]
    trainer = pl.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, callbacks=[hooks], **options,
    )  # fmt: skip
    loop = trainer.fit_loop.epoch_loop
    loop.automatic_optimization = ChunkedOptimization(trainer, lambda _, number: seen.append(number))
    trainer.fit(task, Loader(batches, chunked=chunked))
    assert "train/loss" in trainer.callback_metrics
    return list(task.network.parameters()), trainer, [hooks.batches, hooks.steps, *seen]


@pytest.mark.parametrize("scaled", [False, True])
def test_lightning_counts_the_batches_of_chunks_and_scales_their_losses(*, scaled: bool) -> None:
    single, before, hooks = fit(chunked=False, scaled=scaled)
    chunked, after, chunk_hooks = fit(chunked=True, scaled=scaled)
    assert equal(chunked, single)
    assert before.global_step == after.global_step == 12
    assert hooks == [12, 12]
    assert chunk_hooks == [6, 12 if scaled else 0, *range(6), *range(6)]
    states = [trainer.fit_loop.state_dict() for trainer in (before, after)]
    assert equal(*states)
    if scaled:
        assert isinstance(after.precision_plugin, MixedPrecision)
        assert after.precision_plugin.state_dict() == before.precision_plugin.state_dict()


@pytest.mark.parametrize(("options", "steps"), [({"max_steps": 5}, 5), ({"limit_train_batches": 3}, 6)])
def test_training_stops_within_a_chunk_where_lightning_would(options: dict[str, int], steps: int) -> None:
    single, chunked = fit(chunked=False, **options), fit(chunked=True, **options)
    assert equal(chunked[0], single[0])
    assert chunked[1].global_step == single[1].global_step == steps


class Own(torch.optim.SGD):
    """Calls its closure without gradients, by the name that Lightning gives it."""

    @torch.no_grad()
    def step(self, *, closure: Callable[[], torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        loss = closure()
        super().step()
        return loss


@pytest.mark.parametrize("accumulated", [1, 4])
@pytest.mark.parametrize("optimizer", [Own, partial(torch.optim.LBFGS, lr=0.1, max_iter=3, history_size=4)])
def test_an_optimizer_calls_its_closure_as_it_likes(optimizer: Callable[..., Optimizer], accumulated: int) -> None:
    (one, before, _), (other, after, _) = (
        fit(chunked=chunked, optimizer=optimizer, accumulate_grad_batches=accumulated) for chunked in (False, True)
    )
    assert equal(other, one)
    assert equal(after.optimizers[0].state_dict(), before.optimizers[0].state_dict())  # with the loss that it was told
    assert equal(after.fit_loop.state_dict(), before.fit_loop.state_dict())


def test_an_optimizer_that_computes_no_gradients_is_refused() -> None:
    class Deaf(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()

    with pytest.raises(UserError, match=r"Deaf\.step does not call its closure"):
        fit(chunked=True, optimizer=Deaf)


def test_the_hooks_of_a_task_are_called_in_chunks_too() -> None:
    class Watching(ClassificationTask):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("train/doubled", 2 * loss, batch_size=len(batch.images), on_epoch=True)
            return None if batch_idx == 1 else {"loss": loss}

        def on_after_backward(self) -> None:
            for parameter in self.parameters():
                assert parameter.grad is not None
                parameter.grad.sign_()

    (one, before, _), (other, after, _) = (fit(chunked=chunked, kind=Watching) for chunked in (False, True))
    assert equal(other, one)
    assert not equal(one, fit(chunked=False)[0])
    names = ("train/loss", "train/doubled_epoch")
    assert [after.callback_metrics[name] for name in names] == [before.callback_metrics[name] for name in names]


@pytest.mark.parametrize(("precision", "fused"), [("32-true", False), ("bf16-mixed", True)])
def test_gradients_are_clipped_where_that_is_wanted(precision: Any, fused: bool) -> None:
    def moved(clip: float | None) -> float:
        torch.manual_seed(0)
        task = ClassificationTask(nn.Linear(2, 3), 3, lambda p: torch.optim.SGD(p, lr=1.0, fused=fused))
        before = torch.cat([p.detach().flatten() for p in task.parameters()])
        trainer = pl.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            gradient_clip_val=clip, accelerator="cpu", precision=precision,
        )  # fmt: skip
        batches = [Batch(100 * torch.ones(4, 2), torch.tensor([0, 1, 2, 0]), 4, 1.0)]
        trainer.fit(task, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
        return float((torch.cat([p.detach().flatten() for p in task.parameters()]) - before).norm())

    assert moved(None) > 1
    assert math.isclose(moved(0.01), 0.01, abs_tol=1e-4)
