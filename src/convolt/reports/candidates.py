"""What a study knows of its candidates for what a published report leaves open."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from convolt.reports.formats import Metric
from convolt.reports.records import RunRecord
from convolt.runs.files import Json


@dataclass(frozen=True)
class CandidateRecord:
    """What is known of one candidate.

    Attributes:
        name: As on the study's page.
        overrides: What it changes in each row.
        runs: By row.
    """

    name: str
    overrides: tuple[str, ...]
    runs: Mapping[str, RunRecord]


@dataclass(frozen=True)
class CandidatesRecord:
    """What is known of all candidates of a study.

    Attributes:
        metric: What is compared with the published numbers.
        rows: The rows that were told to decide.
        seed: Of every run.
        epochs: Of every run, where they are fewer than the rows' own; None: whole runs.
        chosen: The one that the page's base has taken up; None: none yet.
        candidates: In the page's order.
    """

    metric: Metric
    rows: tuple[str, ...]
    seed: int
    epochs: int | None
    chosen: str | None
    candidates: tuple[CandidateRecord, ...]

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, candidate by candidate."""
        return tuple(run for each in self.candidates for run in each.runs.values())

    @property
    def used_rows(self) -> tuple[str, ...]:
        """The rows whose published numbers have been looked at in choosing."""
        began = self.chosen is not None or any(run.state == "finished" for run in self.runs)
        return self.rows if began else ()


def read_candidates(
    spec: Json, path: Path, read_run: Callable[[Path, int | None], RunRecord]
) -> CandidatesRecord | None:
    """Read the candidates of a study.

    Args:
        spec: The content of `study.json`.
        path: The study's folder.
        read_run: Reads the run in a folder, of a seed.

    Returns:
        The candidates; None for a study that has none.

    Raises:
        ValueError: They are damaged.
    """
    if (block := spec.get("candidates")) is None:
        return None
    try:
        candidates = tuple(
            CandidateRecord(
                str(each["name"]),
                tuple(map(str, each["overrides"])),
                {str(run["row"]): read_run(path / run["dir"], run["seed"]) for run in each["runs"]},
            )
            for each in block["settings"]
        )
        rows = tuple(map(str, block["rows"]))
        return CandidatesRecord(
            Metric(str(block["metric"])), rows, int(block["seed"]), block["epochs"], block["chosen"], candidates
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"candidates: {error!r}") from None
