"""`python train.py ...` as a user types it, in a process of its own."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from convolt.results.record import RunDirectory

ROOT = Path(__file__).resolve().parents[1]


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
    assert "\x1b" not in done.stdout  # no colours where there is no terminal
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
    code = f"""
import sys
from pathlib import Path
from convolt.command_line import train

sys.argv = ["train.py", "optim.lr=-1"]
try:
    train(Path({str(ROOT / "conf")!r}))
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_a_signal_interrupts_and_the_run_goes_on_with_resume(
    command: Any, data_root: Path, tmp_path: Path, number: signal.Signals, status: int
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
    done = command("resume=run")
    assert done.returncode == 0, done.stderr
    assert "goes on after epoch" in done.stdout
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
