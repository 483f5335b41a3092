"""Masks move with their images: each image encodes its mask, so that both can be compared pixel by pixel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convolt.data.augment import Augmentation, Transform
from convolt.data.loader import Preprocessing
from convolt.data.masks import MaskDataModule, MaskLoader
from convolt.data.sources import Shapes
from convolt.data.transforms import Affine, ColorJitter, Crop, Cutout, Flip, Mixup, Shift
from convolt.errors import UserError

CPU = torch.device("cpu")
SIDE = 12


def scenes(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, S, S, 1) whose bytes are 1 + their mask, and masks of random labels 0 to 8."""
    masks = np.random.default_rng(0).integers(0, 9, (count, SIDE, SIDE)).astype(np.uint8)
    return torch.from_numpy(masks[..., None] + 1), torch.from_numpy(masks)


def loader(
    transforms: Mapping[str, Transform], padding: int = 0, size: int | None = None, copies: int = 0
) -> MaskLoader:
    images, masks = scenes()
    return MaskLoader(
        images,
        masks,
        torch.arange(len(images)),
        Preprocessing(padding, size or SIDE + 2 * padding, [0.0], [1.0]),
        4,
        CPU,
        epoch=lambda: 3,
        augmentation=Augmentation(transforms, copies),
        num_classes=9,
    )


