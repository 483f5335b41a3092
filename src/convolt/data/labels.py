"""What images are labeled: classes chosen by name or superclass, superclasses as classes, noise. NumPy only."""

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convolt.errors import UserError, did_you_mean

Ints = NDArray[np.int64]


def normalize_name(name: object) -> str:
    """Return a name as Unicode composes it (NFC), since macOS decomposes the names of folders."""
    return unicodedata.normalize("NFC", str(name))


def _check_names(names: Sequence[object], known: Sequence[str], key: str, what: str) -> list[str]:
    """Return the names that the user wrote, all of them known and none of them twice."""
    by_composed = {normalize_name(name): name for name in known}
    wanted = [by_composed.get(normalize_name(name), str(name)) for name in names]
    for name in wanted:
        if name not in known:
            choices = f"; there are {', '.join(known) if len(known) <= 20 else len(known)}"
            raise UserError(f"{key} names the unknown {what} {name!r}{did_you_mean(name, known) or choices}")
        if wanted.count(name) > 1:
            raise UserError(f"{key} names the {what} {name!r} more than once")
    if not wanted:
        raise UserError(f"{key} is empty: name at least one {what}, or leave it null to keep all")
    return wanted


def select(
    labels: Ints,
    classes: Sequence[str],
    *,
    keep_classes: Sequence[object] | None = None,
    keep_superclasses: Sequence[object] | None = None,
    superclasses: Mapping[str, Sequence[str]] | None = None,
    coarse: bool = False,
) -> tuple[Ints, Ints, tuple[str, ...]]:
    """Keep the images of some classes, and renumber the classes.

    Args:
        labels: The class of every image (N), indices into `classes`.
        classes: The dataset's (fine) class names.
        keep_classes: The classes to keep (`data.classes`), in the order of the new labels; None keeps all.
        keep_superclasses: The superclasses to keep (`data.superclasses`); None keeps all.
        superclasses: The dataset's superclasses, each with its classes; None or empty where it has none.
        coarse: Whether the new labels are the superclasses (`data.labels=coarse`) or the classes.

    Returns:
        The indices kept, ascending (M); their new labels (M); and the names of the new labels.

    Raises:
        UserError: For an unknown or repeated name, fewer than two classes left, choices that contradict each
            other, or superclasses where the dataset has none.
    """
    superclasses = superclasses or {}
    if (coarse or keep_superclasses is not None) and not superclasses:
        key = "data.labels=coarse" if coarse else "data.superclasses"
        raise UserError(f"{key} needs a dataset with superclasses, such as data=cifar100; this one has none")
    if keep_classes is not None and keep_superclasses is not None:
        raise UserError("data.classes and data.superclasses exclude each other: give one of them")
    if keep_classes is not None and coarse:
        raise UserError("data.classes names fine classes, which data.labels=coarse merges: use data.superclasses")
    if keep_classes is not None:
        groups = _by_class(keep_classes, classes, superclasses)
    elif keep_superclasses is not None or coarse:
        groups = _by_superclass(keep_superclasses, classes, superclasses, coarse)
    else:
        return np.arange(len(labels), dtype=np.int64), labels.astype(np.int64), tuple(classes)
    new_label = np.full(len(classes), -1, dtype=np.int64)
    for label, members in enumerate(groups.values()):
        new_label[members] = label
    relabeled = new_label[labels]
    indices = np.flatnonzero(relabeled >= 0).astype(np.int64)
    return indices, relabeled[indices], tuple(groups)


def _by_class(
    names: Sequence[object], classes: Sequence[str], superclasses: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Return the new classes with their old labels, in the user's order."""
    for name in map(str, names):
        if name in superclasses and name not in classes:
            raise UserError(f"{name!r} is a superclass: write data.superclasses=[{name}] instead of data.classes")
    kept = _check_names(names, classes, "data.classes", "class")
    if len(kept) < 2:
        raise UserError(f"data.classes keeps only {kept[0]!r}, but at least two classes are needed")
    return {name: [classes.index(name)] for name in kept}


def _by_superclass(
    names: Sequence[object] | None, classes: Sequence[str], superclasses: Mapping[str, Sequence[str]], coarse: bool
) -> dict[str, list[int]]:
    """Return the new classes (superclasses where coarse) with their old labels, in the user's order."""
    kept = list(superclasses)
    if names is not None:
        for name in map(str, names):
            if name in classes and name not in superclasses:
                raise UserError(f"{name!r} is a class: write data.classes=[{name}, ...] instead of data.superclasses")
        kept = _check_names(names, kept, "data.superclasses", "superclass")
    members = {name: [classes.index(member) for member in superclasses[name]] for name in kept}
    if not coarse:
        members = {classes[label]: [label] for labels in members.values() for label in labels}
    if len(members) < 2:
        raise UserError(
            f"data.superclasses={kept} leaves one class with data.labels={'coarse' if coarse else 'fine'}, but at least"
            " two are needed: name another superclass"
        )
    return members


def add_label_noise(labels: Ints, share: float, num_classes: int, seed: int) -> Ints:
    """Replace a share of the labels, rounded to whole images, each by one of the other classes, all as likely.

    Args:
        labels: (N,), in [0, num_classes).
        share: In [0, 1].
        num_classes: 2 or more.
        seed: Decides, alone, which labels change and to what.

    Returns:
        (N,), new labels.

    Raises:
        UserError: When there is no other class.
    """
    if num_classes < 2:
        raise UserError("data.label_noise needs two classes or more")
    random = np.random.default_rng([seed, 1])  # other draws than those of the splits
    chosen = np.argsort(random.random(len(labels)), kind="stable")[: round(share * len(labels))]
    changed = labels.copy()
    changed[chosen] += 1 + (random.random(len(chosen)) * (num_classes - 1)).astype(np.int64)
    return changed % num_classes
