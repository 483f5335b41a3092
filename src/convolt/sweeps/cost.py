"""What the runs of a sweep will cost: from finished runs, or from short ones that are measured, else not known."""

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from convolt.config.settings import Settings
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.runs.files import RunFiles
from convolt.sweeps.gpu_share import place_runs
from convolt.sweeps.gpus import list_gpu_names
from convolt.sweeps.jobs import Job, State
from convolt.sweeps.measure import Measurement, RunAll, is_tested, measure_runs
from convolt.sweeps.pool import Pool, make_context
from convolt.sweeps.slots import Slot
from convolt.system.cores import name_processor
from convolt.system.files import count_bytes
from convolt.system.signals import interrupt_on_signals
from convolt.training.start import start_run

_GPU = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|TITAN|Instinct|Radeon|MI\d{3}|^[AHBLVP]\d{2,4}\b")


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Attributes:
        seconds: From its start to its result.
        threads: CPU threads.
        disk_bytes: Of its directory, without checkpoints.
        checkpoint_bytes: Of its checkpoints.
        memory_bytes: At its peak: the GPU's, or the process's.
        source: Finished runs of these settings, or short ones that were measured.
        device: As results name it.
        runs: How many runs say so.
        cpu_seconds: Processor time; None: not known, and taken to be the seconds of all threads.
    """

    seconds: float
    threads: int
    disk_bytes: int
    checkpoint_bytes: int
    memory_bytes: int
    source: Literal["finished", "measured"]
    device: str = ""
    runs: int = 1
    cpu_seconds: float | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU does the work."""
        return bool(_GPU.search(self.device))

    @property
    def processor_seconds(self) -> float:
        """A GPU's seconds, or those of all cores together."""
        if self.on_gpu:
            return self.seconds
        return self.seconds * self.threads if self.cpu_seconds is None else self.cpu_seconds


def estimate_costs(
    jobs: Sequence[Job],
    *,
    measure: bool,
    cells: Sequence[Hashable] | None = None,
    run_all: RunAll | None = None,
) -> list[Cost | None]:
    """Estimate what each run takes.

    Finished runs of the same settings but the seed count first, then those of the same cell that were tested alike (so
    that tuned values may differ), each on the device that the runs to come will have.

    Args:
        jobs: All runs of the sweep, composed; those that have finished are found in their directories.
        measure: Measure the cells of which no run has finished, not each run.
        cells: The row and swept values of each job; None: settings but the seed.
        run_all: Runs the short runs that are measured; None: in processes of their own, as the local launcher does.

    Returns:
        None where nothing is known.
    """
    settings = [Settings.of(job.cfg) for job in jobs]
    tested = [is_tested(each) for each in settings]
    results = _results_on_the_device(jobs)
    finished = {n: _cost_of(jobs[n], result) for n, result in results.items()}
    exact = [_hash_but(each, {"seed": 0}) if finished else "" for each in settings]
    if cells is None:
        cells = [_hash_but(each, {"seed": 0, "trainer.test": "best"}) for each in settings]
    costs: list[Cost | None] = []
    for n in range(len(jobs)):
        same = [cost for other, cost in finished.items() if exact[other] == exact[n]]
        alike = [cost for k, cost in finished.items() if (cells[k], tested[k]) == (cells[n], tested[n])]
        costs.append(_mean(same or alike))
    if measure and None in costs:
        places, run_all = (1, run_all) if run_all else _places(jobs)
        unknown = [n for n, cost in enumerate(costs) if cost is None]
        chosen = _choose_measured(unknown, cells, tested, places)
        found = measure_runs([jobs[n] for n in chosen], run_all)
        for n in unknown:
            own = [each for k, each in zip(chosen, found, strict=True) if cells[k] == cells[n] and each]
            costs[n] = _mean([_as_cost(each, settings[n].epochs, tested[n]) for each in own])
    return costs


def _choose_measured(
    unknown: Sequence[int], cells: Sequence[Hashable], tested: Sequence[bool], places: int
) -> list[int]:
    """Choose what is measured: a run of each cell, of those that are tested where there are any.

    Where there are fewer cells than places, places would stay empty that the sweep will fill: then more of each cell.
    """
    by_cell: dict[Hashable, list[int]] = {}
    for n in unknown:
        by_cell.setdefault(cells[n], []).append(n)
    each = max(1, places // len(by_cell))
    return [n for own in by_cell.values() for n in ([k for k in own if tested[k]] or own)[:each]]


def choose_seeds(max_hours: float, cost_per_seed_seconds: float | None, tuning_seconds: float, slots: int) -> int:
    """Return how many seeds fit into some hours.

    Args:
        max_hours: Of the clock, 0 or more.
        cost_per_seed_seconds: What one seed of all rows takes, one run after the other; None: not known.
        tuning_seconds: What all trials and untuned runs take, likewise.
        slots: Runs at a time.

    Raises:
        UserError: Where not even one fits, or the cost is not known.
    """
    if cost_per_seed_seconds is None:
        raise UserError(
            f"hydra.sweeper.max_hours={max_hours:g}: what a run takes is not known before one of each row has "
            "finished: add hydra.sweeper.measure=true"
        )
    seeds = math.floor((max_hours * 3600 * slots - tuning_seconds) / cost_per_seed_seconds + 1e-9)
    if seeds >= 1:
        return seeds
    hours = (tuning_seconds + cost_per_seed_seconds) / slots / 3600
    tuning = f"tuning takes {_in_hours(tuning_seconds / slots)} and " if tuning_seconds else ""
    raise UserError(
        f"hydra.sweeper.max_hours={max_hours:g} is too little: {tuning}each seed of all rows "
        f"{'' if tuning else 'takes '}{_in_hours(cost_per_seed_seconds / slots)} here: "
        f"set {_round_up(hours):g} or more for one seed, or fewer epochs{', trials' if tuning else ''} or rows"
    )


def _in_hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.1f} min"


