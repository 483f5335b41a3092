"""What a sweep shows: what it would run, how far it is, and what failed."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from convolt.reports.collect import read_run
from convolt.reports.formats import duration_unit, plural
from convolt.sweeps.cost import Cost
from convolt.sweeps.jobs import Job, State
from convolt.sweeps.study import PlannedRun
from convolt.system.files import format_bytes

_STYLES = {"finished": "green", "done": "green", "failed": "red", "running": "cyan", "held elsewhere": "yellow"}


class SweepScreen:
    """Shows a sweep while it runs: on a terminal as a live table, elsewhere as a line for each event.

    Args:
        jobs: All runs of the sweep.
        places: How many at a time, and where, in words.
    """

    def __init__(self, jobs: Sequence[Job], places: str) -> None:
        self.jobs = jobs
        self.console = _make_console()
        self._began = time.monotonic()
        self._started: dict[str, float] = {}
        before = sum(job.state == State.FINISHED for job in jobs)
        self.console.print(f"{len(jobs)} runs, {before} finished before; {places}", markup=False)
        live = Live(console=self.console, get_renderable=self._table, refresh_per_second=1)
        self._live = live if self.console.file.isatty() else None

    def __enter__(self) -> "SweepScreen":
        """Show the table."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last table on the screen."""
        if self._live:
            self._live.stop()

    def update(self, job: Job) -> None:
        """Show the new state of a run."""
        if job.state == State.RUNNING:
            self._started[job.name] = time.monotonic()
        if self._live:
            self._live.refresh()
            return
        done = sum(each.state not in (State.WAITING, State.RUNNING) for each in self.jobs)
        line = f"[{done:>{len(str(len(self.jobs)))}}/{len(self.jobs)}] {job.name} {job.state}"
        if job.result:
            line += f": {_format_outcome(job.result)}, {job.result['seconds']:.1f} s"
        elif job.reason:
            line += f": {job.reason}"
        self.console.print(line, markup=False)

    def _table(self) -> Group:
        """Return the table: all runs if they fit, else those that matter now."""
        numbers = [Column(name, justify="right", no_wrap=True) for name in ("epoch", "accuracy", "time", "left")]
        table = Table(Column("run", no_wrap=True), "state", *numbers, box=None, pad_edge=False)
        room = max(4, self.console.height - 4)
        rows = self.jobs
        if len(rows) > room:
            rank = {State.RUNNING: 0, State.FAILED: 1, State.HELD: 2, State.INTERRUPTED: 2, State.WAITING: 3}
            rows = sorted(rows, key=lambda job: rank.get(job.state, 4))[:room]
        for job in rows:
            table.add_row(*self._cells(job))
        elapsed = _format_duration(time.monotonic() - self._began)
        return Group(table, Text(f"{_format_counts(job.state for job in self.jobs)}; {elapsed}"))

    def _cells(self, job: Job) -> list[Text]:
        epoch = accuracy = elapsed = left = ""
        if job.state == State.RUNNING:
            status = job.read_status()
            if status.get("state") == "running" and status.get("max_epochs"):
                epoch = f"{status['epoch']}/{status['max_epochs']}"
                accuracy = _format_main_metric(status.get("metrics") or {}).rpartition(" ")[2]
                left = _format_duration(status.get("seconds_left"))
            now = time.monotonic()
            elapsed = _format_duration(now - self._started.get(job.name, now))
        elif job.result:
            epoch = str(job.result["epochs"])
            accuracy = _format_outcome(job.result).rpartition(" ")[2]
            elapsed = _format_duration(job.result["seconds"])
        state = Text(f"{job.state}: {job.reason}" if job.reason else job.state, _STYLES.get(job.state, ""))
        return [Text(job.name), state, *map(Text, (epoch, accuracy, elapsed, left))]


def show_plan(
    title: str,
    folder: Path,
    planned_runs: Sequence[PlannedRun],
    jobs: Sequence[Job],
    *,
    costs: Sequence[Cost | None] | None = None,
    kinds: Sequence[str] | None = None,
    power: Sequence[str] = (),
) -> None:
    """Show what would run, how far each run is, what it costs, and what the study can see.

    Args:
        title: The study's; empty in a plain sweep.
        folder: The sweep's.
        planned_runs: The runs.
        jobs: The same, composed.
        costs: Of each run; None: not shown.
        kinds: Of each run, "trial", "run" or "untuned"; None: "run".
        power: Lines that say what differences the study can see.
    """
    columns = [Column(name, no_wrap=True) for name in (("row", "seed", "state") if title else ("state",))]
    columns += [Column(name, overflow="fold") for name in ("overrides", "folder")]
    table = Table(*columns, box=None, pad_edge=False)
    states = []
    pairs = list(zip(planned_runs, jobs, strict=True))
    if title:
        rows = list(dict.fromkeys((run.row, run.swept) for run in planned_runs))
        pairs.sort(key=lambda pair: rows.index((pair[0].row, pair[0].swept)))
    for run, job in pairs:
        state = _describe_state(job)
        states.append(state)
        overrides = " ".join(text for text in run.overrides if not (title and text.startswith("seed=")))
        names = [run.row, str(run.seed)] if title else []
        below = str(job.run_dir.relative_to(folder.absolute()))
        table.add_row(*map(Text, names), Text(state, _STYLES.get(state, "")), Text(overrides), Text(below))
    console = _make_console()
    if title:
        console.print(Text(title, "bold"))
    console.print(table)
    console.print(f"{len(jobs)} runs: {_format_counts(states)}")
    if costs is not None:
        done = [bool(job.bundle) or job.find_result() is not None for job in jobs]
        _show_costs(console, planned_runs, costs, kinds or ["run"] * len(jobs), done)
    for line in [*power, str(folder)]:
        console.print(line, markup=False, soft_wrap=True)


