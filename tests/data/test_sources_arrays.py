"""The user's own arrays, and scikit-learn's digits."""

import os
from pathlib import Path

import numpy as np
import pytest

from convolt.data.prepare import prepare
from convolt.data.sources import Arrays, Digits
from convolt.data.sources.digits import enlarge
from convolt.errors import UserError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 5, 5), dtype=np.uint8)
LABELS = np.arange(60) % 3
KERAS = {"x_train": IMAGES[:45], "y_train": LABELS[:45], "x_test": IMAGES[45:], "y_test": LABELS[45:]}


def npz(folder: Path, **arrays) -> Path:
    np.savez_compressed(folder / "my data.npz", **arrays)
    return folder / "my data.npz"


def prepared(tmp_path: Path, **arrays):
    return prepare(Arrays(npz(tmp_path, **arrays)), tmp_path / "data")


def refused(tmp_path: Path, **arrays) -> str:
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, **arrays)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "data").glob("*") if path.suffix != ".lock"] == []
    return str(caught.value)


def check_keras(dataset) -> None:
    assert np.array_equal(dataset.train_images, IMAGES[:45, ..., None])
    assert np.array_equal(dataset.test_images, IMAGES[45:, ..., None])
    assert dataset.train_labels.tolist() == LABELS[:45].tolist()
    assert dataset.test_labels.tolist() == LABELS[45:].tolist()
    assert dataset.classes == ("0", "1", "2")


def test_keras_names(tmp_path):
    check_keras(prepared(tmp_path, **KERAS))


def test_our_names_in_a_folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for ours, keras in zip(("train_images", "train_labels", "test_images", "test_labels"), KERAS.values(), strict=True):
        np.save(folder / f"{ours}.npy", keras)
    check_keras(prepare(Arrays(folder), tmp_path / "data"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.int64])
def test_column_labels_of_any_integer_type(tmp_path, dtype):
    columns = {name: KERAS[name][:, None].astype(dtype) for name in ("y_train", "y_test")}
    check_keras(prepared(tmp_path, **{**KERAS, **columns}))


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.bool_])
def test_one_hot_labels(tmp_path, dtype):
    one_hot = {name: np.eye(3, dtype=dtype)[KERAS[name]] for name in ("y_train", "y_test")}
    check_keras(prepared(tmp_path, **{**KERAS, **one_hot}))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_become_bytes(tmp_path, dtype):
    fractions = {name: (KERAS[name] / 255).astype(dtype) for name in ("x_train", "x_test")}
    check_keras(prepared(tmp_path, **{**KERAS, **fractions}))


def test_color_validation_and_class_names(tmp_path):
    color = RANDOM.integers(0, 256, (60, 5, 5, 3), dtype=np.uint8)
    dataset = prepared(
        tmp_path,
        x_train=color[:30],
        y_train=LABELS[:30],
        x_val=color[30:45],
        y_val=LABELS[30:45],
        x_test=color[45:],
        y_test=LABELS[45:],
        classes=np.array(["ant", "bee", "cow"]),
    )
    assert np.array_equal(dataset.val_images, color[30:45])
    assert dataset.val_labels.tolist() == LABELS[30:45].tolist()
    assert dataset.classes == ("ant", "bee", "cow")


def test_test_images_are_held_out_where_there_are_none(tmp_path):
    dataset = prepared(tmp_path, x_train=IMAGES, y_train=LABELS)
    assert np.bincount(dataset.test_labels).tolist() == [4, 4, 4]
    known = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    assert len(images) == 60
    assert {image.tobytes(): label for image, label in zip(images, labels, strict=True)} == known


def test_test_labels_need_not_cover_all_classes(tmp_path):
    dataset = prepared(tmp_path, **{**KERAS, "x_test": IMAGES[:2], "y_test": np.array([2, 2])})
    assert dataset.test_labels.tolist() == [2, 2]


