"""The tables of the site's page Options: every key and every option of each group, read from conf/."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from convolt.system.installation import CONF

KEY = re.compile(r"(?P<indent> *)(?P<name>\w+):(?:\s+(?P<value>[^#]*?))?(?:\s*#\s*(?P<meaning>.*))?")
COMMENT = re.compile(r"\s+#\s?(?P<meaning>.*)")
COMMAND = re.compile(r"(?:python|\./multirun\.sh) |@package ")
NOT_TYPED = {"defaults", "_target_", "_partial_", "_recursive_", "source", "hydra", "choices", "overrides"}
"""Keys, with all below them, that nobody gives on the command line."""


class Key(NamedTuple):
    """A key that may be given on the command line."""

    name: str
    """Its whole path: `optim.lr`."""
    default: str
    """As the page writes it; empty where the key only holds others."""
    meaning: str
    """The comment behind it."""


def read_keys(page: Path, section: str = "") -> list[Key]:
    """List the keys of a page, with their defaults and the comments behind them.

    Args:
        page: A YAML file of conf/.
        section: What its keys are merged under, where the page is not global: `optim`.
    """
    text = page.read_text()
    above = [section] if section and "@package _global_" not in text else []
    indents: list[tuple[int, str]] = []
    found: list[Key] = []
    for line in text.splitlines():
        key, comment = KEY.fullmatch(line), COMMENT.fullmatch(line)
        if comment and found and len(line) - len(line.lstrip()) > 8:
            found[-1] = found[-1]._replace(meaning=f"{found[-1].meaning} {comment['meaning']}")
        if not key:
            continue
        indent = len(key["indent"])
        indents = [(depth, name) for depth, name in indents if depth < indent] + [(indent, key["name"])]
        path = [*above, *(name for _, name in indents)]
        if not NOT_TYPED & set(path):
            found += _flatten(".".join(path), key["value"] or "", key["meaning"] or "")
    return [key for key in found if key.default]


def describe(page: Path) -> str:
    """Return the sentence with which an option's page begins, or a study's title and question."""
    text = page.read_text()
    if page.is_relative_to(CONF / "study"):
        study = yaml.safe_load(text)
        return ". ".join(study[key] for key in ("title", "question") if key in study)
    lines = [line[2:] for line in text.splitlines() if line.startswith("# ") and not COMMAND.match(line[2:])]
    said = lines[0]
    for line in lines[1:]:
        if said.endswith(".") or not line[:1].islower() or line.startswith("data."):
            break
        said += f" {line}"
    return said


def list_options(group: str) -> list[tuple[str, Path]]:
    """List a group's options with their pages, those of folders last."""
    folder = CONF / group
    pages = sorted(folder.rglob("*.yaml"), key=lambda page: (page.parent != folder, page))
    return [(str(page.relative_to(folder).with_suffix("")), page) for page in pages]


def common_keys(section: str) -> str:
    """Render the keys of a section of conf/train.yaml: those that every option knows. `run` are those of no section."""
    sections = {key: (key.name.split(".")[0] if "." in key.name else "run") for key in read_keys(CONF / "train.yaml")}
    rows = [
        (_code(key.name), _code(key.default), _as_text(key.meaning))
        for key, where in sections.items()
        if where == section
    ]
    return "\n".join(_table("key", "default", "meaning", rows))


def options(group: str) -> str:
    """Render the table of a group's options: what each is, and its own keys."""
    rows = []
    for name, page in list_options(group):
        keys = _study_keys(page) if group == "study" else _own_keys(page, group)
        rows.append((_code(name), _as_text(describe(page)), "<br>".join(keys)))
    return "\n".join(_table(group, "what it is", "its keys and their defaults", rows))


def fill(text: str) -> str:
    """Put the tables into a page, in place of `<!-- keys: SECTION -->` and `<!-- options: GROUP -->`."""
    text = re.sub(r"<!-- keys: (\w+) -->", lambda found: common_keys(found[1]), text)
    return re.sub(r"<!-- options: (\w+) -->", lambda found: options(found[1]), text)


def _flatten(name: str, default: str, meaning: str) -> Iterator[Key]:
    """Yield a key, or those of a map that is written in one line: {alpha: 0.2, probability: 1.0}."""
    if not default.startswith("{") or default == "{}":
        yield Key(name, default, meaning)
        return
    for below, value in yaml.safe_load(default).items():
        if below not in NOT_TYPED:
            yield from _flatten(f"{name}.{below}", json.dumps(value), "")


def _own_keys(page: Path, group: str) -> Iterator[str]:
    for key in read_keys(page, group):
        if not key.default.startswith("${"):
            yield f"{_code(f'{key.name}={key.default}')} {_as_text(key.meaning)}".rstrip()


def _study_keys(page: Path) -> Iterator[str]:
    study: dict[str, Any] = yaml.safe_load(page.read_text())
    yield f"base {_code(' '.join(study['base']))}"
    yield f"{len(study['runs'])} rows: {', '.join(study['runs'])}"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _as_text(comment: str) -> str:
    """Keep what a comment holds from being read as Markdown or HTML: <class>, *, _target_."""
    return re.sub(r"[*<]|(?<!\w)_", lambda found: f"&#{ord(found[0])};", comment)


def _table(first: str, second: str, third: str, rows: list[tuple[str, str, str]]) -> Iterator[str]:
    yield f"| {first} | {second} | {third} |"
    yield "|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