def _round_up(hours: float) -> float:
    """Round up to two digits."""
    size = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return round(math.ceil(hours / size - 1e-9) * size, 9)


def _results_on_the_device(jobs: Sequence[Job]) -> dict[int, dict[str, Any]]:
    """Return the results of jobs that have finished on the device that those to come will have, by number.

    On this machine that is one of its own; of a cluster, the one that most of them had.
    """
    results = {n: result for n, job in enumerate(jobs) if (result := job.result or job.find_result())}
    bundled = {n for n in results if jobs[n].bundle or jobs[n].read_status().get("bundled")}  # of another machine
    results = {n: result for n, result in results.items() if n not in bundled}
    if not results:
        return {}
    if _launcher(jobs[0]) in ("local", "basic", ""):
        gpus, processor = list_gpu_names(), name_processor()
        wanted = {n: gpus if gpus and jobs[n].cfg.trainer.accelerator != "cpu" else [processor] for n in results}
        return {n: result for n, result in results.items() if result.get("device") in wanted[n]}
    usual = Counter(result.get("device") for result in results.values()).most_common(1)[0][0]
    return {n: result for n, result in results.items() if result.get("device") == usual}


def _hash_but(settings: Settings, changes: dict[str, int | str]) -> str:
    return config_hash(settings.replaced(changes).cfg)


def _launcher(job: Job) -> str:
    hydra = job.hydra_cfg.get("hydra") or {}
    return str(((hydra.get("runtime") or {}).get("choices") or {}).get("hydra/launcher") or "")


def _cost_of(job: Job, result: dict[str, Any]) -> Cost:
    checkpoints = count_bytes(RunFiles(job.run_dir).checkpoints)
    return Cost(
        seconds=float(result["seconds"]),
        threads=int(result.get("threads") or 1),
        disk_bytes=count_bytes(job.run_dir) - checkpoints,
        checkpoint_bytes=checkpoints,
        memory_bytes=int(result.get("peak_memory_bytes") or 0),
        source="finished",
        device=str(result.get("device") or ""),
        cpu_seconds=float(result["cpu_seconds"]) if "cpu_seconds" in result else None,
    )


def _mean(costs: Sequence[Cost]) -> Cost | None:
    """Return the mean of what runs of one source took; of memory the most; None of none."""
    if not costs:
        return None
    return Cost(
        seconds=fmean(cost.seconds for cost in costs),
        threads=max(cost.threads for cost in costs),
        disk_bytes=round(fmean(cost.disk_bytes for cost in costs)),
        checkpoint_bytes=round(fmean(cost.checkpoint_bytes for cost in costs)),
        memory_bytes=max(cost.memory_bytes for cost in costs),
        source=costs[0].source,
        device=costs[0].device,
        runs=len(costs),
        cpu_seconds=fmean(cpu_seconds) if (cpu_seconds := [c.cpu_seconds for c in costs if c.cpu_seconds]) else None,
    )


def _as_cost(measured: Measurement, epochs: int, tested: bool) -> Cost:
    seconds = measured.seconds(epochs, tested=tested)
    return Cost(
        seconds=seconds,
        threads=measured.threads,
        disk_bytes=measured.disk_bytes + (measured.test_bytes if tested else 0),
        checkpoint_bytes=measured.checkpoint_bytes if tested else 0,  # a trial keeps none
        memory_bytes=measured.memory_bytes,
        source="measured",
        device=measured.device,
        cpu_seconds=measured.cores * seconds,
    )


class _Progress:
    """Says what is measured."""

    def update(self, job: Job, /) -> None:
        """Print a short run that has ended."""
        if job.state not in (State.WAITING, State.RUNNING):
            took = f"{job.result['seconds']:.1f} s" if job.result else job.reason
            print(f"a short run like {job.name}: {took}", flush=True)


def count_slots(jobs: Sequence[Job]) -> int:
    """Return how many of these jobs the local launcher would run at a time."""
    return len(divide_machine(jobs)[1])


def divide_machine(jobs: Sequence[Job]) -> tuple[Any, list[Slot], str]:
    """Return the way to start processes, and what `place_runs` finds by the options of the jobs' local launcher."""
    options = launcher_options(jobs)
    n_jobs = options.get("n_jobs", "auto")
    with interrupt_on_signals():
        context = make_context(["convolt.sweeps.preload"])
        per_gpu = options.get("jobs_per_gpu", 1)
        return context, *place_runs(context, jobs, n_jobs if isinstance(n_jobs, int) else None, per_gpu)


def launcher_options(jobs: Sequence[Job]) -> Mapping[str, Any]:
    """Return the options of the jobs' launcher."""
    options: Mapping[str, Any] = (jobs[0].hydra_cfg.get("hydra") or {}).get("launcher") or {}
    return options


def _places(jobs: Sequence[Job]) -> tuple[int, RunAll]:
    """Return how many of these jobs the local launcher would run at a time, and what runs short ones there."""
    context, slots, _ = divide_machine(jobs)
    return len(slots), Pool(start_run, slots, context, _Progress()).run
