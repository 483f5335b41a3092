"""Finished runs that came in bundles (`hydra.sweeper.have`): found by their settings, laid out where they belong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolt.errors import UserError, some
from convolt.reports.bundle import describe_contradiction
from convolt.reports.formats import plural
from convolt.runs.bundle import Packed, read_bundle, read_packed_result
from convolt.runs.directory import HeldError, RunDirectory
from convolt.runs.files import Json
from convolt.sweeps.jobs import Job
from convolt.system.files import expand_home


@dataclass(frozen=True, eq=False)
class BundledRun:
    """A finished run in a bundle.

    Attributes:
        bundle: The bundle's file, as it was typed.
        place: Its directory, relative to its study's.
        packed: Its files.
        result: The content of its result.json.
    """

    bundle: str
    place: str
    packed: Packed
    result: Json


class BundledRuns:
    """The finished runs of some bundles.

    Args:
        typed: The value of `hydra.sweeper.have`: a file, a list of files, or None.

    Raises:
        UserError: A bundle cannot be read, or two contradict each other.
    """

    def __init__(self, typed: Any) -> None:
        self.studies: list[Json] = []
        self.taken: list[BundledRun] = []
        self._by_hash: dict[str, list[BundledRun]] = {}
        self.names = [] if typed is None else [typed] if isinstance(typed, str) else [*map(str, typed)]
        for name in self.names:
            bundle = read_bundle(Path(expand_home(name)))
            self.studies += [] if bundle.study is None else [bundle.study]
            for place, packed in bundle.runs.items():
                if (result := read_packed_result(packed)).get("config_hash"):
                    self._add(BundledRun(name, place, packed, result))

    def _add(self, run: BundledRun) -> None:
        same = self._by_hash.setdefault(run.result["config_hash"], [])
        for other in same:
            if found := describe_contradiction(other.packed, run.packed):
                raise UserError(
                    f"hydra.sweeper.have: results contradict each other: {run.place} has {found[0]} in {other.bundle} "
                    f"and {found[1]} in {run.bundle}; leave one of the bundles out"
                )
        same.append(run)

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self.names)

    def find(self, job: Job) -> BundledRun | None:
        """Return a run of a job's settings, of several the one with its place; None where there is none."""
        same = self._by_hash.get(job.config_hash, [])
        return next((run for run in same if run.place == job.name), next(iter(same), None))

    def take(self, job: Job) -> None:
        """Lay a job's run out in its directory, unless it has a result there or another process is at work in it."""
        found = self.find(job)
        if found is None or job.cfg.force:
            return
        if here := job.find_result():
            _tell_difference(here, found, job)
            return
        try:
            with RunDirectory(job.run_dir, job.cfg) as directory:
                if directory.lay_out(found.packed):
                    self.taken.append(found)
        except HeldError:  # it ends there, with the same settings
            return

    def describe(self, jobs: Iterable[Job]) -> list[str]:
        """Say in lines what was taken, and what was not since it is of other settings.

        Args:
            jobs: The runs that are known to be needed.
        """
        wanted = {job.config_hash for job in jobs}
        places = {job.name for job in jobs}
        lines = []
        for bundle in self.names:
            taken = sum(run.bundle == bundle for run in self.taken)
            lines.append(f"{plural(taken, 'finished run')} taken from {bundle}")
            runs = [run for same in self._by_hash.values() for run in same if run.bundle == bundle]
            rest = [run for run in runs if run.result["config_hash"] not in wanted]
            for what, own in (
                ("of other settings than here", [run.place for run in rest if run.place in places]),
                ("not of what is to run so far", [run.place for run in rest if run.place not in places]),
            ):
                if own:
                    lines.append(f"not taken from {bundle}, {what}: {some(own, ', ')} ({plural(len(own), 'run')})")
        return lines


def _tell_difference(here: Json, found: BundledRun, job: Job) -> None:
    """Print where a result that is here already, and counts, differs from the one in a bundle."""
    metrics: Sequence[Json] = (here.get("metrics") or {}, found.result.get("metrics") or {})
    for name in sorted({*metrics[0], *metrics[1]}, key=lambda name: (not name.startswith("test/"), name)):
        if metrics[0].get(name) != metrics[1].get(name):
            values = f"{name} {metrics[0].get(name)} here and {metrics[1].get(name)} in {found.bundle}"
            print(f"{job.name} has {values}: the result here counts", flush=True)
            return
