"""Splits, subsets and the choice of classes, on values."""

import numpy as np
import pytest

from convolt.data.labels import add_label_noise, select
from convolt.data.sources.cifar100 import SUPERCLASSES
from convolt.data.split import stratified_split, stratified_subset
from convolt.errors import UserError

LABELS = np.repeat(np.arange(4), [100, 50, 10, 1])[np.random.default_rng(3).permutation(161)]


def test_split_is_disjoint_complete_and_sorted():
    kept, held_out = stratified_split(LABELS, 0.2, seed=0)
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(161))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    assert kept.dtype == held_out.dtype == np.int64


def test_split_takes_the_same_part_of_every_class():
    _, held_out = stratified_split(LABELS, 0.2, seed=0)
    assert np.bincount(LABELS[held_out], minlength=4).tolist() == [20, 10, 2, 0]  # a single image stays


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.001, [1, 1, 1, 0]), (0.999, [99, 49, 9, 0]), (0.25, [25, 13, 3, 0])]
)
def test_split_leaves_every_class_on_both_sides(fraction, expected):
    _, held_out = stratified_split(LABELS, fraction, seed=0)
    assert np.bincount(LABELS[held_out], minlength=4).tolist() == expected


def test_split_repeats_by_seed_on_every_platform():
    labels = np.arange(20) % 2
    assert stratified_split(labels, 0.3, seed=0)[1].tolist() == GOLDEN_SPLIT
    assert stratified_split(labels, 0.3, seed=1)[1].tolist() != GOLDEN_SPLIT


GOLDEN_SPLIT: list[int] = [2, 3, 8, 11, 13, 18]


def test_split_by_zero_holds_out_nothing():
    kept, held_out = stratified_split(LABELS, 0, seed=0)
    assert kept.tolist() == list(range(161))
    assert held_out.tolist() == []


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2, float("nan")])
def test_split_refuses_what_is_no_fraction(fraction):
    with pytest.raises(UserError, match="at least 0 and below 1"):
        stratified_split(LABELS, fraction, seed=0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(161, [100, 50, 10, 1]), (16, [9, 5, 1, 1]), (4, [1, 1, 1, 1]), (5, [2, 1, 1, 1]), (80, [49, 25, 5, 1])],
)
def test_subset_has_the_exact_size_and_shares(size, expected):
    subset = stratified_subset(LABELS, size, seed=0)
    assert len(set(subset.tolist())) == size
    assert np.bincount(LABELS[subset], minlength=4).tolist() == expected
    assert (np.diff(subset) > 0).all()


def test_subset_has_the_exact_size_for_every_size():
    for size in range(4, 162):
        counts = np.bincount(LABELS[stratified_subset(LABELS, size, seed=1)], minlength=4)
        assert counts.sum() == size
        assert counts.min() >= 1
        ideal = np.array([100, 50, 10, 1]) * size / 161
        assert np.abs(counts - ideal).max() < 2


def test_subset_depends_on_the_seed_alone():
    assert stratified_subset(LABELS, 40, 0).tolist() == stratified_subset(LABELS, 40, 0).tolist()
    assert stratified_subset(LABELS, 40, 0).tolist() != stratified_subset(LABELS, 40, 1).tolist()


def test_subset_refuses_impossible_sizes():
    with pytest.raises(UserError, match=r"data\.train_size=162: there are only 161"):
        stratified_subset(LABELS, 162, seed=0)
    with pytest.raises(UserError, match="there are 4 classes"):
        stratified_subset(LABELS, 3, seed=0)


CLASSES = ("cat", "dog", "oak", "pine", "car")
GROUPS = {"animals": ("cat", "dog"), "trees": ("pine", "oak"), "vehicles": ("car",)}
FINE = np.array([4, 0, 1, 2, 3, 0])


def test_select_keeps_all_when_nothing_is_asked():
    indices, labels, names = select(FINE, CLASSES)
    assert (indices.tolist(), labels.tolist(), names) == ([0, 1, 2, 3, 4, 5], FINE.tolist(), CLASSES)


def test_select_classes_in_the_users_order():
    indices, labels, names = select(FINE, CLASSES, keep_classes=["oak", "cat"])
    assert (indices.tolist(), labels.tolist(), names) == ([1, 3, 5], [1, 0, 1], ("oak", "cat"))


def test_select_classes_named_by_numbers():
    indices, labels, names = select(np.array([0, 7, 3, 7]), tuple("0123456789"), keep_classes=[7, 3])
    assert (indices.tolist(), labels.tolist(), names) == ([1, 2, 3], [0, 1, 0], ("7", "3"))


