"""Bundles of what reports read: a table of runs becomes one file, and files of one study become one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convolt.errors import UserError, some
from convolt.reports.collect import read_group, read_study
from convolt.reports.formats import plural
from convolt.reports.records import RunRecord, StudyRecord
from convolt.runs.bundle import (
    EARLIER_RESULTS,
    STUDY,
    Bundle,
    Packed,
    list_paths,
    pack_run,
    read_bundle,
    read_packed_result,
    unpack,
    without_machine,
)
from convolt.runs.files import PREDICTIONS, Json
from convolt.runs.predicted_classes import PREDICTED_CLASSES, read_predicted_classes
from convolt.system.files import format_bytes, read_json, to_json

NUMBERS = ("metrics", "per_class", "confusion_matrix", "last_metrics", "tested_epoch", "diverged")
"""Keys of two results that have to be equal for them to be one."""

_PARENTS = ("runs", "sweeps", "studies")
"""Folders whose name tells what is in them."""


def pack_study(study: StudyRecord) -> Bundle:
    """Bundle a table of runs: those that `study.json` names, with those of its tuning, or those of a sweep.

    Raises:
        UserError: A file of a run is damaged.
    """
    packed: dict[str, Packed] = {}
    for run in list_runs(study):
        if run.state == "missing" and not run.path.is_dir():
            continue
        place = run.path.relative_to(study.path).as_posix()
        try:
            packed["" if place == "." else place] = pack_run(run.path, run.state, _describe_now(run))
        except ValueError as error:
            raise UserError(f"{run.path}: {error}; restore it, or run it again with force=true") from None
    shared: dict[str, bytes] = {}
    if study.kind in ("study", "search"):
        shared[STUDY] = to_json(_clean(read_json(study.path / STUDY))).encode()
        if (study.path / EARLIER_RESULTS).is_file():
            shared[EARLIER_RESULTS] = (study.path / EARLIER_RESULTS).read_bytes()
    path = study.path.resolve()
    parents = [path.parent.name] if {path.parent.name, path.parent.parent.name} & {*_PARENTS} else []
    return Bundle(study.kind, "/".join([*parents, path.name or "folder"]), packed, shared)


def list_runs(study: StudyRecord) -> list[RunRecord]:
    """Return all runs of a table, those of its tuning and of its candidates too."""
    trials = study.tuning.runs if study.tuning else ()
    candidates = study.candidates.runs if study.candidates else ()
    return [*study.runs, *(run for row in study.rows for run in row.untuned), *trials, *candidates]


def _describe_now(run: RunRecord) -> str:
    """Return why a run has no result, without the time that has gone by since it was seen."""
    if run.state not in ("running", "cut off"):
        return run.reason
    return f"{run.reason.partition(', last seen')[0]}, when it was bundled"


def _clean(value: Any) -> Any:
    """Return the content of `study.json` without overrides that belong to a machine."""
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if not isinstance(value, dict):
        return value
    lists = ("base", "overrides", "swept")
    return {key: without_machine(each) if key in lists and isinstance(each, list) else _clean(each)
            for key, each in value.items()}  # fmt: skip


def open_bundle(path: Path, folder: Path) -> StudyRecord:
    """Read the table of runs in a bundle.

    Args:
        path: The bundle.
        folder: An empty folder, to which it is unpacked and where it has to stay while the record is used.

    Raises:
        UserError: It cannot be read.
    """
    bundle = read_bundle(path)
    top = unpack(bundle, folder)
    study = read_study(top) if bundle.study is not None else _read_runs(bundle, top)
    return replace(study, source=path)


def _read_runs(bundle: Bundle, top: Path) -> StudyRecord:
    folders = [top / place if place else top for place in bundle.runs]
    study = read_group(top, folders, "sweep" if bundle.kind == "sweep" else "runs")
    if bundle.kind == "sweep" or "/" in bundle.folder:
        return study
    return replace(study, title=f"{'Run' if folders == [top] else 'Runs in'} {bundle.folder}")  # nothing above travels


def describe_bundle(bundle: Bundle, path: Path, folders: Sequence[Path]) -> list[str]:
    """Say in lines what a bundle holds, and what it does not.

    Args:
        bundle: The bundle.
        path: Where it was written.
        folders: The directories of its finished runs, as far as they are not from bundles themselves.
    """
    finished = sum("result.json" in run for run in bundle.runs.values())
    size = path.stat().st_size
    each = f", {format_bytes(size // len(bundle.runs))} a run" if bundle.runs else ""
    lines = [f"{path}: {finished} finished of {plural(len(bundle.runs), 'run')}, {format_bytes(size)}{each}"]
    masks = sum((folder / PREDICTIONS).is_file() and read_predicted_classes(folder) is None for folder in folders)
    if masks:
        lines.append(f"predicted masks are not kept: {plural(masks, 'run')}")
    if paths := {path for run in bundle.runs.values() for path in list_paths(run)}:
        lines.append(f"paths that stand in it, since the settings' hash covers them: {some(sorted(paths))}")
    return lines


# Joining


def join_bundles(named: Sequence[tuple[str, Bundle]]) -> Bundle:
    """Join bundles of parts of one study or sweep: other rows, other seeds or other swept values, or all of it again.

    Args:
        named: Bundles by what they are called.

    Returns:
        All runs: of those that stand in several, the first that has finished.

    Raises:
        UserError: They are of different studies, or contradict each other.
    """
    (first_name, first), *others = named
    for name, other in others:
        if first.kind != other.kind:
            raise UserError(f"{first_name} is a {first.kind} and {name} a {other.kind}: they cannot be joined")
    runs: dict[str, tuple[str, Packed]] = {}
    contradictions = []
    for name, bundle in named:
        for place, packed in bundle.runs.items():
            before_name, before = runs.get(place, (name, {}))
            if found := describe_contradiction(before, packed):
                contradictions.append(f"{place} has {found[0]} in {before_name} and {found[1]} in {name}")
            if not before or ("result.json" in packed and "result.json" not in before):
                runs[place] = (name, packed)
    records = [(name, bundle.study) for name, bundle in named if bundle.study is not None]
    try:
        record = _join_records(records) if records else None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"study.json is damaged in one of {some(name for name, _ in named)} ({error!r})") from None
    if contradictions:
        more = f" (and {len(contradictions) - 1} more)" if len(contradictions) > 1 else ""
        raise UserError(f"results contradict each other: {contradictions[0]}{more}; leave one of the bundles out")
    shared = {} if record is None else {STUDY: to_json(record).encode()}
    earlier = [bundle.shared.get(EARLIER_RESULTS) for _, bundle in named]
    if earlier[0] and earlier.count(earlier[0]) == len(earlier):  # reports of parts do not say what the whole has seen
        shared[EARLIER_RESULTS] = earlier[0]
    return Bundle(first.kind, first.folder, {place: packed for place, (_, packed) in runs.items()}, shared)


def describe_contradiction(first: Packed, second: Packed) -> tuple[str, str] | None:
    """Return in what the results of two runs differ that ought to be one, of each; None where they do not.

    Seconds, versions and devices may differ. A run that has not finished contradicts nothing.
    """
    one, two = read_packed_result(first), read_packed_result(second)
    if not one or not two:
        return None
    if one.get("config_hash") != two.get("config_hash"):
        return f"settings {one.get('config_hash')}", str(two.get("config_hash"))
    metrics = (one.get("metrics") or {}, two.get("metrics") or {})
    for name in sorted({*metrics[0], *metrics[1]}, key=lambda name: (not name.startswith("test/"), name)):
        if metrics[0].get(name) != metrics[1].get(name):
            return f"{name} {metrics[0].get(name)}", str(metrics[1].get(name))
    for key in NUMBERS:
        if one.get(key) != two.get(key):
            return f"one {key}", "another"
    classes = (first.get(PREDICTED_CLASSES), second.get(PREDICTED_CLASSES))
    if None not in classes and classes[0] != classes[1]:
        return "one prediction", "another"
    return None


_OWN_TO_A_PART = ("seeds", "sweep", "rows", "tuning", "settling", "notes", "name")
"""Keys of `study.json` in which parts of one study differ, or that are compared in part."""


def _join_records(named: Sequence[tuple[str, Json]]) -> Json:
    """Join the content of `study.json` of several parts of one study."""
    (first_name, joined), *others = named
    for name, other in others:
        if differing := _compare_definitions(joined, other):
            raise UserError(f"{first_name} and {name} are of different studies: they differ in {differing}")
        sweep = {key: _unite(values, other["sweep"][key]) for key, values in joined.get("sweep", {}).items()}
        seeds = sorted({*joined.get("seeds", ()), *other.get("seeds", ())})
        notes = _unite(joined.get("notes", ()), other.get("notes", ()))
        joined = joined | {"sweep": sweep, "seeds": seeds, "notes": notes}
        rows = {}
        for row, each in joined["rows"].items():
            lists = {
                kind: _join_runs(each[kind], other["rows"][row].get(kind, []), sweep)
                for kind in ("runs", "untuned") if kind in each
            }  # fmt: skip
            rows[row] = each | lists
        joined["rows"] = rows
        for key, list_of, better in (("tuning", "cells", _join_cell), ("settling", "verdicts", _join_verdict)):
            if key in joined:
                names = f"{first_name} and {name}"
                joined[key] = joined[key] | {
                    list_of: _join_by_cell(joined[key][list_of], other[key][list_of], better, names)
                }
                if joined[key].get("monitor", ...) is None:
                    joined[key]["monitor"] = other[key]["monitor"]
    return joined


def _compare_definitions(first: Json, second: Json) -> str:
    """Return in what two studies differ that parts of one have in common; empty where they do not."""
    one, two = _definition(first), _definition(second)
    return next((name for name in [*one, *two] if one.get(name) != two.get(name)), "")


def _definition(study: Json) -> Json:
    """Return what parts of one study have in common, by what it is called."""
    found = {key: value for key, value in study.items() if key not in _OWN_TO_A_PART}
    found |= {"the rows": [*study["rows"]], "the keys that are swept": [*study.get("sweep", ())]}
    for row, content in study["rows"].items():
        found |= {f"{key} of row {row}": value for key, value in content.items() if key not in ("runs", "untuned")}
    for block in ("tuning", "settling"):
        parts = study.get(block) or {}
        left_out = ("cells", "verdicts", "monitor")
        found |= {f"{key} of {block}": value for key, value in parts.items() if key not in left_out}
    return found


def _unite(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    return [*first, *(each for each in second if each not in first)]


def _join_runs(first: Sequence[Json], second: Sequence[Json], sweep: Mapping[str, Sequence[str]]) -> list[Json]:
    """Join the runs of one row, in the order of a study that ran in one place: by seed, then by swept values."""
    runs = {each["dir"]: each for each in [*second, *first]}
    values = [text for key, texts in sweep.items() for text in (f"{key}={value}" for value in texts)]

    def place(run: Json) -> tuple[Any, ...]:
        return (run["seed"], *(values.index(text) if text in values else -1 for text in run.get("overrides") or ()))

    return sorted(runs.values(), key=place)


def _join_by_cell(
    first: Sequence[Json], second: Sequence[Json], join: Callable[[Json, Json], Json | None], names: str
) -> list[Json]:
    """Join what is recorded of each row with each of the swept values."""
    cells = {(each["row"], *each["swept"]): each for each in first}
    for each in second:
        key = (each["row"], *each["swept"])
        joined = join(cells[key], each) if key in cells else each
        if joined is None:
            raise UserError(f"{names} have decided differently over {' '.join(key)}; leave one of the bundles out")
        cells[key] = joined
    return list(cells.values())


def _join_cell(first: Json, second: Json) -> Json | None:
    """Join the trials and choices of one row; None where the choices differ."""
    trials = {each["number"]: each for each in second["trials"]} | {each["number"]: each for each in first["trials"]}
    for trial in second["trials"]:
        runs = {each["dir"]: each for each in trials[trial["number"]]["runs"]}
        for run in trial["runs"]:
            before = runs.setdefault(run["dir"], run)
            if before["score"] is None and not before["diverged"]:
                runs[run["dir"]] = run
        trials[trial["number"]] = trial | {"runs": list(runs.values())}
    choices = [each["choice"] for each in (first, second) if each["choice"] is not None]
    if len(choices) == 2 and choices[0] != choices[1]:
        return None
    return first | {"trials": [trials[number] for number in sorted(trials)], "choice": choices[0] if choices else None}


def _join_verdict(first: Json, second: Json) -> Json | None:
    """Return the verdict that was judged with more seeds, or at all; None where two of equally many differ."""
    ranks = [(each["n"] or 0, each["verdict"] != "undecided") for each in (first, second)]
    if ranks[0] == ranks[1]:
        return first if first == second else None
    return max((first, second), key=lambda each: ranks[0] if each is first else ranks[1])
