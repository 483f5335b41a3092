"""Write constraints.txt: the versions, in this environment, of all that Convolt and its extras need.

python scripts/constraints.py                  run it where the tests have passed
pip install -c constraints.txt 'convolt[dev]'  installs just these
"""

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "constraints.txt"
OF_TORCH = ("nvidia-", "cuda-", "triton")
"""How packages begin that each build of PyTorch pins itself."""


def read_requirements(extras: bool = True) -> list[Requirement]:
    """Return what pyproject.toml asks for, extras too unless told otherwise."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"].values() if extras else ())]
    found = [Requirement(text) for each in lists for text in each]
    return [each for each in found if each.name != project["name"]]


def find_versions(requirements: list[Requirement], seen: set[tuple[str, str]] | None = None) -> Iterator[str]:
    """Return a line for each package that is needed and installed, and for what it needs itself."""
    seen = set() if seen is None else seen
    for wanted in requirements:
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen or name.startswith(OF_TORCH):
                continue
            seen.add((name, extra))
            try:
                package = distribution(name)
            except PackageNotFoundError:
                continue  # an extra that this environment lacks
            if not extra:
                yield f"{name}=={package.version.partition('+')[0]}"
            needs = [Requirement(text) for text in package.requires or ()]
            applying = [each for each in needs if each.marker is None or each.marker.evaluate({"extra": extra})]
            yield from find_versions(applying, seen)


def main() -> int:
    """Write the file."""
    python = ".".join(map(str, sys.version_info[:2]))
    lines = sorted({*find_versions(read_requirements())})
    head = f"# The versions that the tests passed with, on Python {python}; made by scripts/constraints.py.\n"
    PAGE.write_text(head + "\n".join(lines) + "\n")
    print(f"{PAGE.name}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
