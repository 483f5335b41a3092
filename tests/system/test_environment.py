"""What a terminal, a notebook or a launcher leaves in the environment changes no run, or is refused in a line."""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from convolt.system.environment import RANK_VARIABLES, forget_rank, set_up_process
from convolt.training.run import run

HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.of_a_notebook",
    "MPLCONFIGDIR": "/proc/nowhere",
    "COLUMNS": "0",
    "FORCE_COLOR": "1",
    "TERM": "dumb",
    "DISPLAY": "nowhere:9",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "TMPDIR": "/nowhere",
    "CUDA_VISIBLE_DEVICES": "",
    "SLURM_JOB_ID": "1",
    "SLURM_JOB_NAME": "bash -l",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "TORCHELASTIC_RUN_ID": "1",
}


def test_a_hostile_environment_changes_nothing(
    command: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "svg")
    usual = ["trainer.max_epochs=1", "data.train_size=64"]
    told = command(*usual, "hydra.run.dir='studies/schön/ü'", env=HOSTILE)
    assert (told.returncode, told.stderr) == (0, "")
    assert "epoch 1/1" in told.stdout
    assert "studies/sch?n/?" in told.stdout
    assert "\x1b[2K" not in told.stdout  # a bar belongs to a terminal
    metrics = json.loads((tmp_path / "studies/schön/ü/result.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics == run(settings(*usual), tmp_path / "usual")["metrics"]
    assert os.environ["MPLBACKEND"] == "svg"  # a run that Python code starts leaves figures elsewhere alone
    with_fonts = {name: value for name, value in HOSTILE.items() if name != "MPLCONFIGDIR"}
    told = command("studies/schön", "--metric=test/accuracy", script="report.py", env=with_fonts)
    assert (told.returncode, told.stderr) == (0, "")
    assert list((tmp_path / "studies/schön").rglob("*.svg"))


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PL_TRAINER_MAX_STEPS", "3", "PL_TRAINER_MAX_STEPS=3 in the environment would change the run"),
        ("PL_TRAINER_FAST_DEV_RUN", "1", "unset PL_TRAINER_FAST_DEV_RUN"),
        ("RANK", "1", "RANK=1: a further process of srun, torchrun or mpirun would train the same run"),
        ("SLURM_PROCID", "3", "unset SLURM_PROCID where each process has a run of its own"),
        ("OMPI_COMM_WORLD_RANK", "2", "OMPI_COMM_WORLD_RANK=2: a further process"),
        ("LOCAL_RANK", "first", "LOCAL_RANK=first in the environment is no number of a process"),
    ],
)
def test_what_would_change_a_run_is_refused(
    answer: Any, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(name, value)
    status, said = answer("trainer.max_epochs=1")
    assert status == 2
    assert line in said
    assert len(said.splitlines()) == 1
    with pytest.raises(ValueError, match=name):
        run(settings(), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_an_argument_that_is_no_text_is_refused(answer: Any) -> None:
    assert answer("'data.path=b\udcfccher'")[1].startswith("error: 'data.path=b\\udcfccher' cannot be read as utf-8")


@pytest.mark.parametrize(("value", "kept"), [("120", True), ("0", False), ("-5", False), ("abc", False), ("", False)])
def test_only_a_width_is_a_width(monkeypatch: pytest.MonkeyPatch, value: str, kept: bool) -> None:
    monkeypatch.setenv("COLUMNS", value)
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    set_up_process()
    assert ("COLUMNS" in os.environ) is kept
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize(("option", "left"), [("e", []), ("error::FutureWarning", []), ("once", ["once"])])
def test_warnings_of_libraries_are_no_errors(monkeypatch: pytest.MonkeyPatch, option: str, left: list[str]) -> None:
    monkeypatch.setattr(sys, "warnoptions", [option])
    monkeypatch.setenv("MPLBACKEND", "agg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_up_process()
        assert sys.warnoptions == left
        if left:
            with pytest.raises(FutureWarning):
                warnings.warn("soon", FutureWarning, stacklevel=1)
        else:
            with warnings.catch_warnings(record=True) as caught:
                warnings.warn("soon", FutureWarning, stacklevel=1)
            assert len(caught) == 1


def test_a_worker_is_not_what_started_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.setenv(name, "3")
    forget_rank()
    assert not set(RANK_VARIABLES) & set(os.environ)
