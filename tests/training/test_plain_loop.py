"""A plain loop that knows nothing of the framework ends with the same weights."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from convolt.config.compose import compose
from convolt.training.run import run

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("trainer.max_epochs=2", "trainer.precision=32-true", "trainer.threads=1", "pictures.enabled=false", "seed=3")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write images of MNIST's kind, and return what names them."""
    folder, random = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for split, count in (("train", 334), ("test", 40)):  # 301 are trained on: the last batch of one is left out
        labels = np.arange(count) % 10
        images = random.integers(0, 128, (count, 28, 28, 1)).astype(np.uint8)
        images[np.arange(count), 2 * labels] = 255
        np.save(folder / f"x_{split}.npy", images)
        np.save(folder / f"y_{split}.npy", labels)
    shape = ("data.padding=2", "data.image_size=32", "data.channels=1", "data.num_classes=10")
    return ["data=arrays", f"data.path={folder}", f"data.root={folder / 'data'}", *shape]


@pytest.mark.parametrize(
    "options",
    [
        ["model=lenet", "optim=momentum", "augmentation=crop_flip", "data.batch_size=60"],
        ["model=lenet", "optim=adam", "scheduler=constant", "model.dropout=0.5", "data.batch_size=50"],
        ["model=resnet20", "optim=adam", "augmentation=[flip]", "data.batch_size=100"],
    ],
)
def test_every_bit_is_equal(arrays: list[str], tmp_path: Path, options: list[str]) -> None:
    run(compose([*arrays, *SHARED, *options]), tmp_path)
    plain_loop = runpy.run_path(str(ROOT / "examples/plain_loop.py"))
    assert plain_loop["main"](tmp_path) is False
    checkpoint = tmp_path / "checkpoints/epoch-0002.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    last = next(reversed(content["state_dict"].values()))
    last += torch.finfo(torch.float32).eps
    torch.save(content, checkpoint)
    assert plain_loop["main"](tmp_path) is True, "it would not see a difference"


def test_another_precision_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"precision": "bf16-mixed"}')
    with pytest.raises(SystemExit, match=r"was trained in bf16-mixed: .* as trainer\.precision=32-true does"):
        runpy.run_path(str(ROOT / "examples/plain_loop.py"))["main"](tmp_path)
