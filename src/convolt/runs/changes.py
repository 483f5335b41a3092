"""The record of a run that went on with other settings: more epochs, or its images elsewhere.

`changed_settings.json` names what was changed after how many epochs, and where the result is that the run had before.
"""

import time
from pathlib import Path
from typing import Any

from convolt.system.files import read_json, signed, write_json

FILE = "changed_settings.json"

Change = dict[str, Any]
"""One change: `config_hash` and `to`, the hashes before and after it; `changes`, from keys to both values;
`after_epoch`, the epochs trained before; and once it is recorded, `time` and `earlier_result`: `file` and test
`metrics`, or None."""


def read_changes(run_dir: Path, config_hash: str) -> list[Change]:
    """Return the changes that led to the settings of a hash, the first one first; none where there were none."""
    record = read_json(run_dir / FILE)
    found: list[Change] = []
    for each in reversed(record["changes"] if isinstance(record, dict) else []):
        if each["to"] == (found[0]["config_hash"] if found else config_hash):
            found.insert(0, each)
    return found


def record_change(run_dir: Path, config_hash: str, change: Change | None) -> None:
    """Write a change down, and put the result of the settings before it aside, so that the run counts as unfinished.

    Whatever a kill leaves of this is right for the settings that stand in `.hydra/config.yaml`, which are written next.

    Args:
        run_dir: The run's directory.
        config_hash: Of the settings from now on.
        change: What changes; None: nothing, but a kill may have left a result to be put aside.
    """
    file = run_dir / "result.json"
    result = read_json(file)
    if not isinstance(result, dict):
        result = {}
    aside = None
    if file.exists() and (change or result.get("config_hash", config_hash) != config_hash):
        epochs = result.get("epochs") or (change or {}).get("after_epoch")
        aside = file.with_name(f"result-epochs-{epochs}.json")
    if change:
        tested = {name: value for name, value in result.get("metrics", {}).items() if name.startswith("test/")}
        earlier = {"file": aside.name, "metrics": tested} if aside else _earlier(run_dir, change)
        entry = change | {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "earlier_result": earlier}
        before = read_changes(run_dir, change["config_hash"])
        write_json(run_dir / FILE, signed({"changes": [*before, entry]}))
    if aside:
        file.replace(aside)


def describe_change(change: Change | None) -> str:
    """Tell a change behind a line."""
    changes = (change or {}).get("changes", {})
    return "".join(f", with {key}={now} and not {before}" for key, (before, now) in changes.items())


def _earlier(run_dir: Path, change: Change) -> dict[str, Any] | None:
    """Return the earlier result that the same change put aside before it was cut off."""
    cut_off = [each for each in read_changes(run_dir, change["to"]) if each["config_hash"] == change["config_hash"]]
    return cut_off[-1]["earlier_result"] if cut_off else None
