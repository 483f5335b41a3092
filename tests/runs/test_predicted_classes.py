"""Reading the predicted classes of a run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convolt.runs.predicted_classes import PredictedClasses, read_predicted_classes

PROBABILITIES = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], np.float32)


def test_classes_of_probabilities_and_of_a_bundled_run(tmp_path: Path) -> None:
    targets, indices = np.array([1, 0, 0]), np.array([4, 7, 9])
    np.savez(tmp_path / "predictions.npz", probabilities=PROBABILITIES, targets=targets, indices=indices)
    full = read_predicted_classes(tmp_path)
    assert full is not None
    assert full.predicted.tolist() == [1, 0, 1]
    assert full.targets.tolist() == [1, 0, 0]
    assert full.indices.tolist() == [4, 7, 9]

    other = tmp_path / "bundled"
    other.mkdir()
    assert read_predicted_classes(other) is None
    np.savez_compressed(
        other / "predicted_classes.npz", predicted=full.predicted.astype(np.uint8), targets=targets, indices=indices
    )
    short = read_predicted_classes(other)
    assert short is not None
    assert short.shows_same_images(full)
    assert short.predicted.tolist() == [1, 0, 1]
    assert short.predicted.dtype == full.predicted.dtype


def test_masks_have_no_classes_and_damage_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "predictions.npz", masks=np.zeros((2, 3, 3), np.uint8), indices=np.arange(2))
    assert read_predicted_classes(tmp_path) is None
    (tmp_path / "predictions.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"predictions\.npz cannot be read"):
        read_predicted_classes(tmp_path)
    np.savez(tmp_path / "predictions.npz", probabilities=PROBABILITIES, targets=np.zeros(2), indices=np.arange(3))
    with pytest.raises(ValueError, match="not of equal number"):
        read_predicted_classes(tmp_path)


def test_other_images_are_told_apart() -> None:
    one = np.array([0, 1], np.int32)
    first = PredictedClasses(one, one, np.array([0, 1]))
    assert first.shows_same_images(PredictedClasses(one[::-1], one, np.array([0, 1])))
    assert not first.shows_same_images(PredictedClasses(one, one[::-1], np.array([0, 1])))
    assert not first.shows_same_images(PredictedClasses(one, one, np.array([0, 2])))


def test_it_needs_no_torch() -> None:
    code = "import convolt.runs.predicted_classes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
