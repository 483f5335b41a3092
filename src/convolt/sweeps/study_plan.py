"""A study as runs: what each is composed from, where it lies, and what `study.json` says of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from convolt.config.compose import slug
from convolt.errors import UserError, did_you_mean
from convolt.reports.formats import Metric
from convolt.sweeps.candidate_runs import (
    candidate_overrides,
    check_candidates,
    list_candidate_runs,
    record_candidates,
)
from convolt.sweeps.schedule import Finished, Results, RowVerdict, Schedule, StudyRun
from convolt.sweeps.study import CommandLine, PlannedRun, Study, StudyRow, parse_page, parse_seed, validate
from convolt.sweeps.tuning import Choice, Range, Space, Trial, Tune, trial_score

Json = dict[str, Any]

NOT_TUNED = ("seed", "study", "trainer.test", "force", "summary")
"""Keys that a trial sets itself, or that change no number."""


@dataclass(frozen=True)
class StudyPlan:
    """A study whose page and command line fit together.

    Attributes:
        study: The page, with the blocks that count on this command line.
        name: Its name.
        command_line: Its overrides beat the rows', which beat the base's.
        schedule: Which runs are needed next.
    """

    study: Study
    name: str
    command_line: CommandLine
    schedule: Schedule

    @classmethod
    def of(cls, study: Study, name: str, command_line: CommandLine) -> "StudyPlan":
        """Plan a study.

        Args:
            study: The page.
            name: Its name.
            command_line: The overrides.

        Raises:
            UserError: When an override contradicts the study, or when two runs would share a folder.
        """
        _check_overrides(study, name, command_line)
        schedule = Schedule(
            rows=list(study.runs),
            baseline=study.baseline or next(iter(study.runs)),
            swept=list(product(*command_line.swept.values())),
            seeds=[parse_seed(text) for text in command_line.seeds] or study.seeds,
            tune=study.tune,
            spaces={row: each.space for row, each in study.runs.items() if each.space},
            settle=study.settle,
        )
        _check_seeds(schedule, name, typed=bool(command_line.seeds))
        plan = cls(study, name, command_line, schedule)
        plan._check_folders()
        plan._check_tested()
        return plan

    @property
    def is_search(self) -> bool:
        """Whether there are trials alone: nothing is run with what they choose."""
        return not self.schedule.seeds

    @cached_property
    def _base_overrides(self) -> dict[str, str]:
        return parse_page(self.study.base, f"study {self.name}, base")

    @cached_property
    def _row_overrides(self) -> dict[str, dict[str, str]]:
        rows = self.study.runs.items()
        return {row: parse_page(each.overrides, f"study {self.name}, row '{row}'") for row, each in rows}

    def run(self, run: StudyRun) -> PlannedRun:
        """Return what a run is composed from, and its folder."""
        swept = dict(zip(self.command_line.swept, run.swept, strict=True))
        trial = dict(zip(run.trial.values, run.trial.overrides, strict=True)) if run.trial else {}
        overrides = {
            **self._base_overrides,
            **self._row_overrides[run.row],
            **trial,
            **self.command_line.fixed,
            **swept,
            "seed": f"seed={run.seed}",
        }
        if run.kind == "candidate":
            overrides |= candidate_overrides(self.study, run) | dict(self.command_line.fixed)
        if self._draws_light(run) and not any(key.partition(".")[0] == "pictures" for key in overrides):
            overrides["pictures.detail"] = "pictures.detail=light"
        ending = [f"seed={run.seed}", *run.swept]
        folder = slug(run.row)
        if run.kind == "trial":
            assert run.trial is not None
            overrides["trainer.test"] = "trainer.test=none"
            folder, ending = f"{folder}/tuning", [f"trial={run.trial.number:02}", *ending]
        elif run.kind == "untuned":
            folder += "/untuned"
        elif run.kind == "candidate":
            folder, ending = f"{folder}/candidates", [slug(run.candidate), *ending]
        row = f"{run.row}, {run.candidate}" if run.candidate else run.row
        return PlannedRun(row, run.seed, run.swept, tuple(overrides.values()), f"{folder}/{slug(','.join(ending))}")

    def _draws_light(self, run: StudyRun) -> bool:
        """Return whether another run of the row draws all pictures; a trial, which is not tested, draws none."""
        return run.kind in ("untuned", "candidate") or (run.kind == "run" and run.seed != self.schedule.seeds[0])

    def candidate_runs(self) -> list[StudyRun]:
        """Return the runs of the candidates; none where settings are swept, of which the page says nothing."""
        return [] if self.command_line.swept else list_candidate_runs(self.study)

    def check_rows(self, rows: Sequence[str]) -> None:
        """Refuse rows that there are not.

        Raises:
            UserError: Names the first one.
        """
        for row in rows:
            if row not in self.study.runs:
                hint = did_you_mean(row, self.study.runs) or f"; it has {', '.join(self.study.runs)}"
                raise UserError(f"hydra.sweeper.rows: study {self.name} has no row '{row}'{hint}")

    def _choice_of_test(self, row: str) -> str:
        """Return what a row's runs, but for trials, set trainer.test to; empty for the default."""
        overrides = self.run(StudyRun("untuned", row, self.schedule.swept[0], 0)).overrides
        return next((text.split("=")[1] for text in overrides if text.startswith("trainer.test=")), "")

    def tests_last(self, row: str) -> bool:
        """Return whether a row's last epoch is tested, and not its best one on validation images."""
        return self._choice_of_test(row) == "last"

    def finished(self, run: StudyRun, result: Json) -> Finished:
        """Return what the schedule needs of a run's result."""
        if result.get("diverged"):
            return Finished(diverged=True)
        metrics = result["metrics"]
        if run.kind == "trial":
            monitor = str(result["monitor"])
            score = trial_score(result, monitor, last=self.tests_last(run.row))
            return Finished(score=score, lower_is_better=Metric(monitor).lower_is_better)
        return Finished(value=metrics.get(self.study.settle.metric) if self.study.settle else None)

    def record(self, runs: Sequence[StudyRun], results: Results, monitor: str | None) -> Json:
        """Return the content of study.json: the rows, the directories of their runs, and what was decided.

        Args:
            runs: All runs that are known to be needed.
            results: Of those that have finished.
            monitor: The metric that scores trials; None where none has finished.
        """
        rows: Json = {}
        for row, each in self.study.runs.items():
            rows[row] = {"overrides": [], "published": None} | each.model_dump(exclude_none=True, exclude={"space"})
            rows[row]["runs"] = self._directories(runs, "run", row)
            if self.study.tune:
                rows[row]["untuned"] = self._directories(runs, "untuned", row)
        notes = []
        incomparable = self.command_line.incomparable
        tuned = self.study.tune is not None
        if (incomparable or tuned) and any(row["published"] for row in rows.values()):
            why = f"of other settings than {' '.join(incomparable)}" if incomparable else "not of tuned settings"
            notes.append(f"no published numbers: they are {why}")
            for row in rows.values():
                row["published"] = None
                row.pop("published_per_class", None)
        seeds = list(self.schedule.seeds)
        if self.schedule.settle:
            seeds = list(dict.fromkeys(run.seed for run in runs if run.kind == "run"))
        record = {
            "name": self.name,
            **({"kind": "search"} if self.is_search else {}),
            **self.study.model_dump(include={"title", "question", "base"}),
            "baseline": self.schedule.baseline,
            "seeds": seeds,
            "overrides": list(self.command_line.fixed.values()),
            "sweep": {key: [text.split("=", 1)[1] for text in texts] for key, texts in self.command_line.swept.items()},
            "notes": notes,
            "rows": rows,
        }
        if self.study.tune:
            record["tuning"] = self._record_tuning(runs, results, monitor)
        if self.study.settle:
            record["settling"] = self._record_settling(results)
        if candidates := self.candidate_runs():
            record["candidates"] = record_candidates(self.study, {run: self.run(run).folder for run in candidates})
        return record

    def _directories(self, runs: Sequence[StudyRun], kind: str, row: str) -> list[Json]:
        chosen = [run for run in runs if (run.kind, run.row) == (kind, row)]
        return [{"dir": self.run(run).folder, "seed": run.seed, "overrides": list(run.swept)} for run in chosen]

    def _record_tuning(self, runs: Sequence[StudyRun], results: Results, monitor: str | None) -> Json:
        assert self.study.tune is not None
        choices = self.schedule.choices(results)
        cells = []
        for row, swept in self.schedule.cells:
            trials: dict[Trial, list[Json]] = {}
            for run in runs:
                if (run.kind, run.row, run.swept) == ("trial", row, swept) and run.trial:
                    found = results(run) or Finished()
                    score = {"score": found.score, "diverged": found.diverged}
                    trials.setdefault(run.trial, []).append({"dir": self.run(run).folder, "seed": run.seed} | score)
            cells.append(
                {
                    "row": row,
                    "swept": list(swept),
                    "space": _space_as_json(self.schedule.space(row)),
                    "trials": [{"number": t.number, "values": t.values, "runs": each} for t, each in trials.items()],
                    "choice": _choice_as_json(choices.get((row, swept))),
                }
            )
        tune = self.study.tune
        return {
            "trials": tune.trials, "seeds": tune.seeds, "extend": tune.extend, "monitor": monitor, "cells": cells,
        }  # fmt: skip

    def _record_settling(self, results: Results) -> Json:
        assert self.study.settle is not None
        verdicts = [
            {"row": row, "swept": list(swept)} | _verdict_as_json(verdict)
            for (row, swept), verdict in self.schedule.verdicts(results).items()
        ]
        design = self.schedule.design
        return {
            **self.study.settle.model_dump(),
            "comparisons": design.comparisons,
            "critical_values": list(design.critical_values),
            "verdicts": verdicts,
        }

    def _check_tested(self) -> None:
        """Refuse to judge a metric of test images by runs that never test."""
        metric = self.study.settle.metric if self.study.settle else ""
        for row in self.study.runs:
            if metric.startswith("test/") and self._choice_of_test(row) == "none":
                raise UserError(
                    f"study {self.name}, row '{row}': with trainer.test=none there is no {metric} to judge: "
                    "leave it out, or set settle.metric to one of val"
                )

    def _check_folders(self) -> None:
        """Refuse a study of which two runs would share a folder."""
        planned: dict[str | None, PlannedRun] = {}
        for run in self.schedule.runs(lambda _: None):
            each = self.run(run)
            other = planned.setdefault(each.folder, each)
            if other is not each:
                raise UserError(
                    f"{' '.join(other.overrides)} and {' '.join(each.overrides)} would share the folder {each.folder}"
                )


