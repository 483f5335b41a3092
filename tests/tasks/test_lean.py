import inspect
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from convolt.data.loader import Batch
from convolt.tasks.classification import ClassificationTask
from convolt.tasks.lean import NoProfiler


def test_the_running_hook_is_known_and_parameters_stay_registered() -> None:
    task = ClassificationTask(nn.Linear(2, 3), 3, lambda p: torch.optim.SGD(p, lr=0.1))
    task._current_fx_name = "training_step"
    assert task._current_fx_name == "training_step"
    task.extra = nn.Parameter(torch.zeros(2))
    assert {"extra", "network.weight"} <= set(dict(task.named_parameters()))


def test_lightning_knows_the_hook_it_runs() -> None:
    seen: list[Any] = []

    class Task(ClassificationTask):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append(self._current_fx_name)
            return super().training_step(batch, batch_idx)

    task = Task(nn.Linear(2, 3), 3, lambda p: torch.optim.SGD(p, lr=0.1))
    batches = [Batch(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]), 4, 1.0)] * 2
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, profiler=NoProfiler()
    )
    trainer.fit(task, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert seen == ["training_step"] * 2
    assert "train/loss" in trainer.callback_metrics


def test_the_profiler_lets_everything_through() -> None:
    with NoProfiler().profile("anything"):
        pass


def test_steps_carry_their_own_signature() -> None:
    class Task(ClassificationTask):
        def training_step(self, batch: Any, batch_idx: int, more: int = 0) -> torch.Tensor:
            return super().training_step(batch, batch_idx)

    assert inspect.getfullargspec(ClassificationTask.training_step).args == ["self", "batch", "batch_idx"]
    assert inspect.getfullargspec(Task.training_step).args == ["self", "batch", "batch_idx", "more"]
    assert inspect.getfullargspec(Task.test_step).args == ["self", "batch", "batch_idx"]


def test_batches_are_moved_only_where_they_have_to_be() -> None:
    task = ClassificationTask(nn.Linear(2, 3), 3, lambda p: torch.optim.SGD(p, lr=0.1))
    batch = Batch(torch.zeros(2), torch.ones(2), 2, 0.5)
    assert task.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    elsewhere = task.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {elsewhere.images.device.type, elsewhere.targets.device.type} == {"meta"}
    assert (elsewhere.num_own, elsewhere.weight) == (2, 0.5)
    named = task.transfer_batch_to_device({"images": batch[0]}, torch.device("meta"), 0)
    assert named["images"].device.type == "meta"


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
    assert abs(moved(0.01) - 0.01) < 1e-4
