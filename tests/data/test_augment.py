import numpy as np
import pytest
import torch

from convolt.data.augment import Augmentation, Transform
from convolt.data.transforms import Affine, ColorJitter, Crop, CutMix, Cutout, Flip, Mixup, Shift
from convolt.errors import UserError

CPU = torch.device("cpu")


def rows_and_columns(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(height).expand(count, -1), torch.arange(width).expand(count, -1)


def draws(transform: Transform, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return transform.draw(np.random.default_rng(seed), count)


def test_a_flip_reverses_the_columns_of_the_chosen_images_only() -> None:
    rows, columns = Flip().move(*rows_and_columns(2, 3, 4), {"flipped": torch.tensor([True, False])})
    assert columns.tolist() == [[3, 2, 1, 0], [0, 1, 2, 3]]
    assert rows.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_vertical_flip_reverses_the_rows() -> None:
    rows, columns = Flip(direction="vertical").move(*rows_and_columns(1, 3, 4), {"flipped": torch.tensor([True])})
    assert rows.tolist() == [[2, 1, 0]]
    assert columns.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [("black", [-1, -1, 0, 1, 2]), ("edge", [0, 0, 0, 1, 2]), ("reflect", [2, 1, 0, 1, 2])],
)
def test_a_shift_by_two_moves_pixels_by_two_and_fills_the_border(fill: str, expected: list[int]) -> None:
    shift = Crop(padding=2, fill=fill)
    # The largest draw is the largest shift: two rows down, and the smallest: two columns to the left.
    rows, columns = shift.move(*rows_and_columns(1, 5, 5), {"shift": torch.tensor([[0.999, -1.0]])})
    assert rows.tolist() == [expected]
    mirrored = {"black": [2, 3, 4, -1, -1], "edge": [2, 3, 4, 4, 4], "reflect": [2, 3, 4, 3, 2]}[fill]
    assert columns.tolist() == [mirrored]


def test_every_shift_of_a_crop_is_drawn_equally_often() -> None:
    crop = Crop(padding=1)
    rows, _ = crop.move(*rows_and_columns(30_000, 5, 5), draws(crop, 30_000))
    shifts = (2 - rows[:, 2]).bincount(minlength=3) if (rows[:, 2] <= 2).all() else (rows[:, 2] - 1).bincount()
    assert shifts.min() > 9_600
    assert shifts.max() < 10_400


def test_a_shift_is_a_fraction_of_the_side() -> None:
    assert Shift(fraction=0.1).pixels(32) == 3
    assert Shift(fraction=0.1).pixels(224) == 22


class Largest(np.random.Generator):
    """A generator whose every draw is the largest that there is."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64())

    def uniform(self, low: float, high: float, size: tuple[int, ...]) -> np.ndarray:  # type: ignore[override]
        return np.full(size, high)

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.zeros(size)


def affine_at_its_largest(**ranges: float) -> torch.Tensor:
    images = torch.arange(36.0).view(1, 1, 6, 6) / 36
    affine = Affine(**ranges)
    return affine(images, affine.draw(Largest(), 1))


def test_affine_turns_moves_and_grows_by_what_was_drawn() -> None:
    images = torch.arange(36.0).view(1, 1, 6, 6) / 36
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(affine_at_its_largest(degrees=90), images.rot90(-1, (2, 3)), **close)
    moved = affine_at_its_largest(translate=0.5)
    torch.testing.assert_close(moved[..., 3:, 3:], images[..., :3, :3], **close)
    assert moved[..., :3, :].abs().sum() < 1e-6
    grown = torch.linalg.det(Affine(scale=0.5).draw(Largest(), 1)["matrix"][:, :, :2])
    torch.testing.assert_close(grown, torch.tensor([1 / 1.5**2]))
    sheared = Affine(shear=45).draw(Largest(), 1)["matrix"][0]
    torch.testing.assert_close(sheared @ torch.tensor([0.0, 1.0, 1.0]), torch.tensor([-1.0, 1.0]), atol=1e-6, rtol=0)


def test_an_affine_translation_moves_by_its_fraction_of_the_side() -> None:
    affine = Affine(translate=0.5)
    matrix = draws(affine, 1000)["matrix"]
    assert matrix[:, :, 2].abs().max() <= 1.0 + 1e-6  # half the side is 1 in coordinates from -1 to 1
    assert matrix[:, :, 2].abs().max() > 0.95
    assert torch.equal(matrix[:, :, :2], torch.eye(2).expand(1000, 2, 2))


def test_affine_draws_stay_within_their_ranges() -> None:
    matrix = draws(Affine(degrees=30), 5000)["matrix"][:, :, :2]
    angle = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    assert angle.abs().max() <= 30 + 1e-3
    assert angle.max() > 28
    assert angle.min() < -28
    sizes = torch.linalg.det(draws(Affine(scale=0.2), 5000)["matrix"][:, :, :2]).rsqrt()
    assert sizes.min() > 0.8 - 1e-3
    assert sizes.max() < 1.2 + 1e-3


def test_brightness_multiplies_and_contrast_spreads_about_the_mean() -> None:
    images = torch.rand(2, 1, 4, 4) * 0.5
    jitter = ColorJitter(brightness=0.5, contrast=0.5)
    out = jitter(
        images, {"factors": torch.tensor([[1.5, 1.0, 1.0], [1.0, 0.5, 1.0]]), "hue": torch.eye(3).repeat(2, 1, 1)}
    )
    torch.testing.assert_close(out[0], images[0] * 1.5)
    torch.testing.assert_close(out[1], (images[1] + images[1].mean()) / 2)


def test_no_saturation_is_gray_and_a_third_of_a_turn_swaps_hues() -> None:
    image = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    jitter = ColorJitter(saturation=1.0, hue=0.5)
    gray = jitter(image, {"factors": torch.tensor([[1.0, 1.0, 0.0]]), "hue": torch.eye(3)[None]})
    torch.testing.assert_close(gray.flatten(), torch.full((3,), 0.299 * 0.8 + 0.701 * 0.2))
    drawn = draws(jitter, 100)["hue"]
    white = torch.ones(100, 3, 1)
    torch.testing.assert_close(drawn @ white, white, atol=1e-4, rtol=0)  # a turn of the hue leaves white as it is
    torch.testing.assert_close(torch.linalg.det(drawn), torch.ones(100), atol=1e-4, rtol=0)


def test_cutout_erases_one_square_of_the_right_size() -> None:
    cutout = Cutout(fraction=0.5)
    out = cutout(torch.ones(1, 3, 8, 8), {"center": torch.tensor([[0.5, 0.5]]), "chosen": torch.tensor([True])})
    assert (out == 0).sum() == 3 * 16
    assert (out[:, :, 2:6, 2:6] == 0).all()
    kept = cutout(torch.ones(1, 3, 8, 8), {"center": torch.tensor([[0.5, 0.5]]), "chosen": torch.tensor([False])})
    assert (kept == 1).all()


def test_mixup_blends_images_and_targets_by_the_same_weight() -> None:
    images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    mixed, targets = Mixup()(images, torch.eye(2), {"weight": torch.tensor([0.7, 1.0])})
    torch.testing.assert_close(mixed[0], torch.full((1, 2, 2), 0.3))
    torch.testing.assert_close(mixed[1], torch.ones(1, 2, 2))
    torch.testing.assert_close(targets, torch.tensor([[0.7, 0.3], [0.0, 1.0]]))


def test_cutmix_weights_targets_by_the_area_that_was_pasted() -> None:
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    middle = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    mixed, targets = CutMix()(images, torch.eye(2), {"weight": torch.tensor([0.75, 0.75]), "center": middle})
    assert mixed[0].sum() == 16  # sqrt(1/4) of 8 is a square of 4 x 4
    torch.testing.assert_close(targets[0], torch.tensor([0.75, 0.25]))
    assert (mixed[1] == 0).sum() == 4  # in the corner only a quarter of the square lies inside
    torch.testing.assert_close(targets[1], torch.tensor([4 / 64, 60 / 64]))


@pytest.mark.parametrize("transform", [Flip(0.3), Cutout(probability=0.3)], ids=["flip", "cutout"])
def test_the_probability_is_the_share_of_images_that_change(transform: Transform) -> None:
    values = next(v for v in draws(transform, 20_000).values() if v.dtype == torch.bool)
    assert 0.28 < values.float().mean() < 0.32


@pytest.mark.parametrize(
    ("transform", "identity"),
    [
        (Shift(probability=0), {"shift": torch.zeros(5, 2)}),
        (
            Affine(degrees=10, translate=0.1, scale=0.1, shear=5, probability=0),
            {"matrix": torch.eye(2, 3).repeat(5, 1, 1)},
        ),
        (ColorJitter(0.5, 0.5, 0.5, 0.5, probability=0), {"factors": torch.ones(5, 3)}),
        (Mixup(probability=0), {"weight": torch.ones(5)}),
    ],
    ids=["shift", "affine", "color", "mixup"],
)
def test_images_that_are_not_chosen_stay_as_they_are(transform: Transform, identity: dict[str, torch.Tensor]) -> None:
    drawn = draws(transform, 5)
    for name, values in identity.items():
        torch.testing.assert_close(drawn[name], values)


def test_draws_depend_on_seed_epoch_and_place_alone() -> None:
    one = Augmentation({"flip": Flip(), "shift": Shift()})
    two = Augmentation({"flip": Flip(), "shift": Shift(), "color": ColorJitter(0.5)})
    first, again = one.draw(0, 3, 50, CPU), two.draw(0, 3, 50, CPU)
    assert all(torch.equal(first[i][k], again[i][k]) for i in range(2) for k in first[i])
    for other in (one.draw(1, 3, 50, CPU), one.draw(0, 4, 50, CPU)):
        assert not torch.equal(first[0]["flipped"], other[0]["flipped"])
        assert not torch.equal(first[1]["shift"], other[1]["shift"])
    assert len(first[1]["shift"].unique(dim=0)) == 50  # every image has parameters of its own


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip(1.5), "between 0 and 1"),
        (lambda: Flip(direction="horizonal"), "horizontal or vertical"),
        (lambda: Shift(fill="blck"), "did you mean 'black'"),
        (lambda: Shift(fraction=2), "fraction"),
        (lambda: Crop(padding=-1), "0 pixels or more"),
        (lambda: Affine(degrees=200), "degrees"),
        (lambda: ColorJitter(hue=0.7), "hue"),
        (lambda: Cutout(fraction=1.2), "fraction"),
        (lambda: Mixup(alpha=0), "above 0"),
        (lambda: Augmentation({"a": Mixup(), "b": CutMix()}), "cannot both"),
    ],
)
def test_nonsense_is_refused(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
