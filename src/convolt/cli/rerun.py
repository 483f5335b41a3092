"""A finished run once more, and whether its numbers are the same."""

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from convolt.config.starting_weights import explain_bundled
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.runs.files import Json, RunFiles
from convolt.runs.stored_settings import stored_settings
from convolt.system.files import write_json
from convolt.training.extend import with_images_at

SURROUNDINGS = ("device", "devices", "precision", "channels_last", "threads", "dataset_hash", "git_commit")
"""What may differ between two runs of the same settings, and change the numbers."""


TABLES = ("per_class", "confusion_matrix", "tested_epoch", "last_metrics", "diverged")
"""What is compared as a whole."""


def rerun(directory: Path, places: dict[str, str] | None = None) -> bool:
    """Run a finished run again, in a new directory beside it, and compare every number.

    Args:
        directory: The finished run's.
        places: Where its images are now: `data.root`, `data.path`; None: where they were.

    Returns:
        Whether metrics, figures of each class and confusion matrix are the same bit for bit.

    Raises:
        UserError: When there is no finished run, or its settings are not those that it ran with.
    """
    first = RunFiles(directory).result()
    if not isinstance(first.get("metrics"), dict):
        raise UserError(
            f"rerun={directory}: there is no finished run (result.json is missing or damaged); resume=RUN_DIR ends one"
        )
    if bundled := explain_bundled(directory):
        raise UserError(f"rerun={directory}: {bundled}")
    cfg = stored_settings(directory, "rerun")
    if config_hash(cfg) != first.get("config_hash"):
        raise UserError(f"rerun={directory}: .hydra/config.yaml is not what this run ran with; restore it")
    cfg = with_images_at(cfg, places or {})
    cfg.force = False
    if cfg.trainer.threads == "auto":  # a sweep's slot, or another machine's cores
        os.environ["CONVOLT_THREADS"] = str(first.get("threads") or "")
    if first.get("compiled") and cfg.trainer.compile == "auto":  # as auto did in long runs until November 2026
        cfg.trainer.compile = True
    from convolt.training.start import start_run

    beside = _next_rerun_directory(directory)
    start_run(cfg, beside, first.get("batch_size"))
    comparison = compare(first, RunFiles(beside).result())
    write_json(beside / "rerun.json", {"of": str(directory)} | comparison)
    for line in describe_comparison(comparison, directory, beside):
        print(line, flush=True)
    return bool(comparison["equal"])


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Compare two results.

    Returns:
        `equal`; `compared`, the number of metrics; `metrics`, those that differ, with both values; `tables`, which of
        the larger tables differ; `surroundings`, what the runs did not have in common, with both values.
    """
    metrics = _differences(first["metrics"], second.get("metrics", {}))
    tables = [*_differences(first, second, TABLES)]
    versions = _differences(first.get("versions", {}), second.get("versions", {}))
    return {
        "equal": not metrics and not tables,
        "compared": len(first["metrics"]),
        "metrics": metrics,
        "tables": tables,
        "surroundings": _differences(first, second, SURROUNDINGS) | versions,
    }


def describe_comparison(comparison: dict[str, Any], first: Path, second: Path) -> list[str]:
    """Describe a comparison in lines."""
    lines = [f"{key}: {then} then, {now} now" for key, (then, now) in comparison["surroundings"].items()]
    if "git_commit" in comparison["surroundings"]:
        files = [file for file in (RunFiles(first).patch_file, RunFiles(second).patch_file) if file.is_file()]
        lines += [f"changed since that commit: {file}" for file in files]
    if comparison["equal"]:
        return [*lines, f"equal: all {comparison['compared']} metrics of {first} and {second}, bit for bit"]
    for name, (then, now) in comparison["metrics"].items():
        both = isinstance(then, int | float) and isinstance(now, int | float)
        lines.append(f"{name}: {then} then, {now} now" + (f" ({now - then:+.3g})" if both else ""))
    lines += [f"{name} differs" for name in comparison["tables"]]
    if not comparison["surroundings"]:
        lines.append(
            "nothing that is recorded has changed: on a GPU, only trainer.deterministic=true gives the same bits"
        )
    return [*lines, f"not equal: {len(comparison['metrics'])} of {comparison['compared']} metrics of {first} differ"]


def _differences(first: Json, second: Json, keys: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the values in which two results differ, by key, of some keys or of all."""
    keys = keys or [*dict.fromkeys([*first, *second])]
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}


def _next_rerun_directory(directory: Path) -> Path:
    """Return the directory of the next rerun; one that was interrupted is resumed."""
    directory = directory.resolve()
    names = (f"{directory.name}-rerun{number if number > 1 else ''}" for number in count(1))
    return next(path for path in map(directory.with_name, names) if not RunFiles(path).result_file.exists())
