"""Starts runs, kills them at drawn points, goes on with them and compares every number with an uninterrupted run."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from killer import Killer

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = (
    "trainer.threads=1", "trainer.accelerator=cpu", "trainer.max_epochs=4", "data.train_size=256", "optim=adam",
    "scheduler=onecycle", "model.dropout=0.2", "augmentation=[crop,mixup]", "trainer.early_stopping.patience=3",
)  # fmt: skip
"""A short run in which everything that has a state takes part."""

STUDY = (
    "study=optimizers", "model=lenet", "data=digits", "trainer.threads=1", "trainer.accelerator=cpu",
    "hydra.sweep.dir=study", "hydra.launcher.n_jobs=2",
)  # fmt: skip
FIXED = ("hydra.sweeper.tune=null", "seed=0", "trainer.max_epochs=4", "data.train_size=256")
DECIDING = (
    "hydra.sweeper.tune={space: {optim.lr: {low: 0.01, high: 1, log: true}}, trials: 2, extend: 1}",
    "hydra.sweeper.settle={looks: [2, 3]}", "trainer.max_epochs=2", "data.train_size=200",
)  # fmt: skip
"""A study of one seed, and one that chooses its rates and seeds by itself."""

COMPARED = ("metrics", "per_class", "confusion_matrix", "tested_epoch", "epochs", "checkpoint", "config_hash")


@dataclass
class Figures:
    """What a draw has come to.

    Attributes:
        points: Kill points tried, by what they were.
        compared: Runs compared with their reference.
        goes_on: Continuations that went on after an epoch, and those that began anew.
        lost: What was not as it should have been, a line each.
    """

    points: dict[str, int] = field(default_factory=dict)
    compared: int = 0
    goes_on: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        self.points[what] = self.points.get(what, 0) + 1


def warm_up() -> None:
    """Import all that a run needs, and compute nothing: forks then start in no time."""
    import pytorch_lightning  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import torchvision  # noqa: F401

    import convolt.cli.train
    import convolt.training.run  # noqa: F401


def start(arguments: list[str], cwd: Path, killer: Killer | None = None) -> int:
    """Fork a process that does what `python train.py ...` does; return its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        log = os.open(cwd / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(cwd)
        sys.argv = ["train.py", *arguments]
        if killer:
            killer.install()
        from convolt.cli.train import main

        try:
            status = main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        if killer and not killer.at:
            (cwd / "calls").write_text(str(killer.count))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int) -> int:
    """Wait for a process; return its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def numbers(run: Path) -> dict[str, Any]:
    """Return all that must be the same bit for bit."""
    result = json.loads((run / "result.json").read_text())
    with (run / "metrics.csv").open() as lines:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(lines)]
    return {key: result.get(key) for key in COMPARED} | {"rows": rows}


def kill_runs(folder: Path, seed: int, points: int, figures: Figures) -> None:
    """Kill one run at drawn points, each time in a new folder, and end it by the same command or by resume=."""
    draw = random.Random(seed)
    whole = folder / "whole"
    whole.mkdir(parents=True)
    command = [*EVERYTHING, "hydra.run.dir=run"]
    counts = []
    for _ in ("with the dataset's preparation", "without"):
        began = time.monotonic()
        again = ["data.root=data", "force=true"]
        assert ended(start([*command, *again], whole, Killer(0))) == 0, (whole / "log").read_text()
        seconds = time.monotonic() - began
        counts.append(int((whole / "calls").read_text()))
    reference, (with_data, calls) = numbers(whole / "run"), counts
    for number in range(points):
        place = folder / f"point{number}"
        place.mkdir()
        prepares = number % 4 == 0  # a dataset of its own, which is prepared under fire
        root = "data.root=data" if prepares else f"data.root={whole / 'data'}"
        for _ in range(1 + (draw.random() < 0.25)):  # some are killed twice
            if number % 5 == 4:
                pid = start([*command, root], place)
                time.sleep(draw.uniform(0.1, 0.95) * seconds)
                os.kill(pid, signal.SIGKILL)
                kind = "at a drawn time"
            else:
                how = draw.choice(("before", "after", "torn"))
                at = draw.randint(1, max(with_data - calls, 1)) if prepares else draw.randint(1, int(0.85 * calls))
                pid = start([*command, root], place, Killer(at, how, draw.random()))
                kind = f"{how} a call" + (", dataset not there yet" if prepares else "")
            status = ended(pid)
            if status == -signal.SIGKILL:
                figures.count(kind)
            elif status == 0:
                figures.count("ended before its point")
            else:
                figures.lost.append(f"{place}: {kind} ended with {status}")
        resumes = draw.random() < 0.5 and (place / "run/.hydra/config.yaml").exists()
        finish(place, ["resume=run"] if resumes else [*command, root], place / "run", reference, figures)


def finish(place: Path, command: list[str], run: Path, reference: dict[str, Any], figures: Figures) -> None:
    """Go on with what was killed, and compare."""
    before = len((place / "log").read_text()) if (place / "log").exists() else 0
    status = ended(start(command, place))
    said = (place / "log").read_text()[before:]
    went = "went on after a whole epoch" if "resumes after epoch" in said else "began anew"
    went = "had finished" if "finished before" in said else went
    figures.goes_on[went] = figures.goes_on.get(went, 0) + 1
    figures.compared += 1
    if status != 0:
        figures.lost.append(f"{place}: {' '.join(command)} ended with {status}: {said[-500:]}")
        return
    found = numbers(run)
    figures.lost += [f"{place}: {key} differs" for key in reference if found[key] != reference[key]]
    if json.loads((run / "status.json").read_text())["state"] != "finished":
        figures.lost.append(f"{place}: status.json does not say finished")
    figures.lost += [f"{place}: {path} was left" for path in run.rglob("*.tmp")]


def kill_studies(folder: Path, seed: int, points: int, figures: Figures) -> None:
    """Kill a study of two runs at a time (the launcher, a run, or all), and end it by the same command.

    In turn it is one of a fixed seed, and one that is tuned and settles.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    references: dict[tuple[str, ...], tuple[float, dict[str, Any]]] = {}
    data = folder / "data"
    for number in range(points):
        kind = (FIXED, DECIDING)[number % 2]
        if kind not in references:
            whole = folder / ("tuned" if kind == DECIDING else "whole")
            whole.mkdir()
            began = time.monotonic()
            study(whole, data, kind).wait()
            references[kind] = (time.monotonic() - began, study_numbers(whole / "study"))
        seconds, reference = references[kind]
        place = folder / f"study{number}"
        place.mkdir()
        target = ("the launcher", "a run", "the launcher and all runs")[number // 2 % 3]
        if target == "a run":
            how = draw.choice(("before", "after", "torn"))
            fault = f"{draw.randint(2, 45)}|{how}|{draw.random()}|{place}/once|study/"
            status = study(place, data, kind, fault).wait()
            hit = (place / "once").exists()
            if hit and status == 0:
                figures.lost.append(f"{place}: the study ended with 0 although a run was killed")
        else:
            process = study(place, data, kind)
            time.sleep(draw.uniform(0.3 if kind == DECIDING else 0.5, 0.95) * seconds)
            hit = process.poll() is None
            if target == "the launcher":
                process.kill()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(1)  # the runs notice that the launcher is gone
        name = "a tuned, settling study" if kind == DECIDING else "a study"
        figures.count(f"{target} of {name}" if hit else f"{name} that had ended")
        status = study(place, data, kind).wait()
        if status != 0:
            figures.lost.append(f"{place}: ended with {status}: {(place / 'log').read_text()[-800:]}")
            continue
        found = study_numbers(place / "study")
        figures.compared += len(found) - 1
        figures.lost += [f"{place}: {what} differs" for what in reference if found.get(what) != reference[what]]
        figures.lost += [f"{place}: {what} is there besides" for what in found if what not in reference]


def study_numbers(folder: Path) -> dict[str, Any]:
    """Return what a study has decided, and of each of its runs all that must be the same bit for bit."""
    decided = json.loads((folder / "study.json").read_text())
    runs = {str(path.parent.relative_to(folder)): numbers(path.parent) for path in folder.rglob("result.json")}
    return {"study.json": decided, **runs}


def study(cwd: Path, root: Path, kind: Sequence[str], fault: str | None = None) -> "subprocess.Popen[bytes]":
    """Start a study as a user does."""
    inject = {"FAULT_AT": fault, "PYTHONPATH": f"{Path(__file__).parent / 'inject'}:{os.environ.get('PYTHONPATH', '')}"}
    with (cwd / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, ROOT / "train.py", *STUDY, *kind, f"data.root={root}"],
            cwd=cwd,
            env=os.environ | (inject if fault else {}),  # type: ignore[arg-type]
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
