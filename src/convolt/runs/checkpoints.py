"""Checkpoints that survive a crash: written to a temporary file, synced, renamed, and verified by their digests.

`checkpoints/` holds `best.ckpt` (the task's weights), the last two `epoch-NNNN.ckpt` (everything that resuming after
that epoch needs) and `index.json`, renamed last: file name to SHA-256 and number of epochs trained.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from torch import Tensor

from convolt.errors import RunError
from convolt.runs.files import INDEX, read_index
from convolt.system.files import atomic_write, write_json

BEST = "best.ckpt"

VALIDATED = "validated_state_dict"
"""Of a checkpoint: the weights that were validated, where a callback put others under `state_dict`."""

TRAINED = "trained_state_dict"
"""Of a checkpoint: the weights that are trained on, where a callback put others under `state_dict`."""

_index_lock = threading.Lock()
"""Held while the index changes: a callback of the user may save a checkpoint while a thread writes ours."""


class SafeCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically, records their digests, and loads plain tensors and containers only."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Callable[[dict[str, Any], Path], object] | None = None,
    ) -> None:
        """Write a checkpoint and add it to the index.

        Args:
            checkpoint: What Lightning has gathered.
            path: Where to.
            storage_options: Takes checkpoint and path instead, to write it later.
        """
        path = Path(path)
        if storage_options is not None:
            storage_options(checkpoint, path)
            return
        path.parent.mkdir(exist_ok=True)  # not its parents: a run directory that was removed is not made again
        with atomic_write(path) as beside:
            torch.save(checkpoint, beside)
            digest = _sha256(beside)
        self._update_index(path, {"sha256": digest, "epochs": checkpoint["epoch"] + 1})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, whatever device it was written on, without unpickling objects."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)  # type: ignore[no-any-return]

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, first from the index."""
        path = Path(path)
        self._update_index(path, None)
        path.unlink(missing_ok=True)

    @staticmethod
    def _update_index(path: Path, entry: dict[str, Any] | None) -> None:
        with _index_lock:
            index = read_index(path.parent)
            index.pop(path.name, None)
            write_json(path.parent / INDEX, index | ({path.name: entry} if entry else {}))


def intact_epochs(path: Path) -> int | None:
    """Return the number of epochs that a checkpoint was trained, or None where its bytes are not what was written."""
    entry = read_index(path.parent).get(path.name, {})
    try:
        return entry["epochs"] if entry and _sha256(path) == entry.get("sha256") else None
    except OSError:  # missing, or a disk that fails
        return None


def write_best(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Write `best.ckpt` from an epoch's checkpoint, with the weights that were validated in this epoch."""
    header = {key: checkpoint[key] for key in ("epoch", "global_step", "pytorch-lightning_version", "loops")}
    SafeCheckpointIO().save_checkpoint(header | {"state_dict": _weights_of(checkpoint)}, folder / BEST)


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
        raise RunError(f"the checkpoint {path} is {of}{wanted}: train it again with force=true")
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
