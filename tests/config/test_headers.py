"""The first lines of the pages in conf: what an option is, its paper, and the command that uses it."""

import re
import shlex
from pathlib import Path

import pytest

from convolt.config.compose import compose
from convolt.system.installation import CONF

PAPER = re.compile(r"# [^:]+: [A-Z][^,]* (19|20)\d\d, [^,].+, (https://\S+|[A-Z][\w ]+)")
"""Name, authors, year, title, and where it appeared."""


def pages(*groups: str) -> list[str]:
    return [path.relative_to(CONF).as_posix() for group in groups for path in sorted((CONF / group).rglob("*.yaml"))]


def header(page: str) -> list[str]:
    lines = (CONF / page).read_text().removeprefix("# @package _global_\n").splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def command(page: str) -> list[str]:
    (line,) = (line for line in header(page) if line.startswith("# python train.py "))
    return shlex.split(line)[3:]


@pytest.mark.parametrize("page", pages("model"))
def test_a_models_header_names_its_paper_and_its_command(page: str) -> None:
    assert PAPER.fullmatch(header(page)[0]) or header(page)[0].endswith(": ours")
    assert command(page)[0] == f"model={Path(page).relative_to('model').with_suffix('')}"


@pytest.mark.parametrize("group", ["augmentation", "batchnorm", "data", "debug", "optim", "scheduler", "trainer"])
def test_every_option_says_what_it_is(group: str) -> None:
    assert [page for page in pages(group) if not header(page)] == []


def test_the_commands_of_the_headers_compose() -> None:
    """Every option of the group composes in another test; here what stands beside them, once each."""
    beside = {tuple(command(page)[1:]): command(page) for page in pages("model")}
    for overrides in beside.values():
        compose(overrides)
