"""Removes checkpoints of finished runs that nobody will need; without PyTorch, since sweeps do it after each run."""

from pathlib import Path
from typing import Literal

from filelock import Timeout

from convolt.config.starting_weights import tested_checkpoint
from convolt.runs.files import INDEX, RunFiles, read_index
from convolt.system.files import add_digest, clear_unfinished, remove_empty, write_json
from convolt.system.locks import make_lock

Keep = Literal["all", "best", "none"]


def prune_checkpoints(run_dir: Path, keep: Keep) -> bool:
    """Remove checkpoints of a finished run that no process holds; any other run is left as it is.

    `status.json` says first what is kept, then the index forgets what is to go, then the files are removed: a kill at
    any point leaves nothing that looks damaged, and the next call completes it.

    Args:
        run_dir: The run's directory.
        keep: all; best: the tested checkpoint, or of a run that never tests the one that would be; none.

    Returns:
        Whether the run has no more checkpoints than that.
    """
    files = RunFiles(run_dir)
    if keep == "all":
        return True
    if not files.result():
        return False
    try:
        with make_lock(files.lock_file).acquire(timeout=0):
            return _prune(files, keep)
    except (Timeout, OSError, NotImplementedError):  # at work, or where nobody can write
        return False


def _prune(files: RunFiles, keep: Keep) -> bool:
    """Prune a run whose lock is held."""
    result, status, index = files.result(), files.status(), read_index(files.checkpoints)
    if not result or status.get("config_hash", result["config_hash"]) != result["config_hash"]:
        return False
    kept = {}
    if status.get("keep") == "none":
        keep = "none"
    elif keep == "best" and not result.get("diverged"):
        name = tested_checkpoint(result)
        if name not in index:  # damaged: for whoever wants it to see
            return False
        kept = {name: index[name]}
    if status.get("keep") != keep:
        now = {"state": "finished", "config_hash": result["config_hash"], "keep": keep}
        write_json(files.status_file, add_digest(status | now))
    if not files.checkpoints.is_dir():
        return True
    if not kept:
        (files.checkpoints / INDEX).unlink(missing_ok=True)
    elif index != kept:
        write_json(files.checkpoints / INDEX, kept)
    clear_unfinished(files.checkpoints)
    for path in (*files.checkpoints.glob("*.ckpt"), *files.checkpoints.glob("*.ckpt.unused")):
        if path.name not in kept:
            path.unlink(missing_ok=True)
    if not kept:
        remove_empty(files.checkpoints)
    return True
