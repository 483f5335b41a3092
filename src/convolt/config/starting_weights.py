"""`init_from=RUN_DIR` in the settings: which weights a run starts from, without reading them."""

from pathlib import Path
from typing import Any

from convolt.errors import UserError, did_you_mean
from convolt.system.files import expand_home, read_json
from convolt.system.installation import command_name

DIVERGED = "its loss became infinite, so that there are no weights to use: train with a lower optim.lr"
"""Of a run without tests that ended so."""


def starting_weights(asked: Any) -> dict[str, str] | None:
    """Look up the weights that `init_from` names, without reading them.

    Args:
        asked: The directory of a finished run; None; or what this function returned before.

    Returns:
        `run`, its absolute path; `checkpoint`, the name of the tested one; `sha256`, by which the config hash knows it.

    Raises:
        UserError: When it is no finished run, or its checkpoint is missing.
    """
    if asked is None:
        return None
    if not isinstance(asked, str):
        return dict(asked)
    folder = Path(expand_home(asked)).absolute()
    if not folder.is_dir():
        siblings = [str(Path(asked).with_name(path.name)) for path in folder.parent.glob("*") if path.is_dir()]
        raise UserError(f"init_from={asked}: there is no such directory{did_you_mean(asked, siblings)}")
    result = read_json(folder / "result.json") or {}  # not by `runs.files`, a room below this one
    if "checkpoint" not in result:
        raise UserError(
            f"init_from={asked}: there is no finished run (result.json is missing or damaged); resume={asked} ends one"
        )
    if result.get("diverged"):
        raise UserError(f"init_from={asked}: {DIVERGED}")
    name = tested_checkpoint(result)
    entry = (read_json(folder / "checkpoints" / "index.json") or {}).get(name)
    if not isinstance(entry, dict) or not (folder / "checkpoints" / name).is_file():
        lost = f"its tested checkpoint, checkpoints/{name}, is missing: restore it"
        raise UserError(f"init_from={asked}: {explain_pruned(folder, asked, 'none') or lost}")
    return {"run": str(folder), "checkpoint": name, "sha256": str(entry["sha256"])}


def tested_checkpoint(result: dict[str, Any]) -> str:
    """Return the file name of the checkpoint that a result is of, tested or not."""
    return "best.ckpt" if result["checkpoint"] == "best" else f"epoch-{result['tested_epoch']:04d}.ckpt"


def explain_bundled(folder: Path) -> str:
    """Explain why a finished run that came in a bundle cannot be used; empty for any other run.

    Args:
        folder: The run's directory.
    """
    if (read_json(folder / "status.json") or {}).get("bundled"):
        return "this run came in a bundle, without its weights: use it where it ran, or train it here with force=true"
    return ""


def explain_pruned(folder: Path, typed: object, *kept: str) -> str:
    """Explain why a finished run has no such checkpoints; empty where none were taken away on purpose.

    Args:
        folder: The run's directory.
        typed: The same, as the user calls it.
        kept: With which values of `hydra.sweeper.keep` the wanted checkpoints are missing.
    """
    if bundled := explain_bundled(folder):
        return bundled
    keep = (read_json(folder / "status.json") or {}).get("keep")
    if keep not in kept:
        return ""
    return (
        f"its checkpoints were not kept (hydra.sweeper.keep={keep}): {command_name('train')} rerun={typed} makes them "
        "again, in a directory beside it"
    )
