"""Checkpoints that survive a crash: written aside, synced, renamed, and known by their digests.

`checkpoints/` holds `best.ckpt` (the task's weights), the last two `epoch-NNNN.ckpt` (everything that a run needs to go
on at the end of that epoch) and `index.json`, renamed last: file name to SHA-256 and number of epochs trained.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from torch import Tensor

from convolt.errors import RunError
from convolt.system.files import atomic_write, read_json, write_json

INDEX = "index.json"


BEST = "best.ckpt"


VALIDATED = "validated_state_dict"
"""Of a checkpoint: the weights that were validated, where a callback put others under `state_dict`."""


TRAINED = "trained_state_dict"
"""Of a checkpoint: the weights that are trained on, where a callback put others under `state_dict`."""


class SafeCheckpointIO(CheckpointIO):
    """Writes whole files, records their digests and loads plain tensors and containers only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint and enter it into the index."""
        path = Path(path)
        path.parent.mkdir(exist_ok=True)  # not what is above: a run directory that was taken away stays away
        with atomic_write(path) as beside:
            torch.save(checkpoint, beside)
            digest = _sha256(beside)
        self._enter(path, {"sha256": digest, "epochs": checkpoint["epoch"] + 1})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, whatever device it was written on, without unpickling objects."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)  # type: ignore[no-any-return]

    def remove_checkpoint(self, path: str | Path) -> None:
        """Take a checkpoint out of the index and remove it."""
        path = Path(path)
        self._enter(path, None)
        path.unlink(missing_ok=True)

    @staticmethod
    def _enter(path: Path, entry: dict[str, Any] | None) -> None:
        index = read_index(path.parent)
        index.pop(path.name, None)
        write_json(path.parent / INDEX, index | ({path.name: entry} if entry else {}))


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index of a folder of checkpoints; empty where there is none."""
    index = read_json(folder / INDEX)
    return index if isinstance(index, dict) else {}


def intact_epochs(path: Path) -> int | None:
    """Return the number of epochs that a checkpoint was trained, or None where its bytes are not what was written."""
    entry = read_index(path.parent).get(path.name)
    if not isinstance(entry, dict) or not isinstance(entry.get("epochs"), int):
        return None
    try:
        same = path.is_file() and _sha256(path) == entry.get("sha256")
    except OSError:  # a disk that fails
        return None
    return int(entry["epochs"]) if same else None


def write_best(path: Path) -> None:
    """Write `best.ckpt` beside an epoch's checkpoint, with the weights that were validated in this epoch."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    kept = {key: checkpoint[key] for key in ("epoch", "global_step", "pytorch-lightning_version")}
    SafeCheckpointIO().save_checkpoint(kept | {"state_dict": _weights_of(checkpoint)}, path.with_name(BEST))


def _weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights by which a checkpoint's network is judged."""
    return checkpoint.get(VALIDATED, checkpoint["state_dict"])  # type: ignore[no-any-return]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights by which a checkpoint's network is judged, by their names in the task."""
    return _weights_of(torch.load(path, map_location="cpu", weights_only=True))


def load_weights(task: pl.LightningModule, path: Path, epochs: int | None = None) -> None:
    """Load a checkpoint's weights into a task.

    Args:
        task: Takes them.
        path: The checkpoint.
        epochs: Number of epochs after which they are wanted; None: whatever is there.

    Raises:
        RunError: When the bytes are not those that were written, or the weights are of another epoch or network.
    """
    found = intact_epochs(path)
    if found is None or (epochs is not None and found != epochs):
        of = "damaged or missing: its digest is not the one in the index" if found is None else f"of epoch {found}"
        wanted = "" if epochs is None else f" and not of epoch {epochs}, which was best"
        raise RunError(f"the checkpoint {path} is {of}{wanted}: train it anew by force=true")
    try:
        task.load_state_dict(read_weights(path))
    except RuntimeError as error:
        first = " ".join(" ".join(str(error).splitlines()[1:2]).split())[:200]
        raise RunError(
            f"the weights in {path} are not those of this network ({first}): a callback that changes its layers has to "
            "change them back when the training ends"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
