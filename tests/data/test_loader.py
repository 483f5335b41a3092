from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convolt.data import loader as loader_module
from convolt.data.augment import Augmentation
from convolt.data.loader import Batch, BatchLoader, Preprocessing
from convolt.data.transforms import Affine, ColorJitter, Crop, CutMix, Cutout, Flip, Mixup, Shift

CPU = torch.device("cpu")
RAW = Preprocessing(0, 4, [0.0], [1.0])


def images_of(count: int) -> Tensor:
    """Return images whose pixels are all different, so that each tells where it came from."""
    return torch.arange(count * 16, dtype=torch.int64).remainder(251).to(torch.uint8).view(count, 4, 4, 1)


def loader(count: int = 10, batch_size: int = 4, epoch: int | None = 0, **more: object) -> BatchLoader:
    preprocessing = more.pop("preprocessing", RAW)
    return BatchLoader(
        images_of(count),
        torch.arange(count),
        torch.arange(count),
        preprocessing,  # type: ignore[arg-type]
        batch_size,
        CPU,
        epoch=None if epoch is None else lambda: epoch,
        **more,  # type: ignore[arg-type]
    )


def labels_of(batches: BatchLoader) -> list[int]:
    return [int(label) for batch in batches for label in batch.targets]


def test_evaluation_keeps_the_order_and_the_bytes() -> None:
    batches = list(loader(epoch=None))
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert labels_of(loader(epoch=None)) == list(range(10))
    images = torch.cat([batch.images for batch in batches])
    assert torch.equal((images * 255).round().to(torch.uint8), images_of(10).permute(0, 3, 1, 2))


def test_an_epoch_shows_every_image_once_in_an_order_of_seed_and_epoch() -> None:
    first = labels_of(loader(epoch=0, seed=1))
    assert sorted(first) == list(range(10))
    assert first == labels_of(loader(epoch=0, seed=1))
    assert first != labels_of(loader(epoch=1, seed=1))
    assert first != labels_of(loader(epoch=0, seed=2))


def test_images_and_labels_stay_together() -> None:
    for images, labels, *_ in loader(epoch=0):
        stored = images_of(10)[labels].permute(0, 3, 1, 2)
        assert torch.equal((images * 255).round().to(torch.uint8), stored)


def test_the_order_is_drawn_when_the_first_batch_is_asked_for() -> None:
    epoch = [0]
    batches = BatchLoader(images_of(10), torch.arange(10), torch.arange(10), RAW, 10, CPU, epoch=lambda: epoch[0])
    iterator = iter(batches)
    epoch[0] = 5
    assert next(iterator)[1].tolist() == labels_of(loader(batch_size=10, epoch=5))


def test_a_last_training_batch_of_one_image_is_left_out() -> None:
    assert [len(batch.targets) for batch in loader(count=9, epoch=0)] == [4, 4]
    assert len(loader(count=9, epoch=0)) == 2
    assert [len(batch.targets) for batch in loader(count=9, epoch=None)] == [4, 4, 1]
    assert len(loader(count=1, epoch=0)) == 1


def test_fused_moves_equal_padding_cropping_and_flipping_by_hand() -> None:
    augmentation = Augmentation({"crop": Crop(padding=2), "flip": Flip(0.5)})
    moved = loader(count=64, batch_size=64, epoch=3, seed=7, augmentation=augmentation)
    images, labels, *_ = next(iter(moved))
    draws = augmentation.draw(7, 3, 64, CPU)
    for image, label in zip(images, labels, strict=True):
        # An image's place among the epoch's draws is its place among the split's images, here its label.
        down, right = (((draws[0]["shift"][label] + 1) / 2 * 5).floor().long() - 2).tolist()
        padded = torch.nn.functional.pad(images_of(64)[label, :, :, 0], (2, 2, 2, 2))
        expected = padded[2 - down : 6 - down, 2 - right : 6 - right]
        if draws[1]["flipped"][label]:
            expected = expected.flip(1)
        assert torch.equal((image[0] * 255).round().to(torch.uint8), expected)


def test_padding_frames_the_image_in_black_with_and_without_moves() -> None:
    preprocessing = Preprocessing(2, 8, [0.0], [1.0])
    still = next(iter(loader(epoch=None, preprocessing=preprocessing)))[0]
    assert torch.equal((still[:, 0, 2:6, 2:6] * 255).round().to(torch.uint8), images_of(4)[..., 0])
    assert still[:, :, :2].abs().sum() == 0
    augmentation = Augmentation({"flip": Flip(0.0)})
    moved, labels, *_ = next(iter(loader(epoch=0, preprocessing=preprocessing, augmentation=augmentation)))
    assert torch.equal((moved[:, 0, 2:6, 2:6] * 255).round().to(torch.uint8), images_of(10)[labels][..., 0])
    assert moved[:, :, :, 6:].abs().sum() == 0


