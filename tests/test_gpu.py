"""What holds on a GPU only; all of it is left out where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from convolt.callbacks.screen import Screen
from convolt.data.augment import Augmentation
from convolt.data.loader import BatchLoader, Preprocessing
from convolt.data.transforms import Affine, ColorJitter, Crop, CutMix, Cutout, Flip
from convolt.run import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CUDA = torch.device("cuda", 0)


class NoWaiting(Callback):
    """Makes PyTorch raise where the program waits for the GPU inside an epoch."""

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_validation_start(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


def with_callback(callback: Callback) -> Any:
    from convolt.trainer import _callbacks

    return lambda *args, **kwargs: [callback, *_callbacks(*args, **kwargs)]


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "all", "mixup"])
def test_an_epoch_never_waits_for_the_gpu(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: str
) -> None:
    monkeypatch.setattr("convolt.trainer._callbacks", with_callback(NoWaiting()))
    monkeypatch.setattr(Screen, "on_train_batch_end", lambda *_: None)  # the bar looks some times a second
    result = run(settings(f"augmentation={augmentation}", "optim=momentum", "scheduler=cosine"), tmp_path / "run")
    assert "NVIDIA" in result["device"]


def test_the_images_lie_on_the_gpu_and_one_run_equals_one_that_streams_them(train: Any) -> None:
    resident = train("augmentation=[crop,flip]", "trainer.deterministic=true", directory="a")
    streamed = train("augmentation=[crop,flip]", "trainer.deterministic=true", "data.device=cpu", directory="b")
    assert resident["metrics"] == streamed["metrics"]
    assert resident["precision"] == "bf16-mixed"


def test_a_deterministic_run_repeats_its_bits(train: Any) -> None:
    options = ("model=resnet18", "augmentation=all", "trainer.deterministic=true", "data.train_size=320")
    assert train(*options, directory="a")["metrics"] == train(*options, directory="b")["metrics"]


def test_augmentation_is_the_same_on_the_gpu() -> None:
    images = torch.randint(0, 256, (64, 16, 16, 3), dtype=torch.uint8)
    augmentation = Augmentation(
        {
            str(i): t
            for i, t in enumerate(
                [Crop(2), Flip(), Affine(20, 0.1), ColorJitter(0.3, 0.3, 0.3, 0.1), Cutout(), CutMix()]
            )
        }
    )
    batches = []
    for device in (torch.device("cpu"), CUDA):
        preprocessing = Preprocessing(1, 18, [0.5] * 3, [0.2] * 3, device)
        loader = BatchLoader(
            images.to(device), torch.arange(64, device=device) % 10, torch.arange(64), preprocessing, 64, device,
            epoch=lambda: 3, augmentation=augmentation, num_classes=10,
        )  # fmt: skip
        batches.append(next(iter(loader)))
    (here, targets), (there, targets_there) = batches
    torch.testing.assert_close(targets_there.cpu(), targets)
    # Bilinear sampling may fall on the other side of a pixel's edge.
    assert ((there.cpu() - here).abs() > 1e-3).float().mean() < 1e-3


def test_a_command_trains_on_the_gpu(command: Any, tmp_path: Path) -> None:
    done = command("model=resnet18", "trainer=gpu", "trainer.max_epochs=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["peak_memory_bytes"] > 10**7
    assert result["metrics"]["test/accuracy"] > 0.8
