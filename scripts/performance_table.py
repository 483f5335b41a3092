"""Write the tables of docs/performance.md (all figures) and README.md (five of them) from benchmarks/results.

python scripts/performance_table.py           write them
python scripts/performance_table.py --check   exit 1 if one is stale
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = {ROOT / "README.md": False, ROOT / "docs" / "performance.md": True}
"""The pages, and whether each holds all figures."""

CHOSEN = (
    "resnet18 on cifar10", "a mistyped option", "first training step", "sweep of", "a dataset's images in memory",
)  # fmt: skip
"""How the figures begin that stand in the README; of several the first."""

RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- performance: scripts/performance_table.py -->\n", "<!-- end -->\n"


def throughput(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is measured and the figure."""
    for row in record["results"]:
        name = row["workload"].replace("_", " on ")
        how = f"{name}, batch {row['batch_size']}, {record['precision']}"
        how += "".join(f", {option}" for option in row["options"] if not option.startswith("trainer.threads"))
        rates = f"{row['medians']['ours']:,.0f} images/s"
        yield f"{how}: ours / plain loop on tensors", f"{_spread(row['ours_to_limit'])} ({rates})"
        if row["ours_to_usual"]:
            yield f"{how}: ours / DataLoader of single images, float32", _spread(row["ours_to_usual"])


def startup(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is measured and the figure."""
    found = record["results"]
    yield "a mistyped option is answered", f"{found['config error']['median']:.2f} s"
    yield "`python train.py --help`", f"{found['--help']['median']:.2f} s"
    seconds = found["first training step"]["median"]
    imports = found["imports"]["median"]
    told = f"{seconds:.1f} s (the same imports as they come, alone: {imports:.1f} s)"
    yield "first training step on digits, from a cold start", told


def sweep(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is measured and the figure."""
    found = record["results"]
    hours = found["runs_per_hour"]
    yield (
        f"sweep of {found['runs']} LeNets on {found['data']}, {found['epochs']} epochs",
        (f"{hours['local']:,} runs an hour ({hours['basic']:,} with Hydra's basic launcher)"),
    )
    yield "a run starts inside a sweep", f"{found['start_of_a_run_seconds']:.2f} s"


def memory(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is measured and the figure."""
    found = record["results"]
    peaks = found["peak_bytes"]
    yield (
        "peak memory of a LeNet run",
        (f"{peaks['ours'] / 2**20:,.0f} MiB (a plain loop: {peaks['plain loop'] / 2**20:,.0f} MiB)"),
    )
    most = max(found["beside each other"], key=lambda row: row["runs"])
    yield f"a dataset's images in memory, {most['runs']} runs at once", f"{most['pss_to_array']:.2f} of their size"


def scaling(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is measured and the figure."""
    for name, row in record["results"].items():
        yield f"cost of {name}, {row['sizes'][0]:,} to {row['sizes'][-1]:,}", f"grows by the power {row['exponent']}"


def on_gpu(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a step of benchmarks/gpu.py has measured and the figure."""
    found = row.get("figures") or {}
    if "ours_to_limit" in found:
        yield from throughput(row | {"results": [found]})
    elif row["step"] == "fast_cifar10":
        for tried in found.get("rows", []):
            seconds = f"{tried['seconds_from_process_start']:.1f} s from the start of the process"
            figure = f"{tried['test/accuracy']:.2%} in {seconds} ({tried['seconds_of_training']:.1f} s of training)"
            yield f"{tried['row']} of study=fast_cifar10, seed {tried['seed']}", figure
    elif row["step"].startswith("runs_at_once"):
        how = " by MPS" if row["step"].endswith("mps") else ""
        for shared in found.get("table", []):
            figure = f"{shared['runs_per_hour']:,} runs an hour"
            if "to_one_slot" in shared:
                figure += f" ({shared['to_one_slot']:.2f} times one at a time)"
            yield f"{shared['runs']} LeNets on one GPU, {shared['slots']} at a time{how}", figure


KINDS = {"throughput": throughput, "startup": startup, "sweep": sweep, "memory": memory, "scaling": scaling}


def table(everything: bool) -> str:
    """Return the table, a part a device."""
    root = "../benchmarks/results" if everything else "benchmarks/results"
    by_device: dict[str, list[str]] = {}
    for kind, rows in KINDS.items():
        for file in sorted(RESULTS.glob(f"{kind}_*.json")):
            record = json.loads(file.read_text())
            where = f"{record['device']}, {record['cores']} cores, PyTorch {record['versions']['torch']}"
            link = f"[{record['date']}]({root}/{file.name})"
            lines = by_device.setdefault(where, [])
            lines += [f"| {what} | {figure} | {link} |" for what, figure in rows(record)]
    for file in sorted(RESULTS.glob("gpu_*_measure.jsonl")):
        latest = {row["step"]: row for row in map(json.loads, file.read_text().splitlines()) if row["status"] == "ok"}
        for row in latest.values():
            where = f"{row['device']}, {row['cores']} cores, PyTorch {row['versions']['torch']}"
            link = f"[{row['date'][:10]}]({root}/{file.name})"
            by_device.setdefault(where, []).extend(f"| {what} | {figure} | {link} |" for what, figure in on_gpu(row))
    parts = [
        "\n".join(
            [f"{where}:\n", "| what | median | measured |", "|---|---|---|", *(lines if everything else chosen(lines))]
        )
        for where, lines in by_device.items()
        if (lines if everything else chosen(lines))
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


def chosen(lines: list[str]) -> list[str]:
    """Return the figures that the README shows."""
    return [line for name in CHOSEN for line in [each for each in lines if each.startswith(f"| {name}")][:1]]


def _spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


def main() -> None:
    """Write or check."""
    for page, everything in PAGES.items():
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        fresh = before + BEGIN + table(everything) + END + after
        if "--check" in sys.argv:
            if fresh != text:
                sys.exit(f"{page.name} is stale: python scripts/performance_table.py")
        else:
            page.write_text(fresh)


if __name__ == "__main__":
    main()
