"""What a sweep would run, take and see, before it starts."""

from collections.abc import Sequence
from pathlib import Path

from convolt.reports.formats import plural
from convolt.sweeps.cost import choose_seeds, count_slots, divide_machine, estimate_costs, launcher_options
from convolt.sweeps.jobs import Job
from convolt.sweeps.outlook import describe_power, find_deviation
from convolt.sweeps.rounds import StudyRounds
from convolt.sweeps.schedule import StudyRun, continue_seeds
from convolt.sweeps.screen import show_plan
from convolt.sweeps.slots import describe_slots
from convolt.sweeps.study import PlannedRun


def show_plain_sweep(folder: Path, runs: Sequence[PlannedRun], jobs: Sequence[Job], *, measure: bool) -> None:
    """Show the runs of a plain sweep, and what they take."""
    _show_places(jobs)
    show_plan("", folder, runs, jobs, costs=estimate_costs(jobs, measure=measure))


def show_study(rounds: StudyRounds, *, measure: bool) -> None:
    """Show the runs of a study or search, what they take, and what differences the study can see."""
    study = rounds.plan.study
    jobs = rounds.look_up()
    runs, composed = list(jobs), list(jobs.values())
    costs = estimate_costs(composed, measure=measure, cells=[(run.row, run.swept, run.candidate) for run in runs])
    title = f"{study.title}: {study.question}" if study.question else study.title
    kinds = [run.kind for run in runs]
    power = [] if rounds.plan.is_search or rounds.candidates else _describe_power(rounds, jobs)
    if rounds.candidates:
        power = _describe_candidates(rounds)
    planned = [rounds.plan.run(run) for run in runs]
    _show_places(composed)
    show_plan(title, rounds.folder, planned, composed, costs=costs, kinds=kinds, power=power)
    for name in rounds.have.names:
        if all(job.bundle != name for job in composed):
            print(f"nothing would come from {name}: it has no run of these settings that is missing here", flush=True)


def _show_places(jobs: Sequence[Job]) -> None:
    """Show how many runs would share a GPU, and why, where that is not typed."""
    if launcher_options(jobs).get("jobs_per_gpu") == "auto":
        _, slots, reason = divide_machine(jobs)
        print(f"{describe_slots(slots)}; {reason}", flush=True)


def _describe_candidates(rounds: StudyRounds) -> list[str]:
    """Say how long candidates run, beside the published runs."""
    block = rounds.plan.study.candidates
    assert block is not None
    if block.epochs is None:
        return [f"candidates run to their end with seed {block.seed}, as the published runs did"]
    return [
        f"candidates run {plural(block.epochs, 'epoch')} with seed {block.seed}, a screening: the published numbers "
        "are of whole runs"
    ]


def _describe_power(rounds: StudyRounds, jobs: dict[StudyRun, Job]) -> list[str]:
    schedule, settle = rounds.plan.schedule, rounds.plan.study.settle
    runs = {run: job for run, job in jobs.items() if run.kind == "run"}
    metric = settle.metric if settle else "test/accuracy"
    cells = [(run.row, run.swept) for run in runs]
    deviation = find_deviation(list(runs.values()), cells, schedule.baseline, metric)
    comparisons = schedule.comparisons if len(schedule.rows) > 1 else 0
    return describe_power(comparisons, len(schedule.all_seeds()), deviation, settle)


def seeds_within(rounds: StudyRounds, max_hours: float, *, measure: bool) -> list[int]:
    """Return the page's seeds, or those that continue them, as many as some hours allow.

    Args:
        rounds: The study with one seed, of which no run has begun.
        max_hours: Of the clock.
        measure: Measure rows of which no run has finished.

    Raises:
        UserError: Where not even one seed fits, or what runs take is not known.
    """
    jobs = rounds.look_up()
    costs = estimate_costs(list(jobs.values()), measure=measure, cells=[(run.row, run.swept) for run in jobs])
    unknown = None in costs
    sums = {"run": 0.0, "tuning": 0.0}
    for run, cost in zip(jobs, costs, strict=True):
        sums["run" if run.kind == "run" else "tuning"] += cost.seconds if cost else 0.0
    slots = count_slots(list(jobs.values()))
    count = choose_seeds(max_hours, None if unknown else sums["run"], sums["tuning"], slots)
    return continue_seeds(rounds.plan.schedule.seeds, count)
