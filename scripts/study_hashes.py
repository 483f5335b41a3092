"""Add the config hashes of new studies and rows to tests/sweeps/study_hashes.json; those that stand there stay.

python scripts/study_hashes.py           add them; exit 1 where a row's hash is no longer what stands there
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from convolt.config.compose import compose
from convolt.runs.config_hash import config_hash
from convolt.system.installation import CONF

PAGE = Path(__file__).resolve().parent.parent / "tests" / "sweeps" / "study_hashes.json"


def hashes() -> dict[str, dict[str, str]]:
    """Compose every row of every study: study to row to hash."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((CONF / "study").glob("*.yaml")):
        page: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = {row: (each or {}).get("overrides", []) for row, each in page["runs"].items()}
        found[path.stem] = {
            str(row): config_hash(compose([*page["base"], *overrides])) for row, overrides in rows.items()
        }
    return found


def main() -> int:
    """Add what is new, and name what has changed."""
    pinned: dict[str, dict[str, str]] = json.loads(PAGE.read_text()) if PAGE.exists() else {}
    changed = []
    for study, rows in hashes().items():
        for row, digest in rows.items():
            if pinned.setdefault(study, {}).setdefault(row, digest) != digest:
                changed.append(f"{study}, {row}: {digest} and not {pinned[study][row]}")
    PAGE.write_text(json.dumps(pinned, indent=0, sort_keys=True) + "\n")
    print("\n".join(changed) or f"{sum(map(len, pinned.values()))} rows")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
