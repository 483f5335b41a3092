from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convolt.data.module import ImageDataModule
from convolt.data.sources import Arrays, Digits
from convolt.errors import UserError


def digits(root: Path, **more: Any) -> ImageDataModule:
    module = ImageDataModule(Digits(), root, padding=4, **more)
    module.setup()
    return module


def labels(module: ImageDataModule, split: str) -> np.ndarray:
    batches = {"train": module.train_dataloader, "val": module.val_dataloader, "test": module.test_dataloader}[split]()
    return torch.cat([batch.targets for batch in batches]).numpy()


def test_the_splits_are_disjoint_stratified_and_complete(data_root: Path) -> None:
    module = digits(data_root, val_fraction=0.2, batch_size=7)
    train, val = module.indices["train"], module.indices["val"]
    assert not set(train) & set(val)
    assert len(train) + len(val) == len(module.dataset.train_labels)
    shares = np.bincount(labels(module, "val")) / np.bincount(module.dataset.train_labels)
    assert np.all(abs(shares - 0.2) < 0.01)


def test_the_split_follows_its_own_seed(data_root: Path) -> None:
    same = digits(data_root, seed=1).indices["val"]
    assert np.array_equal(digits(data_root, seed=0).indices["val"], same)
    assert not np.array_equal(digits(data_root, split_seed=1).indices["val"], same)


def test_label_noise_is_for_training_labels_alone(data_root: Path) -> None:
    clean, noise = digits(data_root), digits(data_root, label_noise=0.25)
    assert np.array_equal(clean.indices["train"], noise.indices["train"])
    wrong = clean._labels["train"] != noise._labels["train"]
    assert wrong.sum() == round(0.25 * len(clean.indices["train"]))
    assert set(np.flatnonzero(wrong)) <= set(clean.indices["train"])
    for split in ("val", "test"):
        assert np.array_equal(labels(clean, split), labels(noise, split))


def test_without_validation_all_training_images_train(data_root: Path) -> None:
    module = digits(data_root, val_fraction=0)
    assert len(module.indices["val"]) == 0
    assert len(module.indices["train"]) == len(module.dataset.train_labels)


def test_a_subset_is_stratified_and_leaves_validation_alone(data_root: Path) -> None:
    module = digits(data_root, train_size=100)
    assert len(module.indices["train"]) == 100
    counts = np.bincount(module.dataset.train_labels[module.indices["train"]])
    assert counts.min() >= 9
    assert counts.max() <= 11
    assert np.array_equal(module.indices["val"], digits(data_root).indices["val"])


def test_kept_classes_are_numbered_in_the_order_given(data_root: Path) -> None:
    module = digits(data_root, classes=["7", "3"])
    assert module.classes == ("7", "3")
    assert module.num_classes == 2
    stored = module.dataset.test_labels[module.indices["test"]]
    assert set(stored) == {3, 7}
    assert np.array_equal(labels(module, "test"), np.where(stored == 7, 0, 1))


def test_images_are_standardized_by_the_training_images(data_root: Path) -> None:
    module = digits(data_root)
    module.padding = 0
    module.requested_size = None
    stored = torch.from_numpy(np.asarray(module.dataset.train_images))
    images = module.preprocessing()(stored)
    assert images.mean().abs() < 1e-4
    assert (images.std() - 1).abs() < 1e-3


def test_given_mean_and_std_are_used_and_counted(data_root: Path) -> None:
    module = digits(data_root, mean=[0.5], std=[0.25])
    assert module.preprocessing()(torch.zeros(1, 24, 24, 1, dtype=torch.uint8)).flatten()[0] == -2
    with pytest.raises(UserError, match="2 numbers, but digits has 1 channels"):
        digits(data_root, mean=[0.5, 0.5]).preprocessing()


def test_images_are_resized_after_the_padding(data_root: Path) -> None:
    module = digits(data_root, image_size=48)
    assert next(iter(module.test_dataloader()))[0].shape[1:] == (1, 48, 48)
    assert digits(data_root).image_size == 32


def test_overfitting_uses_the_same_few_images_everywhere(data_root: Path) -> None:
    module = digits(data_root, overfit_images=20)
    assert sorted(labels(module, "train")) == sorted(labels(module, "val")) == sorted(labels(module, "test"))
    assert len(module.indices["train"]) == 20


def test_arrays_of_the_user_go_through(tiny: Path, data_root: Path) -> None:
    module = ImageDataModule(Arrays(str(tiny)), data_root, val_fraction=0.1, batch_size=16)
    module.setup()
    assert (module.channels, module.image_size, module.num_classes) == (3, 12, 3)
    images, targets, *_ = next(iter(module.test_dataloader()))
    with np.load(tiny) as arrays:
        assert np.array_equal(targets.numpy(), arrays["y_test"])
    # The tiny classes are told apart by their brightest channel.
    assert torch.equal(images.mean((2, 3)).argmax(1), targets)


def test_images_are_kept_on_a_gpu_beside_all_that_training_needs(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda", 0)
    hand = [0]
    monkeypatch.setattr("convolt.data.module.available_bytes", lambda _: hand[0])

    def resident(at_hand: int, needed: int, **more: Any) -> int:
        module = digits(data_root, **more)
        hand[0], module.needed_beside = at_hand, needed
        return module.resident_bytes(device)

    module = digits(data_root)
    train, test = (
        images.nbytes + labels.nbytes
        for images, labels in (
            (module.dataset.train_images, module.dataset.train_labels),
            (module.dataset.test_images, module.dataset.test_labels),
        )
    )
    both = train + test
    assert resident(3 * both + 3, 0) == both  # validation images are among the stored training images
    assert resident(3 * both - 3, 0) == train
    assert resident(3 * both + 3, 10) == train
    assert resident(3 * both + 13, 10) == both
    assert resident(0, 10**9, device="cuda") == both
    assert resident(2**40, 0, device="cpu") == 0


def test_where_images_are_kept_is_settled_once(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = digits(data_root)
    meta = torch.device("meta")
    monkeypatch.setattr(module, "_fits", lambda size, device: size > 0)
    train = module._tensors("train", meta)
    monkeypatch.setattr(module, "_fits", lambda size, device: False)  # the network has taken the rest since
    assert module._tensors("val", meta)[0] is train[0]
    assert train[0].device == meta
    assert module._tensors("test", meta)[0].device.type == "cpu"