def check_unchanged_design(before: Any, now: Json, mend: str = "restore it, or choose another hydra.sweep.dir") -> None:
    """Refuse looks, error, margin, metric or number of rows that have changed since the first look.

    Args:
        before: The content of a former `study.json`; anything where there is none.
        now: What is to be its content.
        mend: What to do about it.

    Raises:
        UserError: Names what has changed.
    """
    former = before.get("settling") if isinstance(before, dict) else None
    settling = now.get("settling")
    if not isinstance(former, dict) or not any(each.get("n") for each in former.get("verdicts", [])):
        return
    if settling is None:
        return  # the folder's name says so, or the user has chosen the folder
    for key in ("looks", "error", "margin", "metric", "comparisons"):
        if former.get(key) != settling[key]:
            raise UserError(
                f"settle.{key} was {former.get(key)} at the first look and is {settling[key]} now: what decides must "
                f"not change after looking; {mend}"
            )


def _check_overrides(study: Study, name: str, command_line: CommandLine) -> None:
    """Refuse overrides that contradict the study, and tuned keys that something else sets."""
    rows = {row: parse_page(each.overrides, f"study {name}, row '{row}'") for row, each in study.runs.items()}
    base = parse_page(study.base, f"study {name}, base")
    check_candidates(study, name, base, rows)
    row_keys = {key for overrides in rows.values() for key in overrides}
    for key, text in command_line.typed:
        if key in row_keys:
            raise UserError(f"{text}: the rows of study {name} differ in {key}; leave it out")
    if study.tune is None:
        if spaces := [row for row, each in study.runs.items() if each.space]:
            raise UserError(f"study {name}, row '{spaces[0]}': a space is for a study with a block tune")
        return
    for row, each in study.runs.items():
        for key in each.space or study.tune.space:
            _refuse_untunable(f"study {name}", key)
            if key in rows[row]:
                raise UserError(f"study {name}, row '{row}': {key} is tuned and set; leave one of them out")
            if typed := dict(command_line.typed).get(key):
                raise UserError(f"{typed}: study {name} tunes {key}; leave it out, or set hydra.sweeper.tune=null")


