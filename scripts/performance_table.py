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
    "ours / plain loop", "the host's cost of a step", "a mistyped option", "first training step", "sweep of",
    "ResNet-18 on cifar10, batch 512",
)  # fmt: skip
"""How the figures begin that stand in the README; of several the first. The last one is a GPU's."""

RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- performance: scripts/performance_table.py -->\n", "<!-- end -->\n"


NETWORKS = {
    "lenet": "LeNet",
    "resnet20": "ResNet-20",
    "resnet18": "ResNet-18",
    "vgg16": "VGG-16",
    "mobilenet": "MobileNet",
}
"""How the workloads' networks are written."""


def peers(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is measured and the figure: first all networks on one core, and the host's cost of a step."""
    rows = [row for row in record["results"] if row["workload"] != "tiny"]
    alone = [row for row in rows if row["threads"] == 1]
    if alone:
        figures = (
            f"{_network(row)} {row['processor']['ours_to_plain']['median']:.2f} "
            f"({row['processor']['ours_to_limit']['median']:.2f})"
            for row in alone
        )
        how = f"one core, batch {alone[0]['batch_size']}, {alone[0]['precision']}"
        yield f"ours / plain loop that crops and flips (on tensors, unchanged), {how}", ", ".join(figures)
    for row in record["results"]:
        if row["workload"] == "tiny":
            yield from host_step(row)
    for row in rows:
        yield from beside(row)


def host_step(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the processor time of a step of a network that is all Python."""
    limit, ours, lightning = (f"{row['processor']['medians'][who]:,.0f} µs" for who in ("limit", "ours", "lightning"))
    yield "the host's cost of a step", f"{ours} (a plain loop: {limit}, Lightning's defaults: {lightning})"


def beside(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a workload's ratios: on one core those of processor time, else by the clock; threads that wait spin."""
    images = row["workload"].partition("_")[2]
    how = "".join(f", {option}" for option in row["options"] if not option.startswith("trainer.threads"))
    on_cpu = "processor" in row
    how += f", {row['threads']} thread{'s' * (row['threads'] > 1)}" if on_cpu else ""
    ratios = row["processor"] if on_cpu and row["threads"] == 1 else row
    what = f"{_network(row)} on {images}, batch {row['batch_size']}, {row['precision']}{how}: ours / "
    yield f"{what}plain loop on tensors", f"{_spread(ratios['ours_to_limit'])} ({row['medians']['ours']:,.0f} images/s)"
    names = {"plain": "plain loop that crops and flips", "lightning": "Lightning's defaults",
             "usual": "DataLoader of single images"}  # fmt: skip
    found = [
        f"{name} {ratios[f'ours_to_{who}']['median']:.2f}" for who, name in names.items() if f"ours_to_{who}" in row
    ]
    if found:
        yield f"{what}what people use", ", ".join(found)


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
    if row["step"] == "host_step":
        yield from host_step(found)
    elif "ours_to_limit" in found:
        yield from beside({"precision": row["precision"]} | {k: v for k, v in found.items() if k != "processor"})
    elif row["step"] == "fast_cifar10":
        for tried in found.get("rows", []):
            seconds = f"{tried['seconds_from_process_start']:.1f} s from the start of the process"
            figure = f"{tried['test/accuracy']:.2%} in {seconds} ({tried['seconds_of_training']:.1f} s of training)"
            yield f"{tried['row']} of study=fast_cifar10, seed {tried['seed']}", figure
    elif row["step"] == "runs_at_once":
        for shared in found.get("table", []):
            how = " (jobs_per_gpu=auto)" if shared["jobs_per_gpu"] == "auto" else ""
            how += " by MPS" if shared["mps"] else ""
            figure = f"{shared['runs_per_hour']:,} runs an hour"
            if "to_one_slot" in shared:
                figure += f" ({shared['to_one_slot']:.2f} times one at a time)"
            yield f"{shared['runs']} LeNets on one GPU, {shared['slots']} at a time{how}", figure


KINDS = {"peers": peers, "startup": startup, "sweep": sweep, "memory": memory, "scaling": scaling}


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


def _network(row: dict[str, Any]) -> str:
    name: str = row["workload"].partition("_")[0]
    return NETWORKS.get(name, name)


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
