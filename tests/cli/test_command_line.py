"""`python train.py ...` as a user types it, in a process of its own."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from convolt.cli.train import _flags_first as flags_first
from convolt.cli.train import main as train_command
from convolt.reports.report import main as report
from convolt.runs.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_ends_with_its_result_and_its_folder(command: Any, tmp_path: Path) -> None:
    done = command("trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.strip().splitlines()[-1]
    assert folder.parent == tmp_path / "outputs/runs/lenet_digits_adam"
    result = json.loads((folder / "result.json").read_text())
    assert f"{result['metrics']['test/accuracy']:.4f}" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert "61,706 parameters" in done.stdout
    assert "\x1b" not in done.stdout  # no colors where there is no terminal
    assert done.stderr == ""


def test_a_sweep_makes_one_directory_a_run(command: Any, tmp_path: Path) -> None:
    done = command("-m", "optim=sgd,adam", "debug=smoke")
    assert done.returncode == 0, done.stderr
    folders = [path.parent for path in tmp_path.glob("outputs/sweeps/*/*/result.json")]
    assert {folder.name.split("optim=")[1].split(",")[0] for folder in folders} == {"sgd", "adam"}
    choices = {json.loads((folder / "result.json").read_text())["choices"]["optim"] for folder in folders}
    assert choices == {"sgd", "adam"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet81"], "did you mean 'resnet18'"),
        (["resume=nowhere"], "there is no run"),
        (["-m", "optim.lr=abc,0.1"], "optim.lr=abc"),
    ],
)
def test_a_config_error_is_one_line_within_a_second_and_leaves_nothing(
    command: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = command(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "Error executing job" not in line]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.json"))
    if "-m" not in arguments:
        assert not list(tmp_path.iterdir())
        assert seconds < 1.5  # of processor time, however busy the machine is; without torch it is about 0.5


def test_config_errors_come_before_torch_is_imported(tmp_path: Path) -> None:
    code = """
import sys
from convolt.cli.train import main

try:
    main(["optim.lr=-1"])
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_a_gpu_where_there_is_none_is_told_in_a_line_and_leaves_nothing(command: Any, tmp_path: Path) -> None:
    """A mistake that only torch can tell; docs/errors.md has more of them, which test_errors types."""
    done = command("trainer=gpu", env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2
    assert "no such device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("status.json"))


def test_a_torch_and_a_torchvision_that_do_not_fit_are_named(command: Any, tmp_path: Path) -> None:
    fake = tmp_path / "fake/torchvision"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    done = command("debug=smoke", env={"PYTHONPATH": str(fake.parent)})
    assert done.returncode == 2
    assert "do not fit together" in done.stderr
    assert "pip install --upgrade torch torchvision" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_the_groups_and_composing_needs_no_run(command: Any, tmp_path: Path) -> None:
    done = command("--help")
    assert done.returncode == 0
    for option in ("resnet18", "cifar10", "adam", "crop_flip", "python train.py -m"):
        assert option in done.stdout
    done = command("--cfg", "job", "model=resnet18", "data=cifar10")
    assert "num_classes: ${data.num_classes}" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_root: Path) -> Any:
    """Type `python train.py ...` into this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*arguments: str) -> int:
        usual = [f"data.root={data_root}", "trainer.threads=1", "pictures.enabled=false", "debug=smoke"]
        monkeypatch.setattr(sys, "argv", ["train.py", *usual, *arguments])
        return train_command()

    return make


def test_flags_may_stand_between_overrides(typed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed("model=resnet18", "--cfg", "job", "optim=sgd", "--package=optim")
    assert yaml.safe_load(capsys.readouterr().out)["_target_"] == "torch.optim.SGD"
    typed("model=lenet", "-c", "job", "--config-dir", str(tmp_path), "optim=adam", "-p", "seed", "seed=5")
    assert capsys.readouterr().out.strip() == "5"
    assert flags_first(["a=1", "-i", "b=2", "-m", "--info", "config"]) == [
        "-i=all",
        "-m",
        "--info=config",
        "a=1",
        "b=2",
    ]


def test_an_experiment_a_home_and_chdir_go_together(
    typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "my/experiment").mkdir(parents=True)
    fast = "# @package _global_\ndefaults:\n  - override /optim: sgd\n  - override /augmentation: [flip]\nseed: 7\n"
    (tmp_path / "my/experiment/fast.yaml").write_text(fast)
    (tmp_path / "my/experiment/many.yaml").write_text(fast + "hydra:\n  run:\n    dir: ~/many\n")
    typed(
        "--config-dir",
        "my",
        "+experiment=fast",
        "hydra.run.dir='~/größe (1)'",
        "data.root=data",
        "hydra.job.chdir=true",
    )
    result = json.loads((tmp_path / "home/größe (1)/result.json").read_text())
    assert result["seed"] == 7
    assert result["choices"] | {"augmentation": "flip", "experiment": "fast", "optim": "sgd"} == result["choices"]
    typed("+experiment=many", "--config-dir=my")
    assert (tmp_path / "home/many/result.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"my", "home", "data"}
    (tmp_path / "my/experiment/many.yaml").write_text(fast.replace("optim: sgd", "study: optimizers"))
    assert answer("--config-dir my +experiment=many") == (2, "error: study=optimizers is many runs: add -m")
    status, line = answer("resume=\"'~/no, where'\"")
    assert (status, line.split(":")[1]) == (2, " resume=home/no, where")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_run_goes_on_where_its_screen_is_full_or_gone(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        result = train("debug=smoke")
        assert sys.stdout is full
    assert json.loads((tmp_path / "run/result.json").read_text())["finished"] == result["finished"]
    line = "standard output cannot be written (No space left on device): the run continues without it\n"
    assert capsys.readouterr().err == line
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert train("debug=smoke")["finished"] == result["finished"]
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_command_whose_purpose_is_its_output_says_where_that_is_full(
    typed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, status, line in (
        ("/dev/full", 2, "error: standard output cannot be written (No space left on device)\n"),
        ("", 0, ""),
    ):
        reading, writing = os.pipe()
        os.close(reading)
        with Path(path).open("w") if path else os.fdopen(writing, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            code: Any = 0
            try:
                code = typed("--cfg", "job")
            except SystemExit as end:
                code = end.code
            assert code == status
        assert capsys.readouterr().err == line


def test_a_working_directory_that_is_gone_is_named(
    typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert typed() == 2
    assert report(["anything"]) == 2
    line = "error: the working directory was deleted, or moved: cd to one that is there\n"
    assert capsys.readouterr().err == 2 * line
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_a_signal_interrupts_and_the_run_goes_on_with_resume(
    command_here: Any, data_root: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    arguments = [f"data.root={data_root}", "trainer.threads=1", "trainer.max_epochs=15", "pictures.enabled=false"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments, "hydra.run.dir=run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "run/checkpoints/epoch-0002.ckpt", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "interrupted"
    if number != signal.SIGINT:  # what goes on is the same
        return
    (tmp_path / "run/status.json").unlink()
    done = command_here("resume=run")
    assert done.returncode == 0, done.stderr
    assert "resumes after epoch" in done.stdout
    assert (tmp_path / "run/result.json").exists()


def test_a_directory_that_another_process_holds_is_left_alone(tmp_path: Path, command: Any, settings: Any) -> None:
    with RunDirectory(tmp_path / "run", settings()):
        before = sorted(tmp_path.rglob("*"))
        done = command("hydra.run.dir=run")
        assert done.returncode == 2
        assert "another process is at work" in done.stderr
        assert sorted(tmp_path.rglob("*")) == before


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    """Wait until a file is there, for a minute at most."""
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert path.exists()
