"""The files of a run's directory: what they are called, how they are read, and what counts as damaged.

Imports neither PyTorch nor OmegaConf: a report reads hundreds of runs, and mistakes are answered before torch is there.
"""

from pathlib import Path
from typing import Any

import yaml

from convolt.system.files import read_json

INDEX = "index.json"
"""Of the checkpoints; it is renamed last."""

PREDICTIONS = "predictions.npz"
"""Probabilities, targets and stored indices of all test images."""

PREPROCESSING = "preprocessing.json"
"""Classes, and how an image becomes the network's input: all that is needed when the dataset is gone."""

Json = dict[str, Any]

Change = dict[str, Any]
"""One change of settings: `config_hash` and `to`, the hashes before and after it; `changes`, from keys to both values;
`after_epoch`, the epochs trained before; and once it is recorded, `time` and `earlier_result`: `file` and test
`metrics`, or None."""


class RunFiles:
    """The files of a run's directory, which need not exist.

    A missing or damaged file (no JSON object, or not the content that was signed) reads as empty, so that a run is
    resumed from what is intact. Reports call `system.files.read_object` instead, whose error says what is wrong.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / ".hydra" / "config.yaml"
        self.overrides_file = path / ".hydra" / "overrides.yaml"
        self.lock_file = path / ".lock"
        self.status_file = path / "status.json"
        self.result_file = path / "result.json"
        self.changes_file = path / "changed_settings.json"
        self.history_file = path / "metrics.csv"
        self.patch_file = path / "code.patch"
        self.checkpoints = path / "checkpoints"

    def is_run(self) -> bool:
        """Tell whether the folder is a run's directory."""
        return any(file.is_file() for file in (self.result_file, self.status_file, self.config_file))

    def result(self, config_hash: str | None = None) -> Json:
        """Return the result of a finished run; empty where there is none, or none of the settings with this hash."""
        result = read_json(self.result_file) or {}
        return result if config_hash in (None, result.get("config_hash")) else {}

    def status(self) -> Json:
        """Return the state of the run as it was last written."""
        return read_json(self.status_file) or {}

    def preprocessing(self) -> Json:
        """Return how the run takes images, and the names of their classes."""
        return read_json(self.path / PREPROCESSING) or {}

    def raw_settings(self) -> Json:
        """Return the settings, unchecked and with interpolations as text."""
        settings = _read_yaml(self.config_file)
        return settings if isinstance(settings, dict) else {}

    def overrides(self) -> list[str]:
        """Return the overrides that the run was started with; where they are not recorded, what its folder is named."""
        overrides = _read_yaml(self.overrides_file)
        return [str(each) for each in overrides] if isinstance(overrides, list) else self.path.name.split(",")

    def changes(self, config_hash: str) -> list[Change]:
        """Return the changes that led to the settings of a hash, the first one first; none where there were none."""
        found: list[Change] = []
        for each in reversed((read_json(self.changes_file) or {}).get("changes", [])):
            if each["to"] == (found[0]["config_hash"] if found else config_hash):
                found.insert(0, each)
        return found

    def hashes(self, config_hash: str) -> set[str]:
        """Return the hashes of the run's settings, now and before they were changed."""
        return {config_hash, *(each["config_hash"] for each in self.changes(config_hash))}

    def has_diverged(self, config_hash: str | None = None) -> bool:
        """Tell whether the run ended since its loss became infinite; with settings of this hash, where one is given."""
        status = self.status()
        failed = status.get("state") == "failed" and config_hash in (None, status.get("config_hash"))
        return bool(self.result(config_hash).get("diverged") or (failed and status.get("diverged")))

    def epochs_trained(self) -> int:
        """Return the number of epochs in the newest checkpoint."""
        index = read_index(self.checkpoints)
        return max((entry["epochs"] for name, entry in index.items() if name.startswith("epoch-")), default=0)

    def epoch_checkpoint(self, epochs: int) -> Path:
        """Return the checkpoint of a number of epochs."""
        return self.checkpoints / f"epoch-{epochs:04d}.ckpt"

    def is_locked(self) -> bool | None:
        """Tell whether a process holds the lock; None where that cannot be known: no lock file, or no POSIX."""
        try:
            import fcntl

            with self.lock_file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two reports do not take each other for a run
        except BlockingIOError:
            return True
        except (ImportError, OSError):
            return None
        return False


def read_index(checkpoints: Path) -> dict[str, Json]:
    """Read the index of a folder of checkpoints: by file name, `sha256` and the number of `epochs` trained."""
    entries = (read_json(checkpoints / INDEX) or {}).items()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and isinstance(entry.get("epochs"), int)}


def _read_yaml(path: Path) -> Any:
    """Read a YAML file with the fast loader; None where it is missing or damaged."""
    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return None
