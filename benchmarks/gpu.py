"""All that a GPU has to show, in a quarter of an hour: what must hold there, and how fast it is.

    python benchmarks/gpu.py check      # 4 minutes: the GPU tests, cases from the command line, equal bits after a kill
    python benchmarks/gpu.py measure    # 9 minutes: throughput, 94% on CIFAR-10, several runs at once, a step's trace
    python benchmarks/gpu.py check --small          # the same in a small form, on a CPU too
    python benchmarks/gpu.py measure --only trace   # one step; --from NAME goes on from a step

Each step is a process of its own under a time limit of its own, killed with all that it has started where it takes
longer. Its row is appended to a file of JSON lines at once, so that whatever ends the script, the rest is there.
Nothing is downloaded. Where Hydra cannot be imported, the wheels in `.gpu/wheels` are installed to `.gpu/site`;
CIFAR-10 is taken from DATA/cifar10, or from the contact sheets in `.gpu/cifar10`, which may come in two halves, one
call each. Exit status 1: a step has failed, or was killed, or nothing could be done.
"""

import argparse
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_step import KEPT_LINES, ROOT, FailedError, LeftOutError, Place, Step, tail

BENCHMARKS = Path(__file__).resolve().parent
SITE, WHEELS = ROOT / ".gpu/site", ROOT / ".gpu/wheels"
BUDGETS = {"check": 240, "measure": 540}
PACKAGES = (
    "torch", "torchvision", "pytorch_lightning", "torchmetrics", "tensorboard", "hydra", "omegaconf", "antlr4",
    "pydantic", "filelock", "yaml", "rich", "numpy", "matplotlib", "PIL",
)  # fmt: skip
"""What every run imports."""

LEFT_OUT = 77
PROBE_LIMIT = 120


class Runner:
    """Runs steps and writes a row for each.

    Args:
        kind: check or measure.
        module: The module whose STEPS they are.
        arguments: Of the command line.
        machine: What `describe` found: the card's name, versions, commit.
        out: The file of JSON lines.
    """

    def __init__(
        self, kind: str, module: str, arguments: argparse.Namespace, machine: dict[str, Any], out: Path
    ) -> None:
        self.kind, self.module, self.arguments, self.machine, self.out = kind, module, arguments, machine, out
        self.rows: list[dict[str, Any]] = []
        self.running: set[int] = set()
        self.command = " ".join(["python", "benchmarks/gpu.py", *(sys.argv[1:] or [kind])])
        self._ends = time.monotonic() + (arguments.budget or BUDGETS[kind])
        self._writing = threading.Lock()

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps in order, several at a time, those that want to be alone at the end."""
        pool = ThreadPoolExecutor(self.arguments.jobs)
        with tempfile.TemporaryDirectory(prefix="convolt-gpu-", ignore_cleanup_errors=True) as folder:
            try:
                list(pool.map(lambda step: self._one(step, Path(folder)), [step for step in steps if not step.alone]))
                for step in steps:
                    if step.alone:
                        self._one(step, Path(folder))
            finally:  # interrupted, perhaps
                self._ends = 0.0
                for group in list(self.running):
                    kill(group)
                pool.shutdown(cancel_futures=True)

    def _one(self, step: Step, folder: Path) -> None:
        left = self._ends - time.monotonic()
        reason = self._reason_against(step, left)
        if reason:
            self._write(step, "left out", 0.0, reason=reason)
            return
        limit = min(step.limit, left)
        own = folder / step.name
        own.mkdir()
        task = {"step": step.name, "module": self.module, "folder": str(own), "data": str(self.arguments.data)}
        task |= {"cuda": self.machine["cuda"], "small": self.arguments.small}
        started = time.monotonic()
        with (own / "output").open("w+b") as output:
            line = [sys.executable, __file__, "--step", json.dumps(task)]
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            self.running.add(process.pid)
            try:
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                kill(process.pid)
                process.wait()
                self.running.discard(process.pid)
        seconds = time.monotonic() - started
        said = tail((own / "output").read_text(errors="replace"), KEPT_LINES)
        if code is None:
            self._write(step, "timeout", seconds, reason=f"killed after {limit:.0f} s", output=said)
        elif code == LEFT_OUT:
            self._write(step, "left out", seconds, reason=said.splitlines()[-1])
        elif code or not (own / "figures.json").is_file():
            self._write(step, "failed", seconds, reason=f"exit status {code}", output=said)
        else:
            self._write(step, "ok", seconds, figures=json.loads((own / "figures.json").read_text()))

    def _reason_against(self, step: Step, left: float) -> str | None:
        absent = [*self.machine["missing"], *missing(step.needs)]
        if absent:
            return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
        if step.cuda and not self.machine["cuda"]:
            return "no CUDA device"
        if self.arguments.small and not step.small:
            return "not in the small form"
        if left < (min(step.about, 2) if self.arguments.small else step.about):
            return "no time"
        return None

    def _write(self, step: Step, status: str, seconds: float, **more: Any) -> None:
        row = {"step": step.name, "status": status, "seconds": round(seconds, 1), **more, **self.machine["record"]}
        row |= {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": self.command}
        row["small"] = self.arguments.small
        with self._writing:
            self.rows.append(row)
            with self.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{step.name:<28} {status:<9} {seconds:>6.1f} s  {more.get('reason', '')}", flush=True)


def kill(group: int) -> None:
    """Kill a process group; the runs of a sweep, which have groups of their own, die with it."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def work(task: dict[str, Any]) -> int:
    """Do one step in this process; return its exit status."""
    steps = {step.name: step for step in importlib.import_module(task["module"]).STEPS}
    folder = Path(task["folder"])
    place = Place(folder, Path(task["data"]), task["cuda"], task["small"])
    try:
        figures = steps[task["step"]].work(place)
    except LeftOutError as error:
        print(error)
        return LEFT_OUT
    except FailedError as error:
        print(error)
        return 1
    (folder / "figures.json").write_text(json.dumps(figures))
    return 0