def _refuse_untunable(where: str, key: str) -> None:
    if key in NOT_TUNED or key.startswith("hydra"):
        raise UserError(f"{where}: {key} cannot be tuned: it changes no setting that a run is chosen by")


def _check_seeds(schedule: Schedule, name: str, *, typed: bool) -> None:
    """Refuse seeds that would serve twice."""
    if schedule.settle and typed:
        raise UserError(
            f"study {name} chooses its seeds by its block settle: leave seed out, or set hydra.sweeper.settle=null"
        )
    if schedule.tune is None:
        return
    if both := sorted({*schedule.tune.seeds} & {*schedule.all_seeds()}):
        raise UserError(
            f"study {name}: seed {both[0]} is one of the study and of tune.seeds, and a setting that is chosen by a "
            "seed looks better with it: take another one for tuning"
        )
    if len(set(schedule.tune.seeds)) < len(schedule.tune.seeds):
        raise UserError(f"study {name}: tune.seeds lists a seed twice")


def plan_search(command_line: CommandLine, trials: int) -> StudyPlan:
    """Plan a search: trials of the intervals of a command line, for each combination of its swept values."""
    combinations = product(*command_line.swept.values())
    rows = {slug(",".join(swept)) if swept else "search": list(swept) for swept in combinations}
    for key in command_line.intervals:
        _refuse_untunable("a search", key)
    if len(set(command_line.seeds)) < len(command_line.seeds):
        raise UserError(f"seed={','.join(command_line.seeds)} lists a seed twice")
    tune = validate(
        Tune,
        {
            "space": dict(command_line.intervals),
            "trials": trials,
            "seeds": [parse_seed(text) for text in command_line.seeds] or [0],
        },
        "hydra.sweeper.",
    )
    study = Study(
        title=f"Search over {', '.join(command_line.intervals)}",
        base=list(command_line.fixed.values()),
        runs={name: StudyRow(overrides=overrides) for name, overrides in rows.items()},
        tune=tune,
    )
    schedule = Schedule(rows=list(rows), baseline=next(iter(rows)), swept=[()], seeds=[], tune=tune)
    return StudyPlan(study, "search", CommandLine(), schedule)


def _space_as_json(space: Space) -> Json:
    return {key: each.model_dump() if isinstance(each, Range) else each for key, each in space.items()}


def _choice_as_json(choice: Choice | None) -> Json | None:
    if choice is None:
        return None
    return {
        "trial": choice.trial.number, "values": choice.trial.values, "score": choice.score, "edges": dict(choice.edges),
    }  # fmt: skip


def _verdict_as_json(verdict: RowVerdict) -> Json:
    judgment = verdict.judgment
    numbers = {name: getattr(judgment, name, None) for name in ("n", "mean", "low", "high", "chance")}
    name = "excluded" if verdict.excluded else judgment.verdict if judgment else "undecided"
    return {"verdict": name, **numbers, "reason": verdict.excluded}
