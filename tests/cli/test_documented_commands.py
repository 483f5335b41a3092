"""Every command line of README.md, CONTRIBUTING.md and docs/ is one that the entry points take; nothing is trained."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import errors_table
import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from convolt.cli import rerun
from convolt.cli import train as train_command
from convolt.cli.main import COMMANDS
from convolt.cli.new_project import lay_project
from convolt.config.compose import compose
from convolt.config.overrides import parse_overrides
from convolt.inference import evaluate, export, predict
from convolt.reports import report
from convolt.runs.config_hash import config_hash
from convolt.system.files import write_json

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/results/README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ("errors.md", "log.md")),
]  # fmt: skip
COMMAND = re.compile(
    r"(?:^    (?:# |docker run .* )?|`)"
    r"((?:python (?:\w+\.py|\w+/[\w/.]+)|\./multirun\.sh|convolt \w+)(?: [^`\n]*)?)",
    re.MULTILINE,
)
PLACEHOLDERS = {
    "RUN_DIR": "finished",
    "resume=RUN_DIR": "resume=unfinished",
    "PHOTOS": "photos",
    "ROOT": "photos",
    "NEW": "photos",
    "FILE.npz": "file.npz",
    "NAME": "depth",
    "STUDY": "depth",
    "dropout": "optimizers",
    "optim.lr=...": "optim.lr=0.1",
}
"""What stands on a page for something of the reader's, and what it is here."""


def commands() -> list[str]:
    """The commands of all pages, without the comments behind them, each once; those of `convolt` as their scripts."""
    found = [
        re.split(r"  +|\s#", match[1].strip())[0] for page in PAGES for match in COMMAND.finditer(page.read_text())
    ]
    found = [line.replace("convolt study", "./multirun.sh") for line in found]
    found = [re.sub(r"^convolt (train|report|evaluate|predict|export)\b", r"python \1.py", line) for line in found]
    return sorted({part for line in found for part in line.split(" && ")})


def of(*programs: str) -> list[str]:
    return [command for command in commands() if command.removeprefix("python ").split()[0] in programs]


def arguments(command: str) -> list[str]:
    words = shlex.split(command.removeprefix("python "))[1:]
    return [
        PLACEHOLDERS.get(word, re.sub(r"(?<==)\w[\w.]*$", lambda m: PLACEHOLDERS.get(m[0], m[0]), word))
        for word in words
    ]


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[Path]:
    """A working directory with what the commands name: a finished run, images, arrays, an option of one's own."""
    with errors_table.mistaken_folder() as folder:
        cfg = compose(["data=folder", "data.path=uneven", "scheduler=constant", "trainer.max_epochs=20"])
        (folder / "finished/.hydra/config.yaml").write_text(OmegaConf.to_yaml(cfg))
        result = {"metrics": {}, "checkpoint": "best", "epochs": 20, "config_hash": config_hash(cfg)}
        write_json(folder / "finished/result.json", result)
        index = {"best.ckpt": {"epochs": 20, "sha256": "0" * 64}, "epoch-0020.ckpt": {"epochs": 20}}
        write_json(folder / "finished/checkpoints/index.json", index)
        for name in (*(f"finished/checkpoints/{name}" for name in index), "image.png", "photo.png"):
            (folder / name).touch()
        shutil.copytree(folder / "finished", folder / "unfinished")
        (folder / "unfinished/result.json").unlink()
        images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2
        np.savez(folder / "file.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        for of_class in ("cat", "dog"):
            errors_table._write_images(folder / "photos" / of_class, 2)
        lay_project(folder)
        shutil.copytree(folder / "conf", folder / "my")
        yield folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be run, instead of running it."""
    found: list[Any] = []
    monkeypatch.setattr(train_command, "start_run", lambda cfg, *_, **__: found.append(cfg))
    monkeypatch.setattr(rerun, "rerun", lambda folder, _: found.append(folder) or True)
    return found


def test_there_are_commands_of_each_program() -> None:
    for program, count in {
        "train.py": 25,
        "./multirun.sh": 8,
        "report.py": 5,
        "evaluate.py": 1,
        "export.py": 1,
    }.items():
        assert len(of(program)) >= count, program


def is_sweep(command: str) -> bool:
    return command.startswith("./") or "-m" in command.split() or " study=" in command


@pytest.mark.parametrize("command", [command for command in of("train.py") if not is_sweep(command)])
def test_a_run(command: str, started: list[Any]) -> None:
    words = arguments(command)
    status, said = errors_table.answer(shlex.join(words))
    if "model=resnet81" in words:
        assert f"    {said}\n" in (ROOT / "README.md").read_text()
        return
    assert (status or 0, said) == (0, "")
    assert len(started) == (0 if {"--help", "--cfg"} & set(words) else 1)


@pytest.mark.parametrize("command", [command for command in of("train.py", "./multirun.sh") if is_sweep(command)])
def test_the_first_run_of_a_sweep_or_study(command: str) -> None:
    words = [word for word in arguments(command) if word != "-m"]
    if command.startswith("./"):
        words[:1] = [f"study={name}" for name in words[:1]]
    study = next((word.removeprefix("study=") for word in words if word.startswith("study=")), None)
    before: list[str] = []
    if study is not None:
        mine = Path(f"conf/study/{study}.yaml")
        page = yaml.safe_load((mine if mine.exists() else ROOT / mine).read_text())
        before = [*page["base"], *next(iter(page["runs"].values()))["overrides"]]
        words.remove(f"study={study}")
    for override, word in zip(parse_overrides(words), list(words), strict=True):
        if override.is_sweep_override():
            interval = override.is_interval_sweep()
            value = override.value().start if interval else next(override.sweep_string_iterator())
            words[words.index(word)] = f"{override.get_key_element()}={value}"
    compose([*before, *words])


@pytest.mark.parametrize("command", of("evaluate.py", "predict.py", "export.py", "report.py"))
def test_a_run_in_use(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments are taken up to the point where the run is read."""
    program = command.split()[1]
    if program == "report.py":
        report._make_parser().parse(arguments(command))
        return
    main = {"evaluate.py": evaluate, "predict.py": predict, "export.py": export}[program].main
    monkeypatch.setattr("convolt.inference.trained.TrainedRun.__init__", stop)
    with pytest.raises(StoppedError):
        main(arguments(command))


class StoppedError(Exception):
    """Raised where a trained run would be read."""


def stop(*_: Any) -> None:
    raise StoppedError


def test_commands_of_convolt_exist() -> None:
    named = {command.split()[1] for command in commands() if command.startswith("convolt ")}
    assert named == {"init"}  # the others stand there as their scripts
    assert named < {*COMMANDS}
    assert {"convolt init my-project", "python train.py model=mine", "./multirun.sh mine"} <= {*commands()}


def test_scripts_and_targets_exist() -> None:
    paths = {command.split()[1] for command in commands() if command.startswith("python ")}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        target for page in PAGES for target in re.findall(r"(?:^    |`)make (\w+)", page.read_text(), re.MULTILINE)
    }
    assert targets >= {"train", "test", "lint"}
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