def describe() -> dict[str, Any]:
    """Return what every row says of the machine, from this process, which imports torch."""
    import torch

    from machine import record

    found = record(None)
    cuda = torch.cuda.is_available()
    card = torch.cuda.get_device_properties(0).total_memory if cuda else None
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "card_bytes": card}
    return {"cuda": cuda, "record": {key: value for key, value in found.items() if key != "results"}}


def missing(packages: Sequence[str]) -> list[str]:
    """Return which packages cannot be imported."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def find_packages() -> list[str]:
    """Make the project and the laid wheels importable, here and in all children; return what is missing still."""
    paths = [str(ROOT / "src"), str(BENCHMARKS)]
    sys.path[:0] = paths
    if not SITE.is_dir() and missing(["hydra", "omegaconf", "pydantic"]) and (wheels := sorted(WHEELS.glob("*.whl"))):
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        done = subprocess.run(
            [*pip, "--target", str(SITE), *map(str, wheels)], capture_output=True, text=True, check=False
        )
        print(f"{len(wheels)} wheels of .gpu/wheels: {'installed' if done.returncode == 0 else tail(done.stderr)}")
    if SITE.is_dir():
        paths.append(str(SITE))
        sys.path.insert(0, str(SITE))
        importlib.invalidate_caches()
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)  # the project is to set it itself
    return missing(PACKAGES)


def probe() -> dict[str, Any]:
    """Return what `describe` says in a process of its own, since looking at a GPU takes some of its memory."""
    absent = find_packages()
    if absent:
        return {"cuda": False, "missing": absent, "record": {"device": "unknown"}}
    line = [sys.executable, __file__, "--describe"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PROBE_LIMIT)
    except subprocess.TimeoutExpired:
        sys.exit(f"torch does not answer within {PROBE_LIMIT} s")
    if done.returncode:
        sys.exit(f"torch does not work here:\n{tail(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"missing": []}


def chosen(steps: Sequence[Step], only: Sequence[str] | None, first: str | None) -> list[Step]:
    """Return the steps that were asked for."""
    names = [step.name for step in steps]
    for name in [*(only or ()), *([first] if first else [])]:
        if name not in names:
            sys.exit(f"there is no step {name}: {', '.join(names)}")
    return [step for step in steps[names.index(first) if first else 0 :] if not only or step.name in only]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a line for each step, with its figures on one line."""
    lines = []
    for row in rows:
        figures = row.get("figures") or row.get("reason") or ""
        text = figures if isinstance(figures, str) else json.dumps(brief(figures))
        lines.append(f"{row['step']:<28} {row['status']:<9} {row['seconds']:>6.1f} s  {text[:300]}")
        lines += [f"    {line}" for line in tail(row.get("output", "")).splitlines()]
    counts = [
        f"{sum(row['status'] == status for row in rows)} {status}" for status in ("ok", "failed", "timeout", "left out")
    ]
    return "\n".join([*lines, ", ".join(counts)])


def brief(figures: Any) -> Any:
    """Return figures without long texts and lists, for the table."""
    if not isinstance(figures, dict):
        return figures
    wanted = {name: brief(value) for name, value in figures.items() if name not in ("operators", "epoch", "unpacked")}
    return {"ours_to_limit": wanted["ours_to_limit"], "medians": wanted["medians"]} if "medians" in wanted else wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(BUDGETS))
    parser.add_argument("--small", action="store_true", help="tiny images, few epochs, a CPU where there is no GPU")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of prepared datasets; default: data")
    parser.add_argument(
        "--out", type=Path, help="JSON lines; default: benchmarks/results/gpu_<card>_<check or measure>"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these steps")
    parser.add_argument("--from", dest="first", metavar="NAME", help="this step and those behind it")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of all steps; default: 240 and 540")
    parser.add_argument("--jobs", type=int, help="steps at a time; default: 1 to measure, else 4 with 8 cores or more")
    parser.add_argument("--steps", metavar="MODULE", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    module = arguments.steps or f"gpu_{arguments.kind}"
    steps = chosen(importlib.import_module(module).STEPS, arguments.only, arguments.first)
    cores = os.cpu_count() or 1
    arguments.jobs = arguments.jobs or (
        1 if arguments.kind == "measure" and not arguments.small else max(1, min(4, cores // 2))
    )
    arguments.data = arguments.data.expanduser().absolute()
    machine = probe()
    if not machine["cuda"] and not arguments.small and not machine["missing"]:
        parser.error("there is no CUDA device: --small runs on a CPU")
    card = re.sub(r"[^a-z0-9]+", "-", machine["record"]["device"].lower()).strip("-")
    small = "_small" if arguments.small else ""
    out = arguments.out or BENCHMARKS / "results" / f"gpu_{card}_{arguments.kind}{small}.jsonl"
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    runner = Runner(arguments.kind, module, arguments, machine, out)
    runner.run(steps)
    order = {step.name: place for place, step in enumerate(steps)}
    rows = sorted(runner.rows, key=lambda row: order[row["step"]])
    print(f"\n{machine['record']['device']}\n{table(rows)}\n{out}")
    good = any(row["status"] == "ok" for row in rows)
    return int(not good or any(row["status"] in ("failed", "timeout") for row in rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        sys.exit(work(json.loads(sys.argv[2])))
    if sys.argv[1:2] == ["--describe"]:
        print(json.dumps(describe()))
        sys.exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
