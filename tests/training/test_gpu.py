"""What holds on a GPU only; all of it is left out where there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from convolt.data import loader
from convolt.data.augment import Augmentation
from convolt.data.loader import BatchLoader, Preprocessing
from convolt.data.transforms import Affine, ColorJitter, Crop, CutMix, Cutout, Flip
from convolt.inference.evaluate import compare, evaluate
from convolt.inference.trained import Predictor, TrainedRun
from convolt.system.cublas import make_cublas_deterministic
from convolt.training.callbacks.screen import Screen
from convolt.training.run import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CUDA = torch.device("cuda", 0)

make_cublas_deterministic()  # before any product of this process: PyTorch looks at the environment once


class NoWaiting(Callback):
    """Makes PyTorch raise where the program waits for the GPU inside an epoch, its loader and all callbacks included.

    The first two steps are left out: the loader draws for the whole epoch before its first batch, and cuDNN tries its
    algorithms. From then on all is watched, until the last step has ended.
    """

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        watched = 1 <= batch_idx < trainer.num_training_batches - 1
        torch.cuda.set_sync_debug_mode("error" if watched else "default")

    def on_validation_start(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


def with_callback(callback: Callback) -> Any:
    from convolt.training.trainer import _callbacks

    return lambda *args, **kwargs: [callback, *_callbacks(*args, **kwargs)]


@pytest.mark.parametrize("place", ["auto", "cpu"])
@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "all", "mixup"])
def test_an_epoch_never_waits_for_the_gpu(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: str, place: str
) -> None:
    monkeypatch.setitem(loader._CHUNK_BYTES, "cuda", 0)  # each batch is made when it is asked for
    monkeypatch.setattr("convolt.training.trainer._callbacks", with_callback(NoWaiting()))
    monkeypatch.setattr(Screen, "show_step", lambda *_: None)  # the bar looks some times a second
    result = run(
        settings(f"augmentation={augmentation}", "optim=momentum", "scheduler=cosine", f"data.device={place}"),
        tmp_path / "run",
    )
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
        batches_of = BatchLoader(
            images.to(device), torch.arange(64, device=device) % 10, torch.arange(64), preprocessing, 64, device,
            epoch=lambda: 3, augmentation=augmentation, num_classes=10,
        )  # fmt: skip
        batches.append(next(iter(batches_of)))
    (here, targets, *_), (there, targets_there, *_) = batches
    torch.testing.assert_close(targets_there.cpu(), targets)
    # Bilinear sampling may fall on the other side of a pixel's edge.
    assert ((there.cpu() - here).abs() > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
def test_gradients_of_a_fused_optimizer_are_clipped(train: Any, precision: str) -> None:
    options = ("trainer.gradient_clip_val=0.01", f"trainer.precision={precision}", "optim=momentum", "optim.lr=0.01")
    fused = train(*options, "trainer.fused=true", directory="a")
    plain = train(*options, "trainer.fused=false", directory="b")
    assert fused["metrics"]["train/loss"] == pytest.approx(plain["metrics"]["train/loss"], rel=0.02)


def test_the_peak_is_the_gpus_and_the_search_for_a_batch_is_not_in_it(train: Any) -> None:
    # cuDNN tries its algorithms once a shape, with all the memory that they take: in the first run alone.
    options = ("trainer.max_epochs=1", "data.train_size=600", "trainer.cudnn_benchmark=false")
    found = train("trainer.find_batch_size=true", *options, directory="a")
    asked = train(f"data.batch_size={found['batch_size']}", *options, directory="b")
    assert found["peak_memory_bytes"] < 1.2 * asked["peak_memory_bytes"]
    assert asked["peak_memory_bytes"] < 2**30  # the host's would be more


@pytest.mark.parametrize(
    "options",
    [
        ("model=resnet9",),
        ("model=vgg11", "data.image_size=64", "model.head=imagenet"),
        ("model=alexnet", "data.image_size=128", "model.head=imagenet"),
        ("model=alexnet_paper", "data.image_size=224"),
        ("model=fcn8s", "data=shapes", "task.loss=both"),
    ],
    ids=lambda options: options[0],
)
def test_networks_whose_gradients_have_no_repeatable_form_repeat_their_bits(
    train: Any, options: tuple[str, ...]
) -> None:
    results = [train(*options, "trainer.deterministic=true", "debug=smoke", directory=name) for name in ("a", "b")]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["deterministic"]


@pytest.mark.parametrize("batches", [1, 2])
def test_gradients_are_right_in_a_compiled_network(train: Any, batches: int) -> None:
    """Of one batch at a time by graphs that are replayed; where they are added up, without."""
    options = (f"trainer.accumulate_grad_batches={batches}", "trainer.precision=32-true", "data.train_size=512")
    plain = train(*options, "trainer.compile=false", directory="a")
    fast = train(*options, "trainer.compile=true", directory="b")
    assert fast["metrics"]["train/loss"] == pytest.approx(plain["metrics"]["train/loss"], rel=0.02)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_a_run_is_evaluated_and_predicts_as_it_was_tested(train: Any, tmp_path: Path, precision: str) -> None:
    train(f"trainer.precision={precision}", "trainer.deterministic=true", "trainer.tf32=false")
    trained = TrainedRun(tmp_path / "run")
    evaluation = evaluate(trained)
    assert compare(trained, evaluation) == []
    assert not torch.backends.cudnn.allow_tf32
    stored = evaluation.data._stored("test")[evaluation.data.indices["test"]]
    predictor = Predictor.load(trained)
    said = torch.cat([predictor(part) for part in torch.from_numpy(stored).split(predictor.batch_size)])
    assert np.array_equal(said.numpy(), np.load(tmp_path / "run/predictions.npz")["probabilities"])


def test_images_stay_in_main_memory_where_training_needs_the_gpu(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolt.training.build.training_bytes", lambda *_: 2**60)
    seen = []
    monkeypatch.setattr(BatchLoader, "_gather", _noting(seen, BatchLoader._gather))
    train("trainer.max_epochs=1")
    assert seen


def _noting(seen: list[Any], function: Any) -> Any:
    return lambda *arguments: seen.append(arguments) or function(*arguments)


def test_a_command_trains_on_the_gpu(command: Any, tmp_path: Path) -> None:
    done = command("model=resnet18", "trainer=gpu", "trainer.max_epochs=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["peak_memory_bytes"] > 10**7
    assert result["metrics"]["test/accuracy"] > 0.8
