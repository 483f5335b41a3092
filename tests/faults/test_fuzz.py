"""Drawn nonsense: override strings, and run directories in which a file was damaged."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from convolt.cli.rerun import rerun
from convolt.cli.train import _resume
from convolt.config.compose import compose
from convolt.errors import RunError, UserError
from convolt.reports.collect import read_run
from convolt.runs.config_hash import config_hash
from convolt.system.installation import CONF
from convolt.tasks.classification import ClassificationTask
from convolt.training.run import run

SEED = int(os.environ.get("FUZZ_SEED", "0"))
CASES = int(os.environ.get("FUZZ_CASES", "60"))
DIRECTORIES = int(os.environ.get("FUZZ_DIRECTORIES", "20"))

VALUES = (
    "", " ", "null", "None", "nan", "inf", "-inf", "-1", "0", "1", "1e400", "-0.0", "1e-400", "9" * 40, "0x10", "1_000",
    "abc", "true", "off", "[", "]", "{", "}", "[]", "{}", "[1,2", "[1,[2]]", "{a:1}", "{a:{b:[1]}}", "[null]", "'",
    '"', "'a", "''", "${seed}", "${nope}", "${", "${oc.env:NOT_THERE}", "$", "\\", "\\\\", "=", "==", "a=b", "1,2",
    "a,b", "range(1,3)", "choice(1,2)", "glob(*)", "int(x)", "sort(3,2)", "???", "\N{GRINNING FACE}", "\u202e",
    "\N{ARABIC-INDIC DIGIT THREE}", "é", "a b", "\t", "\n", "\x00", "../../etc", "/", "~", "@", "+", "a" * 5000, "%",
    "#", "!", "<", "[flip", "[flip,flip]", "[flip,nope]", "[mixup,cutmix]", "-", "--", ":", "a:b", "(", ")",
    "cat;dog",
)  # fmt: skip


def keys() -> list[str]:
    """All keys of the common page, and the groups."""

    def walk(node: Any, prefix: str = "") -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        return [prefix, *(key for name, inner in node.items() for key in walk(inner, f"{prefix}.{name}".strip(".")))]

    page = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    assert isinstance(page, dict)
    named = [key for key in walk({k: v for k, v in page.items() if k not in ("defaults", "hydra")}) if key]
    return [*named, *(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "study"))]


def misspelt(text: str, draw: random.Random) -> str:
    place = draw.randrange(len(text) + 1)
    return draw.choice(
        (
            text[:place] + text[place + 1 :],
            text[:place] + draw.choice("aé.=+~@ /[{'\"") + text[place:],
            text[:place] + text[place : place + 1].swapcase() + text[place + 1 :],
            text,
        )
    )


def override(draw: random.Random, known: list[str]) -> str:
    key = misspelt(draw.choice(known), draw) if draw.random() < 0.4 else draw.choice(known)
    form = draw.choice(("{k}={v}",) * 6 + ("+{k}={v}", "++{k}={v}", "~{k}", "{k}", "={v}", "{k}.{v}=1", "{k}@x={v}"))
    return form.format(k=key, v=draw.choice(VALUES))


def test_no_override_ends_in_more_than_a_line() -> None:
    draw, known = random.Random(SEED), keys()
    refused = 0
    for _ in range(CASES):
        texts = [override(draw, known) for _ in range(draw.choice((1, 1, 1, 2)))]
        told = "nothing"
        try:
            cfg = compose(texts)
            assert len(config_hash(cfg)) == 16, texts
        except UserError as error:
            refused += 1
            told = str(error)
        except BaseException as error:
            raise AssertionError(f"{texts}: {type(error).__name__}: {error}") from error
        assert len(told.strip().splitlines()) == 1, (texts, told)
    assert refused > CASES / 4


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> tuple[Any, dict[str, Any], list[Path]]:
    """Settings, their result, and a finished directory and one that was cut off."""
    cfg = compose([
        f"data.root={data_root}", "trainer.threads=1", "trainer.max_epochs=3", "data.train_size=150",
        "optim=momentum", "optim.lr=0.05", "pictures.enabled=false",
    ])  # fmt: skip
    folder = tmp_path_factory.mktemp("fuzz")
    whole = run(cfg, folder / "finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "on_test_epoch_end", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(cfg, folder / "cut")
    return cfg, whole, [folder / "finished", folder / "cut"]


def damage(folder: Path, draw: random.Random) -> str:
    """Damage a file of a directory, as disks and people do."""
    file = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"))
    content = bytearray(file.read_bytes())
    how = draw.choice(("flip", "flip", "truncate", "delete", "garbage", "empty"))
    if how == "flip" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif how == "truncate":
        content = content[: draw.randrange(len(content) + 1)]
    elif how == "garbage":
        content = bytearray(draw.randbytes(draw.randrange(200)))
    elif how == "empty":
        content = bytearray()
    file.write_bytes(content)
    if how == "delete":
        file.unlink()
    return f"{how} {file.relative_to(folder)}"


def test_no_damaged_directory_gives_a_wrong_result(
    directories: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, whole, sources = directories
    draw = random.Random(SEED)

    def again(folder: Path) -> dict[str, Any] | None:
        return run(cfg, folder)

    def resumed(folder: Path) -> dict[str, Any] | None:
        monkeypatch.setattr("sys.argv", ["train.py", f"resume={folder}"])
        _resume(folder)
        return dict(read_run(folder).result)

    def rerun_(folder: Path) -> dict[str, Any] | None:
        assert rerun(folder)
        return None

    def reported(folder: Path) -> dict[str, Any] | None:
        return dict(read_run(folder).result) or None

    actions: tuple[Callable[[Path], dict[str, Any] | None], ...] = (again, resumed, resumed, reported, rerun_)
    for number in range(DIRECTORIES):
        folder = tmp_path / f"run{number}"
        action = draw.choice(actions)
        shutil.copytree(sources[0] if action is rerun_ else draw.choice(sources), folder)
        what = f"{action.__name__} after {damage(folder, draw)}"
        told = "status 1"
        try:
            result = action(folder)
            assert result is None or result["metrics"] == whole["metrics"], what
            assert result is None or result["confusion_matrix"] == whole["confusion_matrix"], what
        except (UserError, RunError) as error:
            told = str(error)
        except SystemExit as end:
            told = f"status {end.code}"
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        assert len(told.splitlines()) == 1, what
        assert told.removeprefix("status ") not in ("0", "2", "None"), what
        shutil.rmtree(folder)
