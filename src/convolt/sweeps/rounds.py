"""The rounds of a study: each launches the runs whose need is known, and its results tell which are needed next."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from convolt.config.overrides import format_override
from convolt.reports.formats import Metric
from convolt.runs.files import RunFiles
from convolt.runs.prune import Keep, prune_checkpoints
from convolt.sweeps.have import BundledRuns
from convolt.sweeps.jobs import Job, State, compose_job
from convolt.sweeps.schedule import Finished, StudyRun
from convolt.sweeps.study import PlannedRun
from convolt.sweeps.study_plan import StudyPlan, check_unchanged_design
from convolt.system.files import read_json, write_json
from convolt.system.installation import command_name

LaunchRuns = Callable[[Sequence[PlannedRun], int], list[JobReturn]]
"""Launches runs, of which the first has a number in the whole sweep; returns what the launcher says of each."""


def hydra_overrides(run: PlannedRun) -> list[str]:
    """Return what Hydra is to compose a run from."""
    return [*run.overrides, *([] if run.folder is None else [format_override("hydra.sweep.subdir", run.folder)])]


def _return_diverged(job: Job) -> JobReturn:
    """Return what the launcher said of a run that diverged at an earlier start: a verdict rests on it, so it stays."""
    job.state, job.reason = State.FAILED, str(job.read_status().get("error") or "diverged").splitlines()[0]
    return job.to_job_return()


class StudyRounds:
    """A study while its runs are launched.

    Args:
        plan: The study.
        folder: Its folder.
        rows: The rows whose runs are launched; None: all. The others count with the results that they have.
        keep: Which checkpoints of finished runs stay: all, best or none; trials and candidates keep none.
        config: The sweep's config.
        loader: Hydra's.
        have: Finished runs that came in bundles.
        candidates: Whether the runs of the candidates are launched, and not the table's.
    """

    def __init__(
        self,
        plan: StudyPlan,
        folder: Path,
        *,
        rows: Sequence[str] | None,
        keep: Keep,
        config: DictConfig,
        loader: ConfigLoader,
        have: BundledRuns | None = None,
        candidates: bool = False,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.rows = None if rows is None else set(rows)
        self.keep = keep
        self.config = config
        self.loader = loader
        self.have = have or BundledRuns(None)
        self.candidates = candidates
        self.monitor: str | None = None
        self._results: dict[StudyRun, Finished | None] = {}
        self._diverged: dict[StudyRun, Job] = {}
        self._printed: set[str] = set()

    def result(self, run: StudyRun) -> Finished | None:
        """Return what is known of a run: of those that are not launched, what lies in its directory."""
        if run not in self._results and self.rows is not None and run.row not in self.rows:
            self._read(run, self.compose(run).find_result())
        return self._results.get(run)

    def compose(self, run: StudyRun) -> Job:
        """Compose a run."""
        return compose_job(self.loader, self.config, hydra_overrides(self.plan.run(run)))

    def known_runs(self) -> list[StudyRun]:
        """Return the runs that are known to be needed, of the rows that are launched."""
        return self._of_rows(self.plan.candidate_runs()) if self.candidates else self._table_runs()

    def _table_runs(self) -> list[StudyRun]:
        return self._of_rows(self.plan.schedule.runs(self.result))

    def _of_rows(self, runs: list[StudyRun]) -> list[StudyRun]:
        return runs if self.rows is None else [run for run in runs if run.row in self.rows]

    def look_up(self) -> dict[StudyRun, Job]:
        """Compose the runs that are known to be needed, given the results that lie on disk; launch nothing.

        Of rows that are not tuned yet, the runs are composed without a choice.
        """
        self._check_bundled_studies()
        jobs: dict[StudyRun, Job] = {}
        while new := [run for run in self.known_runs() if run not in jobs]:
            for run in new:
                jobs[run] = job = self.compose(run)
                result = job.find_result()
                if not result and not job.cfg.force and (found := self.have.find(job)):
                    job.bundle = found.bundle
                    job.result = result = found.result
                self._read(run, result)
        for run in self.plan.schedule.unchosen_runs(self.result):
            if self.rows is None or run.row in self.rows:
                jobs[run] = self.compose(run)
        return jobs

    def take_bundled(self) -> None:
        """Lay out what bundles have of the runs that are known to be needed, of all rows, and say what was taken."""
        if not self.have:
            return
        self._check_bundled_studies()
        jobs: dict[StudyRun, Job] = {}
        candidates = self.plan.candidate_runs()
        while new := [run for run in (*self.plan.schedule.runs(self.result), *candidates) if run not in jobs]:
            self._take(new, jobs)
        for line in self.have.describe(jobs.values()):
            print(line, flush=True)

    def _check_bundled_studies(self) -> None:
        for study in self.have.studies:
            check_unchanged_design(study, self._record(), "restore it, or leave out hydra.sweeper.have")

    def _take(self, runs: Sequence[StudyRun], jobs: dict[StudyRun, Job]) -> None:
        for run in runs:
            jobs[run] = job = self.compose(run)
            self.have.take(job)
            self._read(run, None if job.cfg.force else job.find_result())

    def read_finished(self) -> None:
        """Read the results that earlier starts have left, so that what they decided is never forgotten."""
        seen: set[StudyRun] = set()
        while new := [run for run in self._table_runs() if run not in seen]:
            seen.update(new)
            for run in new:
                files = RunFiles(self.folder / str(self.plan.run(run).folder))
                if not files.result() and not files.has_diverged():
                    continue
                job = self.compose(run)
                if job.cfg.force:
                    continue
                self._read(run, job.find_result())
                if run.kind == "run" and self.plan.study.settle and job.has_diverged():
                    self._diverged[run] = job
                    self._results[run] = Finished(diverged=True)

    def launch(self, launch: LaunchRuns) -> list[JobReturn]:
        """Launch round after round, until no further run is needed, or none that has not been tried.

        Args:
            launch: Launches some runs.

        Returns:
            What the launcher says of each run.
        """
        diverged = {} if self.candidates else self._diverged
        launched = {run: _return_diverged(job) for run, job in diverged.items()}
        while new := [run for run in self.known_runs() if run not in launched]:
            if self.have and launched:  # what the results of this start have made known
                self._take(new, {})
            self.write_record()
            planned = [self.plan.run(run) for run in new]
            for run, each, done in zip(new, planned, launch(planned, len(launched)), strict=True):
                launched[run] = done
                files = RunFiles(self.folder / str(each.folder))
                if done.status == JobStatus.COMPLETED:
                    self._read(run, files.result())
                    prune_checkpoints(files.path, "none" if run.kind in ("trial", "candidate") else self.keep)
                elif files.has_diverged():
                    self._results[run] = Finished(diverged=True)
            self._print_decisions()
        self.write_record()
        tune = self.plan.study.tune
        if self.rows is not None and tune and tune.extend and not self.plan.schedule.choices(self.result):
            print("no setting is chosen yet: with tune.extend, a choice waits for the trials of all rows", flush=True)
        return list(launched.values())

    def write_record(self) -> None:
        """Write `study.json`.

        Raises:
            UserError: When what decides has changed after the first look.
        """
        record, file = self._record(), self.folder / "study.json"
        check_unchanged_design(read_json(file), record)
        write_json(file, record)

    def _record(self) -> dict[str, Any]:
        return self.plan.record(self.plan.schedule.runs(self.result), self.result, self.monitor)

    def _read(self, run: StudyRun, result: dict[str, Any] | None) -> None:
        self._results[run] = self.plan.finished(run, result) if result else None
        if result and run.kind == "trial":
            self.monitor = str(result["monitor"])

    def _print_decisions(self) -> None:
        """Print the choices and verdicts that are new."""
        for line in [*self._describe_choices(), *self._describe_verdicts()]:
            if line not in self._printed:
                self._printed.add(line)
                print(line, flush=True)

    def _describe_choices(self) -> list[str]:
        lines = []
        for (row, swept), choice in self.plan.schedule.choices(self.result).items():
            edges = "".join(f"; {key} at the {side} edge of what was tried" for key, side in choice.edges.items())
            score = f"{self.monitor} {Metric(self.monitor or '').text(choice.score)}"
            lines.append(f"{' '.join([row, *swept])}: {' '.join(choice.trial.overrides)} chosen ({score}){edges}")
            if self.plan.is_search:
                study = self.plan.study
                overrides = [*study.base, *study.runs[row].overrides, *choice.trial.overrides]
                lines.append(f"to run and test it: {command_name('train')} {' '.join(overrides)}")
        return lines

    def _describe_verdicts(self) -> list[str]:
        if self.plan.study.settle is None:
            return []
        metric, lines = Metric(self.plan.study.settle.metric), []
        for (row, swept), verdict in self.plan.schedule.verdicts(self.result).items():
            name, judgment = " ".join([row, *swept]), verdict.judgment
            if verdict.excluded:
                lines.append(f"{name}: excluded, {verdict.excluded}")
            elif judgment:
                low, mean, high = (
                    metric.text(each, signed=True) for each in (judgment.low, judgment.mean, judgment.high)
                )
                lines.append(f"{name}: {judgment.verdict} after {judgment.n} seeds, {mean} [{low}, {high}]")
        return lines
