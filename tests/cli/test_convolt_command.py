"""The command `convolt`, and what a user's own folder adds."""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser

import convolt
from convolt.cli import main as command
from convolt.cli import new_project, study, train
from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.system import installation
from convolt.system.arguments import accept_late_help
from convolt.system.environment import set_up_process
from convolt.system.installation import CONF, command_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a path of modules that is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_mistyped_command_is_answered_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = "import sys; from convolt.cli.main import main; print(main(['trian']), {'torch', 'hydra'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n"
    assert done.stderr == "error: trian: there is no such command; did you mean 'train'?\n"


def test_python_m_convolt_tells_its_version_which_is_that_of_the_changelog(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "convolt", "--version"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"convolt {convolt.__version__}\n"
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == convolt.__version__


@pytest.mark.parametrize("name", ["report", "evaluate", "predict", "export", "init"])
def test_the_help_of_a_command_names_it_as_it_was_typed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/convolt"])
    with pytest.raises(SystemExit) as end:
        command.main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: convolt {name} ")
    assert ".py " not in said


def test_what_is_typed_is_a_script_in_a_checkout_and_the_command_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert [command_name("report"), command_name("study")] == ["python report.py", "./multirun.sh"]
    monkeypatch.setattr(installation, "CHECKOUT", None)
    assert command_name("report") == "convolt report"


def test_convolt_study_runs_a_study_to_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[list[str]] = []
    monkeypatch.setattr(train, "main", lambda argv: typed.append(argv) or 0)
    assert study.main(["optimizers", "data=digits"]) == 0
    assert typed == [["study=optimizers", "hydra.sweeper.report=true", "data=digits"]]


def test_studies_are_listed_with_their_titles_and_those_of_the_user(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_project.lay_project(in_folder)
    (in_folder / "conf/study/dead.yaml").symlink_to("nowhere")
    (in_folder / "conf/study/folder.yaml").mkdir()
    assert study.main([]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^  optimizers +SGD, momentum and Adam$", said, re.MULTILINE)
    assert re.search(r"^  mine +A network of mine beside LeNet$", said, re.MULTILINE)
    assert all(study.list_studies().values())
    assert len(study.list_studies()) == len(list((CONF / "study").glob("*.yaml"))) + 1


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("convolt tr", "train study report evaluate predict export init"),
        ("convolt train model=resnet5", "model=resnet50 model=resnet56 model=resnet56v2"),
        ("convolt study optimizers data=mn", "data=mnist"),
    ],
)
def test_a_shell_completes_what_is_typed(
    line: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["convolt"])
    assert command.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == offered.split()


def test_a_folder_conf_of_the_user_adds_pages_and_changes_no_hash(in_folder: Path) -> None:
    before = config_hash(compose(["model=resnet18"]))
    page = in_folder / "conf/model/mine.yaml"
    page.parent.mkdir(parents=True)
    page.write_text("_target_: own_networks.Net\nwidth: 16\n")
    cfg = compose(["model=mine", "model.width=8"])
    assert (cfg.model._target_, cfg.model.width, cfg.choices.model) == ("own_networks.Net", 8, "mine")
    assert config_hash(compose(["model=resnet18"])) == before
    with pytest.raises(UserError, match=r"model=mein: there is no such model; did you mean 'mine'"):
        compose(["model=mein"])
    with pytest.raises(UserError, match=r"model\.widht: there is no such key; did you mean 'model\.width'"):
        compose(["model=mine", "model.widht=3"])
    (in_folder / "conf/model/lenet.yaml").write_text("_target_: own_networks.Net\n")
    with pytest.raises(UserError, match=rf"conf/model/lenet\.yaml would not be read, since {CONF}/model/lenet\.yaml"):
        compose(["model=lenet"])


def test_conf_of_the_checkout_is_not_taken_for_a_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert config_hash(compose(["model=lenet", "optim=adam"])) == config_hash(compose([]))


def test_modules_of_the_working_directory_are_found_after_all_others(in_folder: Path) -> None:
    set_up_process()
    set_up_process()
    assert sys.path[-1] == str(in_folder)
    assert sys.path.count(str(in_folder)) == 1


def test_a_new_project_trains_its_network(in_folder: Path, command_here: Any) -> None:
    assert command.main(["init"]) == 0
    done = command_here("model=mine", "optim=radam", "debug=smoke")
    assert done.returncode == 0, done.stderr
    assert "24,058 parameters" in done.stdout
    sys.modules.pop("networks")


def test_a_new_project_overwrites_nothing(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "networks.py").write_text("mine\n")
    assert command.main(["init", "."]) == 2
    assert "networks.py is there already, and nothing was written" in capsys.readouterr().err
    assert [path.name for path in in_folder.iterdir()] == ["networks.py"]
    assert command.main(["init", "a/b"]) == 0
    assert (in_folder / "a/b/.gitignore").read_text().startswith("__pycache__/")


def test_hydras_parser_is_made_by_an_argparse_that_checks_help_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.14 does, which looks for `%` in each help."""
    add_argument = argparse.ArgumentParser.add_argument

    def add_and_check(parser: Any, *names: str, **more: Any) -> argparse.Action:
        action = add_argument(parser, *names, **more)
        parser._check_help(action)
        return action

    monkeypatch.setattr(
        argparse.ArgumentParser, "_check_help", lambda _, action: "%" in (action.help or ""), raising=False
    )
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_and_check)
    with pytest.raises(TypeError):
        get_args_parser()
    accept_late_help()
    assert "--shell-completion" in get_args_parser()._option_string_actions
