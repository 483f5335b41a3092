"""Test-time flip: in training nothing, in evaluation the same everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convolt.inference import evaluate, export
from convolt.inference.trained import Predictor, TrainedRun
from convolt.tasks.classification import ClassificationTask
from convolt.tasks.tta import average_mirrored


def test_the_logits_are_the_mean_over_both_views() -> None:
    images = torch.arange(12.0).view(1, 1, 3, 4)
    columns = nn.Linear(4, 2)

    class LastRow(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return columns(images[:, 0, -1])

    row = torch.tensor([[8.0, 9.0, 10.0, 11.0]])
    expected = (columns(row) + columns(row.flip(1))) / 2
    torch.testing.assert_close(average_mirrored(LastRow(), images), expected)

    task = ClassificationTask(LastRow(), 2, lambda p: torch.optim.SGD(p, lr=0.1), test_time_flip=True)
    torch.testing.assert_close(task.eval()(images), expected)
    torch.testing.assert_close(task.train()(images), columns(row))


def test_logits_of_pixels_are_mirrored_back() -> None:
    images = torch.randn(2, 1, 3, 4)
    assert torch.equal(average_mirrored(nn.Identity(), images), images)  # each pixel says itself, from both sides


def test_every_command_evaluates_as_the_run_did(train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("trainer.max_epochs=3", "trainer.precision=32-true", "data.eval_batch_size=359")
    plain = train(*options, directory="plain")
    flipped = train(
        *options, "task.test_time_flip=true", "pictures.enabled=true", "pictures.graph=false", directory="f"
    )
    learnt = {name: value for name, value in plain["metrics"].items() if name.startswith("train/")}
    assert learnt.items() <= flipped["metrics"].items()
    assert plain["metrics"]["test/loss"] != flipped["metrics"]["test/loss"]
    assert plain["metrics"]["val/loss"] != flipped["metrics"]["val/loss"]

    assert evaluate.main([str(tmp_path / "f")]) == 0
    assert "bit for bit" in capsys.readouterr().out
    run = TrainedRun(tmp_path / "f")
    kept = np.load(tmp_path / "f" / "predictions.npz")
    data_root = Path(str(run.settings.data.root))
    stored = torch.from_numpy(np.load(data_root / "digits/test_images.npy"))
    said = Predictor.load(run)(stored).numpy()
    np.testing.assert_array_equal(said, kept["probabilities"])

    assert export.main([str(tmp_path / "f"), "--output", str(tmp_path / "out")]) == 0
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    inputs = run.input_spec.preprocessing()(stored)
    np.testing.assert_allclose(program(inputs).softmax(1).detach().numpy(), said, atol=1e-5)