def test_copies_are_added_to_the_images_as_they_are() -> None:
    augmentation = Augmentation({"flip": Flip(1.0), "cutout": Cutout(1.0)}, copies=2)
    batches = loader(count=10, batch_size=30, epoch=0, augmentation=augmentation)
    assert len(batches) == 1
    images, labels, *_ = next(iter(batches))
    assert labels.bincount().tolist() == [3] * 10
    stored = images_of(10)[labels].permute(0, 3, 1, 2)
    untouched = ((images * 255).round().to(torch.uint8) == stored).flatten(1).all(1)
    assert untouched.sum() == 10
    assert sorted(labels[untouched].tolist()) == list(range(10))


@pytest.mark.parametrize("mixing", [Mixup(1.0), CutMix(1.0)])
def test_mixed_targets_are_probabilities(mixing: Mixup) -> None:
    batches = loader(epoch=0, augmentation=Augmentation({"mix": mixing}), num_classes=10)
    targets = torch.cat([batch.targets for batch in batches])
    torch.testing.assert_close(targets.sum(1), torch.ones(10))
    assert ((targets > 0).sum(1) == 2).any()
    # Targets and images are blended alike: undoing it with the targets gives the images' mean.
    for images, blended, *_ in loader(
        epoch=0, batch_size=10, augmentation=Augmentation({"mix": Mixup(1.0)}), num_classes=10
    ):
        means = images_of(10).float().div(255).mean((1, 2, 3))
        torch.testing.assert_close(images.mean((1, 2, 3)), blended @ means, atol=1e-4, rtol=0)


def test_processes_share_an_epoch_without_overlap() -> None:
    parts = [labels_of(loader(count=12, epoch=0, rank=rank, world_size=2)) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == list(range(12))


def test_standardization_and_resizing() -> None:
    preprocessing = Preprocessing(0, 8, [0.2, 0.4], [0.5, 0.25])
    stored = torch.full((1, 4, 4, 2), 51, dtype=torch.uint8)  # 51 / 255 = 0.2
    out = preprocessing(stored)
    assert out.shape == (1, 2, 8, 8)
    torch.testing.assert_close(out[0, 0], torch.zeros(8, 8), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[0, 1], torch.full((8, 8), -0.8), atol=1e-6, rtol=0)


def test_memory_mapped_arrays_are_read_in_place(tmp_path: object) -> None:
    path = f"{tmp_path}/images.npy"
    np.save(path, images_of(10).numpy())
    mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
    batches = BatchLoader(mapped, torch.arange(10), torch.tensor([7, 2]), RAW, 2, CPU)
    images, labels, *_ = next(iter(batches))
    assert labels.tolist() == [7, 2]
    assert torch.equal((images * 255).round().to(torch.uint8), images_of(10)[[7, 2]].permute(0, 3, 1, 2))


@pytest.mark.parametrize("copies", [0, 1])
@pytest.mark.parametrize(
    "transforms",
    [
        {},
        {"crop": Crop(1), "flip": Flip(), "cutout": Cutout(0.5)},
        {"shift": Shift(0.3, "reflect"), "color": ColorJitter(0.3, 0.3), "affine": Affine(20), "mixup": Mixup(1.0)},
        {"flip": Flip(), "cutmix": CutMix(1.0)},
    ],
    ids=lambda transforms: "+".join(transforms) or "none",
)
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_are_the_same_however_many_are_made_together(
    transforms: dict[str, Any], copies: int, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(together: int) -> list[Batch]:
        monkeypatch.setitem(loader_module._CHUNK_BYTES, "cpu", together * 4 * 16 * 4 // world_size)
        made = loader(
            count=27, epoch=2, augmentation=Augmentation(transforms, copies), num_classes=27, rank=world_size - 1,
            world_size=world_size,
        )  # fmt: skip
        found = list(made)
        assert len(found) == len(made)
        return found

    alone, three, all_at_once = batches(1), batches(3), batches(1000)
    for others in (three, all_at_once):
        for (images, targets, *_), (other_images, other_targets, *_) in zip(alone, others, strict=True):
            torch.testing.assert_close(images, other_images, rtol=0, atol=1e-6)
            assert torch.equal(targets, other_targets)


def test_bytes_become_input_alike_with_and_without_a_change_between() -> None:
    preprocessing = Preprocessing(2, 10, [0.3, 0.5, 0.1], [0.2, 0.4, 0.9])
    stored = torch.randint(0, 256, (5, 6, 6, 3), dtype=torch.uint8)
    padded = preprocessing.pad(stored)
    straight, changed = preprocessing(stored), preprocessing.from_padded(padded, lambda images: images)
    torch.testing.assert_close(straight, changed, rtol=1e-5, atol=1e-6)
    expected = (padded.permute(0, 3, 1, 2) / 255 - preprocessing.mean) / preprocessing.std
    torch.testing.assert_close(straight, expected, rtol=1e-5, atol=1e-6)
    assert straight.is_contiguous(memory_format=torch.channels_last)
