"""The steps of `gpu.py measure`, by worth: throughput, seconds to 94% on CIFAR-10, runs at once, a trace, and more."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from gpu_data import cifar10
from gpu_step import LeftOutError, Place, Step, command, epochs_of, result_of

TARGET = 0.94
ROWS = ("resnet9-16", "resnet9-32")
"""Rows of study=fast_cifar10 that are tried until one reaches the target."""

MOST_AT_ONCE = 8
AT_ONCE = ((1, False), (4, False), ("auto", False), (4, True), ("auto", True))
"""hydra.launcher.jobs_per_gpu, and whether by NVIDIA's MPS; auto first looks at GPU and network, which counts too."""

LEAST_IMAGES = 25_600
COMPILED = "trainer.compile=true"
TRACED = {
    "resnet18_512": ["model=resnet18", "optim=momentum", "augmentation=crop_flip", "data.batch_size=512"],
    "lenet_128": ["model=lenet", "optim=momentum", "augmentation=crop_flip", "data.batch_size=128"],
}
KEPT_LINES = 24
"""Lines of the profile's table of operators that are kept."""


def throughput(place: Place, workload: str, batch_size: int, rounds: int, options: Sequence[str]) -> dict[str, Any]:
    """Measure ours beside a plain loop and, where there are no options, beside what people use: benchmarks/peers.py."""
    import torch

    import peers
    from machine import this_machine

    torch.set_num_threads(1 if place.small else this_machine().threads)
    contenders = ("limit", "ours", *(() if options else ("usual", "lightning")))
    if place.small:
        return peers.measure(workload, 64, 16, 1, [*options, "trainer.threads=1"], contenders)
    images = peers.enough_images(workload, batch_size, list(options), LEAST_IMAGES)
    return peers.measure(workload, images, batch_size, rounds, list(options), contenders)


def host_step(place: Place) -> dict[str, Any]:
    """Measure the host's cost of a step, by a network that has none but Python's."""
    import peers

    steps = 10 if place.small else peers.WORKLOADS["tiny"]["steps"]
    threads = ["trainer.threads=1"]
    return peers.measure("tiny", steps * peers.TINY_BATCH, peers.TINY_BATCH, 1, threads, peers.TINY_CONTENDERS)


def fast_cifar10(place: Place) -> dict[str, Any]:
    """Train rows of study=fast_cifar10 until one reaches the target; count every second from the process's start."""
    import yaml

    from convolt.system.installation import CONF

    if not (place.data / "cifar10/dataset.json").is_file():
        raise LeftOutError(f"{place.data / 'cifar10'} is missing")
    study = yaml.safe_load((CONF / "study/fast_cifar10.yaml").read_text())
    tried = []
    for row in ROWS:
        overrides = [*study["base"], *study["runs"][row]["overrides"], *place.hardware, f"data.root={place.data}"]
        run = place.folder / row
        started = time.perf_counter()
        command("train.py", *overrides, f"hydra.run.dir={run}")
        seconds = time.perf_counter() - started
        result = result_of(run)
        accuracy = result["metrics"]["test/accuracy"]
        tried.append(
            {
                "row": row,
                "seed": result["seed"],
                "epochs": result["epochs"],
                "test/accuracy": accuracy,
                "seconds_from_process_start": round(seconds, 2),
                "seconds_of_the_run": result["seconds"],
                "seconds_of_training": round(sum(epoch["seconds"] for epoch in epochs_of(run)), 2),
                "images_per_second": result["images_per_second"],
            }
        )
        if accuracy >= TARGET:
            break
    return {"target": TARGET, "reached": tried[-1]["test/accuracy"] >= TARGET, "rows": tried, "data": result["dataset"]}


