"""The record of a run that was resumed with other settings: more epochs, or its images elsewhere.

`changed_settings.json` names what was changed after how many epochs, and where the result is that the run had before.
"""

import time

from convolt.runs.files import Change, RunFiles
from convolt.system.files import add_digest, write_json


def record_change(files: RunFiles, config_hash: str, change: Change | None) -> None:
    """Record a change, and rename the result of the settings before it, so that the run counts as unfinished.

    A kill at any point leaves what is right for the settings in `.hydra/config.yaml`, which are written afterwards.

    Args:
        files: The run's.
        config_hash: Of the settings from now on.
        change: What changes; None: nothing, but a kill may have left a result that is still to be renamed.
    """
    result = files.result()
    aside = None
    if files.result_file.exists() and (change or result.get("config_hash", config_hash) != config_hash):
        aside = files.path / f"result-epochs-{result.get('epochs') or (change or {}).get('after_epoch')}.json"
    if change:
        old = change["config_hash"]
        # renamed by the same change, before that was interrupted:
        earlier = [each["earlier_result"] for each in files.changes(change["to"]) if each["config_hash"] == old]
        if aside:
            tested = {name: value for name, value in result.get("metrics", {}).items() if name.startswith("test/")}
            earlier.append({"file": aside.name, "metrics": tested})
        recorded = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "earlier_result": earlier[-1] if earlier else None}
        write_json(files.changes_file, add_digest({"changes": [*files.changes(old), change | recorded]}))
    if aside:
        files.result_file.replace(aside)


def describe_change(change: Change | None) -> str:
    """Return a change as the end of a line, such as ", with trainer.max_epochs=4 and not 2"; empty for none."""
    changes = (change or {}).get("changes", {})
    return "".join(f", with {key}={now} and not {before}" for key, (before, now) in changes.items())