def test_select_superclasses_keeps_fine_labels():
    indices, labels, names = select(FINE, CLASSES, keep_superclasses=["trees", "vehicles"], superclasses=GROUPS)
    assert (indices.tolist(), labels.tolist(), names) == ([0, 3, 4], [2, 1, 0], ("pine", "oak", "car"))


def test_select_one_superclass_of_several_classes():
    indices, labels, names = select(FINE, CLASSES, keep_superclasses=["animals"], superclasses=GROUPS)
    assert (indices.tolist(), labels.tolist(), names) == ([1, 2, 5], [0, 1, 0], ("cat", "dog"))


def test_select_coarse_labels():
    indices, labels, names = select(FINE, CLASSES, superclasses=GROUPS, coarse=True)
    assert (indices.tolist(), labels.tolist(), names) == (list(range(6)), [2, 0, 0, 1, 1, 0], tuple(GROUPS))


def test_select_coarse_labels_of_some_superclasses():
    indices, labels, names = select(
        FINE, CLASSES, keep_superclasses=["vehicles", "animals"], superclasses=GROUPS, coarse=True
    )
    assert (indices.tolist(), labels.tolist(), names) == ([0, 1, 2, 5], [0, 1, 1, 1], ("vehicles", "animals"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"keep_classes": ["cat", "dgo"]}, "unknown class 'dgo'; did you mean 'dog'"),
        ({"keep_classes": ["cat", "xyz"]}, "there are cat, dog, oak, pine, car"),
        ({"keep_classes": ["cat", "cat"]}, "'cat' more than once"),
        ({"keep_classes": ["cat"]}, "only 'cat', but at least two"),
        ({"keep_classes": []}, "data.classes is empty"),
        ({"keep_superclasses": []}, "data.superclasses is empty"),
        ({"keep_classes": ["cat", "trees"]}, r"'trees' is a superclass: write data.superclasses=\[trees\]"),
        ({"keep_superclasses": ["tree"]}, "unknown superclass 'tree'; did you mean 'trees'"),
        ({"keep_superclasses": ["dog"]}, "'dog' is a class: write data.classes"),
        ({"keep_superclasses": ["vehicles"]}, "leaves one class"),
        ({"keep_superclasses": ["animals"], "coarse": True}, "leaves one class with data.labels=coarse"),
        ({"keep_classes": ["cat", "dog"], "keep_superclasses": ["trees"]}, "exclude each other"),
        ({"keep_classes": ["cat", "dog"], "coarse": True}, "use data.superclasses"),
    ],
)
def test_select_refuses(choice, message):
    with pytest.raises(UserError, match=message) as caught:
        select(FINE, CLASSES, superclasses=GROUPS, **choice)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("choice", [{"coarse": True}, {"keep_superclasses": ["trees"]}])
def test_select_needs_superclasses(choice):
    with pytest.raises(UserError, match="needs a dataset with superclasses"):
        select(FINE, CLASSES, **choice)


def test_cifar100_superclasses_are_those_of_its_coarse_labels():
    fine = sorted(name for names in SUPERCLASSES.values() for name in names)
    assert len(SUPERCLASSES) == 20
    assert all(len(names) == 5 for names in SUPERCLASSES.values())
    assert len(set(fine)) == 100
    _, labels, _ = select(np.arange(100), fine, superclasses=SUPERCLASSES, coarse=True)
    # the coarse label that stands beside each fine label in the archive
    archive = """
    4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15
    13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5
    8 19 18 1 2 15 6 0 17 8 14 13
    """
    assert labels.tolist() == [int(label) for label in archive.split()]


def test_noise_replaces_the_share_asked_for_by_other_classes():
    clean = np.repeat(np.arange(5), 400)
    changed = add_label_noise(clean, 0.3, 5, seed=0)
    wrong = changed != clean
    assert wrong.sum() == 600
    steps = np.bincount((changed - clean)[wrong] % 5, minlength=5)
    assert steps[0] == 0
    assert (steps[1:] > 110).all()  # 150 expected of each, with a deviation of 11
    assert set(changed) == set(range(5))
    assert np.array_equal(changed, add_label_noise(clean, 0.3, 5, seed=0))
    assert not np.array_equal(changed, add_label_noise(clean, 0.3, 5, seed=1))
    assert np.array_equal(add_label_noise(clean, 0.0, 5, seed=0), clean)
    assert (add_label_noise(clean, 1.0, 5, seed=0) != clean).all()
    with pytest.raises(UserError, match="two classes"):
        add_label_noise(np.zeros(3, np.int64), 0.5, 1, seed=0)