def batches(made: MaskLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of an epoch as whole numbers (0 where there is nothing of an image), and all targets."""
    images, targets, *_ = zip(*made, strict=True)
    return (torch.cat(images)[:, 0] * 255).round().long(), torch.cat(targets)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    "transforms",
    [
        {},
        {"flip": Flip()},
        {"flip": Flip(direction="vertical")},
        {"crop": Crop(padding=4)},
        {"shift": Shift(fraction=0.3, fill="edge")},
        {"shift": Shift(fraction=0.3, fill="reflect")},
        {"flip": Flip(), "crop": Crop(padding=2), "shift": Shift(fraction=0.2, fill="black")},
    ],
    ids=lambda transforms: "+".join(transforms) or "none",
)
def test_masks_move_as_pixels_do(transforms: Mapping[str, Transform], padding: int) -> None:
    images, targets = batches(loader(transforms, padding))
    seen = images > 0
    assert targets.dtype == torch.int64
    assert torch.equal(targets[seen], images[seen] - 1)
    assert (targets[~seen] == 255).all()
    assert bool((~seen).any()) == bool(padding or any("black" in str(vars(t)) for t in transforms.values()))


def test_a_quarter_turn_moves_masks_exactly() -> None:
    images, masks = scenes()
    turn = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]]).expand(len(masks), -1, -1)
    moved = Affine(degrees=90).on_masks(masks, {"matrix": turn})
    assert torch.equal(moved, masks.rot90(-1, (1, 2))) or torch.equal(moved, masks.rot90(1, (1, 2)))
    turned = Affine(degrees=90)(images.permute(0, 3, 1, 2).float(), {"matrix": turn})
    assert torch.equal(turned[:, 0].round().to(torch.uint8), moved + 1)


def test_beyond_the_border_an_affine_mask_is_ignored_and_labels_are_never_blended() -> None:
    images, masks = scenes()
    half = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]).expand(
        len(masks), -1, -1
    )  # half of the width to the left
    moved = Affine(translate=0.5).on_masks(masks, {"matrix": half})
    assert torch.equal(moved[:, :, : SIDE // 2], masks[:, :, SIDE // 2 :])
    assert (moved[:, :, SIDE // 2 :] == 255).all()
    extremes = torch.where(masks > 4, 8, 0).to(torch.uint8)
    drawn = Affine(degrees=40, scale=0.3, shear=20).draw(np.random.default_rng(0), len(masks))
    assert set(Affine(degrees=40).on_masks(extremes, drawn).unique().tolist()) <= {0, 8, 255}
    assert images.dtype == torch.uint8


def test_an_affine_image_and_its_mask_stay_together() -> None:
    """On scenes of large flat areas, what the mask says is what the image shows, but for the blended outlines."""
    mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
    mask[:, 5:25, 8:30] = 7
    drawn = Affine(degrees=30, translate=0.1, scale=0.2, shear=10).draw(np.random.default_rng(4), 1)
    transform = Affine(degrees=30)
    image = transform(mask[:, None].float() / 255 + 0.5, drawn)[:, 0]
    moved = transform.on_masks(mask, drawn)
    inside = (image * 255 - 127.5 - 7).abs() < 0.1
    outside = (image * 255 - 127.5).abs() < 0.1
    assert inside.sum() > 200
    assert (moved[inside] == 7).all()
    assert (moved[outside] == 0).all()


@pytest.mark.parametrize(
    "transforms", [{"color": ColorJitter(brightness=0.5, contrast=0.5)}, {"cutout": Cutout(fraction=0.5)}]
)
def test_colors_and_erasures_leave_masks_alone(transforms: Mapping[str, Transform]) -> None:
    plain, augmented = loader({}), loader(transforms)
    for (before, masks, *_), (after, same, *_) in zip(plain, augmented, strict=True):
        assert torch.equal(masks, same)
        assert not torch.equal(before, after)


def test_copies_keep_the_originals_masks() -> None:
    made = loader({"flip": Flip(probability=1.0), "affine": Affine(degrees=20)}, copies=1)
    masks = scenes()[1].long()
    order = made.epoch_order(3)
    targets = torch.cat([batch.targets for batch in made])
    for place, target in zip(order.tolist(), targets, strict=True):
        assert torch.equal(target, masks[place % 8]) == (place < 8)
    images, first = made.augmented(torch.tensor([0, 8]), 3)
    assert torch.equal(first[0], masks[0])
    assert images.shape == (2, 1, SIDE, SIDE)


def test_resized_masks_hold_the_labels_of_the_nearest_places() -> None:
    _, targets = batches(loader({}, size=2 * SIDE))
    order = loader({}).epoch_order(3)
    masks = scenes()[1].long()[order]
    assert torch.equal(targets, masks.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_evaluation_keeps_order_and_pads_with_255() -> None:
    made = loader({"flip": Flip()}, padding=2)
    made.epoch = None
    targets = torch.cat([batch.targets for batch in made])
    assert torch.equal(targets[:, 2:-2, 2:-2], scenes()[1].long())
    assert (targets[:, :2] == 255).all()


# --- the data module


@pytest.fixture
def module(tmp_path: Path) -> Any:
    def make(**options: Any) -> MaskDataModule:
        made = MaskDataModule(
            Shapes(image_size=32, train_images=20, test_images=6), tmp_path, **{"batch_size": 4, **options}
        )
        made.setup()
        return made

    return make


def test_splits_are_random_parts_and_masks_stay_with_their_images(module: Any) -> None:
    data = module(val_fraction=0.2, train_size=10)
    assert [len(data.indices[split]) for split in ("train", "val", "test")] == [10, 4, 6]
    assert not set(data.indices["train"]) & set(data.indices["val"])
    assert data.target_shape == (32, 32)
    places = np.array([2, 0])
    stored = data.dataset.train_labels[data.indices["val"][places]]
    assert np.array_equal(data.targets("val", places), stored)
    images, masks, *_ = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert np.array_equal(masks.numpy(), data.dataset.train_labels[data.indices["val"]])
    assert isinstance(data.dataset.train_labels, np.memmap)


def test_classes_are_numbered_as_a_network_knows_them(module: Any) -> None:
    data = module()
    before = data.targets("test", np.arange(6))
    names = ("cross", "triangle", "square", "disk", "background")
    data.renumber_classes(names)
    assert np.array_equal(data.targets("test", np.arange(6)), 4 - before)
    with pytest.raises(UserError, match="lacks 'cat'"):
        data.renumber_classes(("cat", *names[1:]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_noise": 0.1}, "data.label_noise is for labels of whole images"),
        ({"classes": ["disk", "cross"]}, "data.classes is for labels of whole images"),
        ({"labels": "coarse"}, "data.labels is for labels of whole images"),
        ({"augmentation": Augmentation({"mixup": Mixup()})}, "blend labels of whole images"),
    ],
)
def test_what_is_about_whole_images_is_refused(module: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        module(**options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
