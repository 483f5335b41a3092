"""Where a run is resumed, if it can be: from the newest checkpoint that can be trusted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convolt.errors import UserError
from convolt.runs.checkpoints import BEST, intact_epochs, write_best
from convolt.runs.directory import RunDirectory
from convolt.runs.files import read_index
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints

_BITS = ("device", "precision", "threads", "processes", "compiled")
"""Facts on which the bits of a result depend, but no setting that was requested."""


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint from which a run is resumed.

    Attributes:
        path: The file.
        epochs: Number of epochs trained.
        best_epoch: The best epoch so far, from 0; None where there was none.
        facts: What the run knew when the checkpoint was written, see `Experiment.facts`.
    """

    path: Path
    epochs: int
    best_epoch: int | None
    facts: Mapping[str, Any]


def find_checkpoint(
    directory: RunDirectory, *, needs_best: bool, say: Callable[[str], None], tidy: bool = True
) -> ResumePoint | None:
    """Find the checkpoint from which a run is resumed, and report which newer ones cannot be used.

    Args:
        directory: The run's. Checkpoints of other settings are not used, and with changed settings there must be one.
        needs_best: Whether the best weights will be tested: a checkpoint whose best epoch is lost is of no use then.
        say: Takes each report, a line.
        tidy: Rename what cannot be used to names that end in `.unused`.

    Returns:
        The checkpoint; None where the run starts over.

    Raises:
        UserError: Where one is needed and there is none.
    """
    folder, hashes, needed = directory.checkpoints, directory.own_hashes(), directory.change is not None
    names = {*read_index(folder), *(path.name for path in folder.glob("epoch-*.ckpt"))}
    unusable: list[str] = []
    for name in sorted((name for name in names if name.startswith("epoch-")), reverse=True):
        path = folder / name
        found = _read(path)
        if found is None:
            reason = "is damaged or missing"
        elif "config_hash" in found.facts and found.facts["config_hash"] not in hashes:
            reason = "belongs to other settings"
        elif needs_best and not _has_its_best(folder, found):
            reason = f"needs the {BEST} of epoch {(found.best_epoch or 0) + 1}, which is damaged or missing"
        else:
            if unusable:
                say(f"{unusable[0]}: resumes from the older {name}")
            return found
        unusable.append(f"checkpoints/{name} {reason}")
        if tidy and not needed and path.exists():
            path.replace(path.with_name(f"{name}.unused"))
    if needed:
        raise UserError(f"{folder}: there is no intact checkpoint from which it could resume")
    if unusable:
        say(f"{unusable[0]}, and there is no older one to resume from: starts over")
    return None


def restore_best(folder: Path, found: ResumePoint) -> None:
    """Write the best weights again where a run resumes from the best epoch itself and they are missing."""
    if found.best_epoch is not None and found.best_epoch + 1 == found.epochs != intact_epochs(folder / BEST):
        write_best(torch.load(found.path, map_location="cpu", weights_only=True), folder)


def check_resumable(found: ResumePoint, now: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Compare what a run knew when it was cut off with what it finds now.

    Args:
        found: Where it is resumed.
        now: What it finds now, see `Experiment.facts`.
        say: Takes a line on what will change the bits, but not what is measured.

    Raises:
        UserError: When it would be resumed with other images or other batches.
    """
    before = {"processes": 1} | dict(found.facts)
    if before.get("dataset_hash", now["dataset_hash"]) != now["dataset_hash"]:
        raise UserError(
            f"the dataset {now['dataset']} has changed since this run began (SHA-256 {before['dataset_hash'][:12]} "
            f"then, {now['dataset_hash'][:12]} now): bring the images back, or run it again with force=true"
        )
    if before.get("step_images", now["step_images"]) != now["step_images"]:
        raise UserError(
            f"this run began with {before['processes']} devices and steps of {before['step_images']} images, and would "
            f"resume with {now['processes']} and {now['step_images']}: set trainer.devices={before['processes']} again"
            ", or run it again with force=true"
        )
    if now["mixes"] and before["processes"] != now["processes"]:
        raise UserError(
            f"this run mixes the images of each device among themselves, and began with {before['processes']} devices: "
            f"set trainer.devices={before['processes']} again, or run it again with force=true"
        )
    changed = [f"{key} {before[key]} then, {now[key]} now" for key in _BITS if before.get(key, now[key]) != now[key]]
    if changed:
        say(f"resumes under other conditions ({'; '.join(changed)}): not the bits of an uninterrupted run")


def _read(path: Path) -> ResumePoint | None:
    """Read what a checkpoint says of itself, or None where it cannot be trusted."""
    if intact_epochs(path) is None:
        return None
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = checkpoint["callbacks"].get(KeepCheckpoints.__qualname__, {})
    return ResumePoint(path, checkpoint["epoch"] + 1, state.get("best_epoch"), state.get("facts", {}))


def _has_its_best(folder: Path, found: ResumePoint) -> bool:
    """Tell whether the best weights are there, are in the checkpoint itself, or will be written again."""
    if found.best_epoch is None or found.best_epoch + 1 == found.epochs:
        return True
    epochs = intact_epochs(folder / BEST)
    return epochs is not None and (epochs == found.best_epoch + 1 or epochs > found.epochs)