def runs_at_once(place: Place) -> dict[str, Any]:
    """Sweep over eight LeNets by some numbers of runs that share the one device, and see what each sweep takes."""
    runs = 2 if place.small else MOST_AT_ONCE
    settings = ["model=lenet", "data.batch_size=128", f"trainer.max_epochs={1 if place.small else 10}"]
    table: list[dict[str, Any]] = []
    found: dict[str, Any] = {"table": table}
    for at_once, by_mps in [(2, False)] if place.small else AT_ONCE:
        started = time.perf_counter()
        options = [*settings, f"hydra.launcher.mps={str(by_mps).lower()}"]
        results, said = place.sweep(f"slots-{at_once}-{by_mps}", runs, *options, slots=at_once)
        seconds = time.perf_counter() - started
        if by_mps:
            found["mps"] = next((line for line in said.splitlines() if "MPS" in line), "")
            if found["mps"].startswith("without"):
                continue
        table.append(
            {
                "jobs_per_gpu": at_once,
                "mps": by_mps,
                "slots": results[0]["slots"],
                "runs": len(results),
                "seconds": round(seconds, 2),
                "runs_per_hour": round(3600 * runs / seconds),
                "seconds_of_a_run": round(statistics.median(result["seconds"] for result in results), 2),
                "images_per_second_of_a_run": round(statistics.median(r["images_per_second"] for r in results)),
            }
        )
        if table[0]["jobs_per_gpu"] == 1:
            table[-1]["to_one_slot"] = round(table[0]["seconds"] / table[-1]["seconds"], 3)
    return found


def checkpoints(place: Place) -> dict[str, Any]:
    """Measure what a checkpoint costs the training thread: benchmarks/checkpoints.py."""
    import checkpoints as benchmark

    return benchmark.measure(list(benchmark.NETWORKS), 24, [*place.hardware, f"data.root={place.data}"])


def trace(place: Place) -> dict[str, Any]:
    """Profile steps of runs: time in kernels beside time by the clock, launches, and waits for the device."""
    found = {}
    for name, overrides in TRACED.items():
        place.train(name, "debug=profile", *overrides)
        profile = place.folder / name / "profile"
        operators = (profile / "operators.txt").read_text().splitlines()[:KEPT_LINES]
        found[name] = {
            **counted(json.loads((profile / "steps.pt.trace.json").read_text())["traceEvents"]),
            "epoch": (profile / "epoch.txt").read_text(),
            "operators": [" ".join(line.split())[:200] for line in operators if line.strip("- ")],
        }
    return found


def counted(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Count a trace of torch.profiler; times are milliseconds of a step.

    The callback that writes the phases of an epoch waits for the device several times a step by itself, as
    cudaDeviceSynchronize, so that the clock of a traced step is longer than that of any other.
    """
    steps = [event for event in events if event.get("name", "").startswith("ProfilerStep") and "dur" in event]
    on_host = [event for event in steps if event.get("cat") == "user_annotation"] or steps
    count = len({event["name"] for event in on_host}) or 1
    kernels = [event for event in events if event.get("cat") == "kernel"]
    calls = Counter(event["name"] for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver"))
    return {
        "steps": count,
        "clock_ms": round(sum(event["dur"] for event in on_host) / 1000 / count, 3),
        "kernels_ms": round(sum(event["dur"] for event in kernels) / 1000 / count, 3),
        "kernels": round(len(kernels) / count, 1),
        "launches": round(sum(n for name, n in calls.items() if "Launch" in name) / count, 1),
        "waits": {name: round(n / count, 1) for name, n in calls.items() if "Synchronize" in name},
        "copies": round(sum(n for name, n in calls.items() if "Memcpy" in name) / count, 1),
    }


def rate(
    name: str, workload: str, batch_size: int, about: int, *options: str, rounds: int = 1, small: bool = False
) -> Step:
    """Make a step of throughput; a CPU takes too long to compile."""
    work = partial(throughput, workload=workload, batch_size=batch_size, rounds=rounds, options=options)
    return Step(name, work, 2.5 * about, about, cuda=bool(options), small=small)


STEPS = [
    Step("cifar10", cifar10, 60, 10),
    rate("resnet18_512", "resnet18_cifar10", 512, 40, rounds=2),
    rate("lenet_128", "lenet_mnist", 128, 35, rounds=2, small=True),
    Step("host_step", host_step, 60, 15),
    Step("fast_cifar10", fast_cifar10, 180, 60, small=False),
    rate("resnet18_512_compiled", "resnet18_cifar10", 512, 60, COMPILED),
    rate("lenet_128_compiled", "lenet_mnist", 128, 35, COMPILED),
    Step("runs_at_once", runs_at_once, 200, 100),
    Step("trace", trace, 90, 25, small=False),
    Step("checkpoints", checkpoints, 60, 25, small=False),
    rate("vgg16_512", "vgg16_cifar10", 512, 30),
    rate("mobilenet_512", "mobilenet_cifar10", 512, 30),
    rate("vgg16_512_compiled", "vgg16_cifar10", 512, 45, COMPILED),
]
"""By worth; together the guesses fit into the nine minutes."""
