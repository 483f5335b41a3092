"""What a sweep shows: what it would run, how it goes on, and what went wrong."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from convolt.reports.collect import read_run
from convolt.runs.config_hash import config_hash
from convolt.runs.files import RunFiles
from convolt.sweeps.jobs import ComposedJob
from convolt.sweeps.pool import Run, State
from convolt.sweeps.study import Job

_REFRESH_SECONDS = 1.0
_STYLES = {"finished": "green", "done": "green", "failed": "red", "running": "cyan", "held elsewhere": "yellow"}


class SweepScreen:
    """Shows a sweep while it runs: on a terminal as a table that moves, elsewhere a line an event.

    Args:
        runs: All runs of the sweep.
        places: How many at a time, and where, in words.
    """

    def __init__(self, runs: Sequence[Run], places: str) -> None:
        self.runs = runs
        self.console = _console()
        self._began = time.monotonic()
        self._started: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._last_look = 0.0
        before = sum(run.state == State.FINISHED for run in runs)
        self.console.print(f"{len(runs)} runs, {before} finished before; {places}", markup=False)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.file.isatty() else None

    def __enter__(self) -> "SweepScreen":
        """Show the table."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the table as it is at the end."""
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def changed(self, run: Run) -> None:
        """Show that a run has another state."""
        if run.state == State.RUNNING:
            self._started[run.name] = time.monotonic()
        elif run.name in self._started:
            self._seconds[run.name] = time.monotonic() - self._started[run.name]
        if self._live:
            self._live.update(self._table(), refresh=True)
            return
        done = sum(each.state not in (State.WAITING, State.RUNNING) for each in self.runs)
        line = f"[{done:>{len(str(len(self.runs)))}}/{len(self.runs)}] {run.name} {run.state}"
        if run.result:
            line += f": {_figure(run.result['metrics'])}, {run.result['seconds']:.1f} s"
        elif run.reason:
            line += f": {run.reason}"
        self.console.print(line, markup=False)

    def look(self) -> None:
        """Draw the table anew, about once a second."""
        if self._live and time.monotonic() - self._last_look > _REFRESH_SECONDS:
            self._last_look = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Group:
        """Return the table: all runs if they fit, else those that matter now."""
        table = Table(box=None, pad_edge=False)
        for name, justify in (("run", "left"), ("state", "left"), ("epoch", "right"), ("accuracy", "right")):
            table.add_column(name, justify=justify, no_wrap=name != "state")  # type: ignore[arg-type]
        table.add_column("time", justify="right")
        table.add_column("left", justify="right")
        room = max(4, self.console.height - 4)
        shown = list(self.runs)
        if len(shown) > room:
            rank = {State.RUNNING: 0, State.FAILED: 1, State.HELD: 2, State.INTERRUPTED: 2, State.WAITING: 3}
            shown = sorted(shown, key=lambda run: rank.get(run.state, 4))[:room]
        for run in shown:
            table.add_row(*self._cells(run))
        counts = Counter(str(run.state) for run in self.runs)
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        return Group(table, Text(f"{summary}; {_duration(time.monotonic() - self._began)}"))

    def _cells(self, run: Run) -> list[Text]:
        epoch = accuracy = taken = left = ""
        if run.state == State.RUNNING:
            status = run.status()
            if status.get("state") == "running" and status.get("max_epochs"):
                epoch = f"{status['epoch']}/{status['max_epochs']}"
                accuracy = _figure(status.get("metrics") or {}).rpartition(" ")[2]
                left = _duration(status.get("seconds_left"))
            taken = _duration(time.monotonic() - self._started[run.name])
        elif run.result:
            epoch = str(run.result["epochs"])
            accuracy = _figure(run.result["metrics"]).rpartition(" ")[2]
            taken = _duration(run.result["seconds"])
        state = f"{run.state}: {run.reason}" if run.reason else str(run.state)
        texts = [Text(text) for text in (run.name, state, epoch, accuracy, taken, left)]
        texts[1].stylize(_STYLES.get(run.state, ""))
        return texts


def show_plan(title: str, folder: Path, jobs: Sequence[Job], composed: Sequence[ComposedJob]) -> None:
    """Show what would run, and how far each run is.

    Args:
        title: The study's; empty in a plain sweep.
        folder: Where everything would go.
        jobs: The runs.
        composed: The same, composed.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("row", "seed") if title else ():
        table.add_column(name, no_wrap=True)
    for name in ("state", "overrides", "folder"):
        table.add_column(name, overflow="fold", no_wrap=name == "state")
    counts: Counter[str] = Counter()
    rows = list(dict.fromkeys((job.row, job.swept) for job in jobs))
    pairs = sorted(zip(jobs, composed, strict=True), key=lambda pair: rows.index((pair[0].row, pair[0].swept)))
    for job, each in pairs if title else zip(jobs, composed, strict=True):
        state = _state(each)
        counts[state] += 1
        given = " ".join(text for text in job.overrides if not (title and text.startswith("seed=")))
        names = [job.row, str(job.seed)] if title else []
        below = str(each.run_dir.relative_to(folder.absolute()))
        table.add_row(*map(Text, names), Text(state, _STYLES.get(state, "")), Text(given), Text(below))
    console = _console()
    if title:
        console.print(Text(title, "bold"))
    console.print(table)
    console.print(f"{len(jobs)} runs: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    console.print(str(folder), markup=False, soft_wrap=True)


def show_failures(folder: Path, failed: Sequence[JobReturn], total: int) -> None:
    """Show which runs have not finished, and why.

    Args:
        folder: Of the sweep.
        failed: What the launcher says of them.
        total: How many runs there are.
    """
    console = _console()
    if failed:
        table = Table(box=None, pad_edge=False)
        table.add_column("not finished", no_wrap=True)
        table.add_column("reason", overflow="fold")
        table.add_column("folder", overflow="fold")
        for each in failed:
            path = Path(str(each.hydra_cfg.hydra.runtime.output_dir)) if each.hydra_cfg else Path()
            above = folder.absolute()
            name = str(path.relative_to(above) if path.is_relative_to(above) else path)
            reason = str(each._return_value).strip().splitlines() or [type(each._return_value).__name__]
            table.add_row(Text(name), Text(reason[0]), Text(str(path)))
        console.print(table)
    console.print(f"{total - len(failed)} of {total} runs finished")


def _state(job: ComposedJob) -> str:
    """Tell in a word or two how far a run is."""
    run = read_run(job.run_dir)
    if run.state == "finished":
        return "done" if RunFiles(job.run_dir).result(config_hash(job.cfg)) else "done with other settings"
    return run.state


def _figure(metrics: Mapping[str, Any]) -> str:
    """Return the number that tells most, with its name."""
    for split in ("test", "val", "train"):
        for name in (f"{split}/mean_iou", f"{split}/accuracy"):
            if metrics.get(name) is not None:
                return f"{name} {metrics[name]:.4f}"
    return ""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _console() -> Console:
    """Return a console for standard output, wide where it is no terminal."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.file.isatty() else Console(highlight=False, width=200)