def _show_costs(
    console: Console, runs: Sequence[PlannedRun], costs: Sequence[Cost | None], kinds: Sequence[str], done: list[bool]
) -> None:
    """Show what each row's runs cost, and all together."""
    groups: dict[tuple[str, str], list[Cost | None]] = {}
    for run, cost, kind in zip(runs, costs, kinds, strict=True):
        name = " ".join([run.row, *run.swept] if run.row else [text for text in run.overrides if text[:5] != "seed="])
        groups.setdefault((name, kind), []).append(cost)
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("a run", "in sum", "disk", "memory of a run")]
    table = Table(
        Column("row", overflow="fold"), Column("runs", no_wrap=True), *numbers, "from", box=None, pad_edge=False
    )
    for (name, kind), found in groups.items():
        known = [cost for cost in found if cost]
        many = f"{len(found)} untuned" if kind == "untuned" else plural(len(found), kind)
        if len(known) < len(found):
            table.add_row(Text(name), many, *["not known"] * 4)
            continue
        seconds = math.fsum(cost.processor_seconds for cost in known)
        memory = max(cost.memory_bytes for cost in known)
        amounts = [_format_time(seconds / len(known)), _format_time(seconds), format_bytes(sum(map(_disk, known)))]
        table.add_row(Text(name), many, *amounts, format_bytes(memory) if memory else "", Text(_describe_source(known)))
    console.print(table)
    for line in _sum_lines(costs, done):
        console.print(line, markup=False, soft_wrap=True)


def _sum_lines(costs: Sequence[Cost | None], done: Sequence[bool]) -> list[str]:
    """Say what all runs cost, and what of it is still to be spent."""
    known = [(cost, finished) for cost, finished in zip(costs, done, strict=True) if cost]
    unknown = len(costs) - len(known)
    mend = f"{plural(unknown, 'run')} not known: hydra.sweeper.measure=true measures a second of each row"
    if not known:
        return [mend]
    parts = []
    for on_gpu, what in ((False, "processor time"), (True, "GPU time")):
        own = [pair for pair in known if pair[0].on_gpu == on_gpu]
        if own:
            left = math.fsum(cost.processor_seconds for cost, finished in own if not finished)
            total = _format_time(math.fsum(cost.processor_seconds for cost, _ in own))
            parts.append(
                f"{total} of {what}" + ("" if not any(done) else f", {_format_time(left)} of it still to come")
            )
    disk = format_bytes(sum(_disk(cost) for cost, _ in known))
    return [f"in sum{' at least' if unknown else ''} {'; '.join(parts)}; {disk} on disk", *([mend] if unknown else [])]


def _disk(cost: Cost) -> int:
    return cost.disk_bytes + cost.checkpoint_bytes


def _describe_source(costs: Sequence[Cost]) -> str:
    """Say where costs of one row come from: finished runs, or short ones."""
    sources = dict.fromkeys(
        f"{plural(cost.runs, 'finished run')}" if cost.source == "finished" else "a measured second" for cost in costs
    )
    return " and ".join(sources) + f" on {costs[0].device}"


def _format_time(seconds: float) -> str:
    """Return a duration to two or three digits."""
    unit, length = duration_unit([seconds])
    return f"{seconds / length:.1f} {unit}"


def show_failures(folder: Path, failed: Sequence[JobReturn], total: int) -> None:
    """Show which runs have not finished, and why.

    Args:
        folder: Of the sweep.
        failed: What the launcher returned for them.
        total: How many runs there are.
    """
    console = _make_console()
    if failed:
        columns = [Column(name, overflow="fold") for name in ("reason", "folder")]
        table = Table(Column("not finished", no_wrap=True), *columns, box=None, pad_edge=False)
        above = folder.absolute()
        for each in failed:
            path = Path(str(each.hydra_cfg.hydra.runtime.output_dir)) if each.hydra_cfg else Path()
            name = str(path.relative_to(above) if path.is_relative_to(above) else path)
            reason = str(each._return_value).strip().splitlines() or [type(each._return_value).__name__]
            table.add_row(Text(name), Text(reason[0]), Text(str(path)))
        console.print(table)
    console.print(f"{total - len(failed)} of {total} runs finished")


def _describe_state(job: Job) -> str:
    """Return in a word or two how far a run is."""
    if job.bundle:
        return f"from the bundle {job.bundle}"
    state = read_run(job.run_dir).state
    if state == "finished":
        return "done" if job.find_result() else "done with other settings"
    return state


def _format_outcome(result: Mapping[str, Any]) -> str:
    """Return the most important number of a result, with its name, or that the run has diverged."""
    return "diverged" if result.get("diverged") else _format_main_metric(result["metrics"])


def _format_main_metric(metrics: Mapping[str, Any]) -> str:
    """Return the most important number, with its name."""
    for split in ("test", "val", "train"):
        for name in (f"{split}/mean_iou", f"{split}/accuracy"):
            if metrics.get(name) is not None:
                return f"{name} {metrics[name]:.4f}"
    return ""


def _format_counts(states: Iterable[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(states).items())


def _format_duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds))).removeprefix("0:")


def _make_console() -> Console:
    """Return a console for standard output, wide where it is no terminal."""
    return Console(highlight=False, width=None if Console().file.isatty() else 200)
