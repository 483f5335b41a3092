"""How a run is called where others stand beside it: its study or sweep, its row, its seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from omegaconf import OmegaConf

from convolt.config.overrides import typed_keys
from convolt.config.settings import Settings
from convolt.runs.config_hash import NOT_HASHED
from convolt.runs.directory import RunDirectory
from convolt.system.files import read_json

_FOLDERS_ABOVE = 3
"""How far above a run the folder of its study may be: row/tuning/run."""


@dataclass(frozen=True)
class DescribedRun:
    """What a tracker is told of a run when it begins.

    Attributes:
        directory: The run's, absolute.
        name: Tells the run from others of its group.
        group: The study, or the folder of the sweep; empty for a single run.
        row: The study's row, or a sweep's overrides without the seed; of a single run the overrides.
        kind: In a study: run, trial of tuning, or untuned; empty elsewhere.
        seed: The run's.
        config_hash: Of its settings.
        settings: All of them, resolved, `choices` and `overrides` among them.
    """

    directory: Path
    name: str
    group: str
    row: str
    kind: str
    seed: int
    config_hash: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, directory: RunDirectory, settings: Settings) -> Self:
        """Describe the run of a directory, as `study.json` or `multirun.yaml` above it say."""
        path = directory.path.absolute()
        typed = [text for text in settings.overrides if not _is_left_out(text)]
        group, row, kind = "", ",".join(typed), ""
        name = f"{settings.choice('model')} {settings.choice('data')} {settings.choice('optim')} {path.name}"
        for folder in path.parents[:_FOLDERS_ABOVE]:
            if (study := read_json(folder / "study.json")) is not None:
                group, name = str(study.get("name", folder.name)), path.relative_to(folder).as_posix()
                row, kind = _find_row(study, name) or (path.relative_to(folder).parts[0], "")
                break
            if (folder / "multirun.yaml").is_file():
                group, name = folder.name, path.relative_to(folder).as_posix()
                break
        plain: Any = OmegaConf.to_container(settings.cfg, resolve=True)
        return cls(path, name, group, row, kind, settings.seed, directory.hash, plain)

    @property
    def facts(self) -> dict[str, str]:
        """The study, row, kind, seed, directory and config hash as texts, those that there are."""
        facts = {"study": self.group, "row": self.row, "kind": self.kind, "seed": str(self.seed)}
        facts |= {"directory": str(self.directory), "config_hash": self.config_hash}
        return {name: text for name, text in facts.items() if text}


def _is_left_out(override: str) -> bool:
    key = typed_keys([override])[0]
    return key in ("seed", "trainer.threads", *NOT_HASHED) or key.partition(".")[0] in NOT_HASHED


def _find_row(study: dict[str, Any], folder: str) -> tuple[str, str] | None:
    """Return the row whose runs `study.json` finds in a folder, and the run's kind; None where it finds none there."""
    for name, row in study.get("rows", {}).items():
        for runs, kind in (("runs", "run"), ("untuned", "untuned")):
            if any(run.get("dir") == folder for run in row.get(runs, [])):
                return str(name), kind
    for cell in study.get("tuning", {}).get("cells", []):
        if any(run.get("dir") == folder for trial in cell["trials"] for run in trial["runs"]):
            return str(cell["row"]), "trial"
    return None
