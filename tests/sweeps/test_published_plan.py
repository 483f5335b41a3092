"""scripts/published_plan.py: what a run is counted as, and that a step is measured without data."""

from pathlib import Path
from typing import Any

import published_plan
import pytest


def test_images_are_those_of_all_epochs_copies_and_evaluations() -> None:
    rows = {row: cfg for _, row, cfg, _ in published_plan.list_rows(["chhipani2021_resnet_cifar10", "menon2020_mnist"])}
    assert published_plan.count_images(rows["resnet18-adam"]) == (10 * 50_000, 10_000)
    assert published_plan.count_images(rows["resnet18-augmentation"]) == (10 * 100_000, 10_000), "a copy of each image"
    assert published_plan.count_images(rows["resnet18-best"]) == (20 * 50_000, 10_000)
    held_out = round(60_000 * rows["resnet20-mnist"].data.val_fraction)
    assert published_plan.count_images(rows["resnet20-mnist"]) == (20 * (60_000 - held_out), 20 * held_out + 10_000)


def test_rows_of_one_network_and_batch_are_measured_once() -> None:
    rows = {row: cfg for _, row, cfg, _ in published_plan.list_rows(["chhipani2021_resnet_cifar10"])}
    steps = {row: published_plan.describe_steps(cfg) for row, cfg in rows.items()}
    assert steps["resnet18"] == steps["resnet18-lr0.01"] == steps["resnet18-augmentation"]
    assert len({steps["resnet18"], steps["resnet18-adam"], steps["resnet101"]}) == 3


def test_a_plan_is_written_cheapest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are not run here, but for LeNet: 100 images a second."""
    measured: list[float] = []
    real = published_plan.measure_images_per_second

    def measure(cfg: Any, seconds: float) -> float:
        if ".lenet." in str(cfg.model["_target_"]):
            measured.append(real(cfg, 0.01))
        return 100.0

    monkeypatch.setattr(published_plan, "measure_images_per_second", measure)
    monkeypatch.setattr(
        "sys.argv", ["published_plan.py", "--only", "agrawal2020_cifar10", "--out", str(tmp_path / "plan.csv")]
    )
    assert published_plan.main() == 0
    lines = (tmp_path / "plan.csv").read_text().splitlines()
    assert [line.split(",")[:6] for line in lines] == [
        ["study", "row", "seconds_a_run", "at_most", "seeds", "hours_of_all_seeds"],
        ["agrawal2020_cifar10", "alexnet-cifar10", "12533", "", "3", "10.44"],
        *(
            ["agrawal2020_cifar10", f"{name}-cifar10", "25033", "", "3", "20.86"]
            for name in ("googlenet", "lenet", "resnet50", "vgg16")
        ),
    ]
    assert len(measured) == 1
    assert measured[0] > 0
