"""Every mistake in docs/errors.md: its line, status 2, within seconds, and nothing written."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import errors_table
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| `(.+?)` \| `(.+)` \|$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[Path]:
    with errors_table.mistaken_folder() as folder:
        for data in ("digits", "shapes"):
            errors_table.answer(f"data={data} +optim.foo=1")  # prepares them, as any mistake behind the data does
            errors_table.answer(f"data={data} model=fcn8s +optim.foo=1")
        yield folder


def test_there_are_sixty_mistakes_and_all_are_on_the_page() -> None:
    typed = [arguments for theme in errors_table.MISTAKES.values() for arguments in theme]
    assert len(typed) >= 60
    assert [arguments for arguments, _ in ROWS] == typed


@pytest.mark.parametrize(("arguments", "line"), ROWS, ids=[arguments for arguments, _ in ROWS])
def test_a_mistake_is_the_line_on_the_page(folder: Path, arguments: str, line: str) -> None:
    before = sorted(folder.rglob("*"))
    began = time.monotonic()
    status, said = errors_table.answer(arguments)
    assert time.monotonic() - began < 10
    assert status == 2
    assert len(said.splitlines()) == 1
    assert errors_table.cell(said) == f"`{line}`"
    assert sorted(folder.rglob("*")) == before