def test_changed_file_is_prepared_anew(tmp_path):
    path = npz(tmp_path, **KERAS)
    before = Arrays(path).name
    assert before.startswith("my_data_")
    assert Arrays(path, test_fraction=0.3).name != before
    os.utime(path, ns=(1, 1))
    assert Arrays(path).name != before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"x_train": IMAGES[:45].astype(np.int64)}, "save x_train.astype('uint8')"),
        ({"x_train": IMAGES[:45].astype(np.float32)}, "floats must be 0 to 1: save x_train / 255"),
        ({"x_train": IMAGES[:45] / 127.5 - 1}, "scale them to 0 to 1"),
        ({"x_train": np.full((45, 5, 5), np.nan)}, "values from nan to nan"),
        ({"x_train": IMAGES[:45, :, :4]}, "pad them, as to 5 x 5, or crop"),
        ({"x_train": np.zeros((45, 3, 5, 5), np.uint8)}, "save x_train.transpose(0, 2, 3, 1)"),
        ({"x_train": np.zeros((45, 5, 5, 7), np.uint8)}, "with 1 to 4 channels"),
        ({"x_train": IMAGES[:45].reshape(45, 25)}, "must be (N, H, W)"),
        ({"x_train": IMAGES[:44]}, "x_train has 44 images, but there are 45 labels"),
        ({"x_test": np.zeros((15, 6, 6), np.uint8)}, "x_test has images of shape (6, 6, 1), but x_train of (5, 5, 1)"),
        ({"y_train": LABELS[:45] + 1}, "no training image has the label 0"),
        ({"y_train": LABELS[:45] - 1}, "holds the label -1"),
        ({"y_train": LABELS[:45] + 10**12}, "holds the label 1000000000002"),
        ({"y_train": LABELS[:45] * 2}, "no training image has the label 1, 3"),
        ({"y_test": LABELS[45:] + 1}, "no training image has the label 3"),
        ({"y_train": LABELS[:45].astype(float)}, "must be integers"),
        ({"y_train": np.array(["a"] * 45)}, "must be integers"),
        ({"y_train": np.ones((45, 3))}, "not one-hot"),
        ({"y_train": np.zeros(45, int), "y_test": np.zeros(15, int)}, "at least two classes"),
        ({"classes": np.array(["a", "b"])}, "classes has 2 names"),
        ({"classes": np.array(["a", "b", "a"])}, "names must differ"),
        ({"classes": np.array(["a", "b", "c", "d"])}, "no training image has the label 3"),
        ({"classes": np.array(["a", "b", 3], dtype=object)}, "Python objects, which are not loaded"),
        ({"x_train": np.array([IMAGES[0]] * 45 + [None], dtype=object)[:45]}, "Python objects, which are not loaded"),
    ],
)
def test_refused_arrays(tmp_path, changes, expected):
    assert expected in refused(tmp_path, **{**KERAS, **changes})


def test_missing_arrays(tmp_path):
    assert "it holds a, b" in refused(tmp_path, a=IMAGES, b=LABELS)
    assert "has x_test, but no y_test" in refused(tmp_path, **{k: v for k, v in KERAS.items() if k != "y_test"})
    assert "has y_val, but no x_val" in refused(tmp_path, **KERAS, y_val=LABELS)


def test_objects_in_a_folder_are_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "x_train.npy", IMAGES)
    np.save(folder / "y_train.npy", LABELS.astype(object), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects, which are not loaded"):
        prepare(Arrays(folder), tmp_path / "data")


@pytest.mark.parametrize("keep", [0, 2, 300, 900])
def test_truncated_file(tmp_path, keep):
    path = npz(tmp_path, **KERAS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"my data\.npz"):
        prepare(Arrays(path), tmp_path / "data")


def test_mistaken_paths(tmp_path):
    for path, expected in (
        (None, "data.path=FILE.npz"),
        (tmp_path / "none.npz", "does not exist"),
        (tmp_path, "it holds nothing"),
    ):
        with pytest.raises(UserError, match=expected):
            prepare(Arrays(path), tmp_path / "data")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match=r"is no \.npz file"):
        prepare(Arrays(tmp_path / "text.npz"), tmp_path / "data")


# --- digits


def test_digits_are_enlarged_and_split(tmp_path):
    from sklearn.datasets import load_digits

    dataset = prepare(Digits(), tmp_path)
    assert dataset.train_images.shape == (1438, 24, 24, 1)
    assert dataset.test_images.shape == (359, 24, 24, 1)
    assert dataset.train_images.max() == 255
    digits = load_digits()
    counts = np.bincount(digits.target)
    assert np.abs(np.bincount(dataset.test_labels) - counts / 5).max() <= 0.5
    # the middle pixel of every enlarged one is the original, so that the original can be found again
    small = {
        np.rint(i * 255 / 16).astype(np.uint8).tobytes(): t for i, t in zip(digits.images, digits.target, strict=True)
    }
    images = np.concatenate([dataset.train_images, dataset.test_images])[:, 1::3, 1::3, 0]
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    assert {image.tobytes(): label for image, label in zip(images, labels, strict=True)} == small


def test_digits_are_the_same_bytes_everywhere(tmp_path):
    assert prepare(Digits(), tmp_path).digest == "7fa223552bd24526df0486e0aacc11d104b607e1e4335ac25d637a7c8764cbf4"


def test_enlarge_is_bilinear():
    from PIL import Image

    image = RANDOM.integers(0, 17, (1, 8, 8))
    ours = enlarge(image, 3)[0] / 9
    pillow = Image.fromarray(image[0].astype(np.float32)).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.abs(ours - np.asarray(pillow)).max() < 1e-4
