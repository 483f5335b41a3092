"""How many runs share a GPU: `hydra.launcher.jobs_per_gpu=auto`.

A step of a small network keeps a GPU busy for a part of its time only: the rest waits for Python and for the launches
of kernels, which take a core of the CPU. As many runs share a GPU as fill it by this account, in round numbers, where
memory and cores suffice:

- The GPU's part of a step: three passes (forward, and backward to the weights and to the inputs) of multiply-adds, and
  every byte that training keeps for activations written and read. A multiprocessor is taken to do 10^11 multiply-adds
  a second, what its float32 units reach (64 to 128 a clock), and to move 10^10 bytes (8 on a T4, 14 on an A100, 25 on
  an H100). Tensor cores do many times the former on large layers: that a large network is thought to fill a GPU
  sooner than it does errs on the side of fewer runs.
- The host's part: 0.3 ms, measured (docs/performance.md), and 50 microseconds a layer for its kernels, of 5 to 10 each.
- Memory: 1.5 GiB for the CUDA context, kernels' workspaces and images, and one and a half times what training is
  estimated to keep. It counts the whole of a GPU, whoever uses it, so that a sweep goes on with as many runs as before.
- A core of the CPU for each run, and no more than eight runs: beyond that nobody has looked.

None of it was measured on a GPU: therefore one run a GPU is the default.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convolt.config.settings import Settings
from convolt.sweeps.gpus import Gpu, call_in_processes, describe_gpus, visible_gpus
from convolt.sweeps.jobs import Job
from convolt.sweeps.slots import Slot, make_slots
from convolt.system.cores import count_cores

MOST_RUNS = 8
"""Runs that share a GPU at most."""

_MULTIPLY_ADDS_PER_SECOND, _BYTES_PER_SECOND = 1e11, 1e10
"""Of one multiprocessor."""

_HOST_SECONDS, _HOST_SECONDS_PER_LAYER = 0.3e-3, 50e-6
_PASSES = 3
_RUN_BYTES = 3 * 2**29
_SPARE = 1.5
"""What PyTorch's allocator and the algorithms of convolutions take for each byte that training keeps."""

_MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class TrainingStep:
    """What a run's training step computes and keeps.

    Attributes:
        network: Its name.
        layers: How many the network has.
        multiply_adds: Of a forward pass over the batch.
        activation_bytes: What all layers put out, and its gradients.
        training_bytes: That, and weights, gradients and moments.
        takes_all: Whether the run fits its batch to all the memory there is.
    """

    network: str
    layers: int
    multiply_adds: int
    activation_bytes: int
    training_bytes: int
    takes_all: bool = False


@dataclass(frozen=True)
class GpuShare:
    """How many runs share a GPU, and why so many."""

    runs: int
    reason: str


def choose_share(step: TrainingStep, gpu: Gpu, cores: int) -> GpuShare:
    """Choose how many runs of a kind share a GPU.

    Args:
        step: What each of them does, over and over.
        gpu: The GPU.
        cores: CPU cores for all of these runs.
    """
    if step.takes_all:
        return GpuShare(1, "trainer.find_batch_size=true takes all of a GPU's memory")
    computing = _PASSES * step.multiply_adds / _MULTIPLY_ADDS_PER_SECOND
    moving = 2 * step.activation_bytes / _BYTES_PER_SECOND
    gpu_seconds = (computing + moving) / gpu.multiprocessors
    host_seconds = _HOST_SECONDS + step.layers * _HOST_SECONDS_PER_LAYER
    filling = max(1, round(host_seconds / gpu_seconds))
    fitting = max(1, int(_MEMORY_SHARE * gpu.memory_bytes / (_RUN_BYTES + _SPARE * step.training_bytes)))
    runs = min(filling, fitting, max(1, cores), MOST_RUNS)
    return GpuShare(
        runs,
        f"a step of {step.network} takes a GPU {gpu_seconds * 1e3:.2g} ms and the host {host_seconds * 1e3:.2g}; "
        f"memory for {fitting}, cores for {max(1, cores)}, at most {MOST_RUNS}",
    )


def place_runs(
    context: Any, jobs: Sequence[Job], n_jobs: int | None, jobs_per_gpu: int | str
) -> tuple[list[Slot], str]:
    """Divide the machine into slots for the runs of a sweep.

    Args:
        context: Of `multiprocessing`.
        jobs: All of the sweep.
        n_jobs: Runs at a time at most; None: as many as there are GPU shares, or cores.
        jobs_per_gpu: Runs that share a GPU; auto: as many as the most demanding run of the sweep allows.

    Returns:
        The slots, and why so many runs share a GPU, in a line; empty where that was typed.
    """
    on_gpus = [job for job in jobs if job.cfg.trainer.accelerator != "cpu"]
    gpus = visible_gpus(context) if on_gpus else []
    if jobs_per_gpu != "auto":
        return make_slots(len(jobs), gpus, n_jobs, int(jobs_per_gpu)), ""
    if not gpus:
        return make_slots(len(jobs), gpus, n_jobs, 1), "jobs_per_gpu=auto has no GPU here that a run trains on"
    share = _choose_for_all(context, on_gpus, gpus, min(len(jobs), n_jobs or len(jobs)))
    reason = f"jobs_per_gpu=auto takes {share.runs}: {share.reason}"
    return make_slots(len(jobs), gpus, n_jobs, share.runs), reason


def _choose_for_all(context: Any, jobs: Sequence[Job], gpus: Sequence[str | None], at_once: int) -> GpuShare:
    """Choose how many runs share each of the GPUs, for the most demanding run and the smallest GPU."""
    if at_once <= len(gpus):
        return GpuShare(1, "there is a GPU for each run")
    found = describe_gpus(context, [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus if gpu is not None])
    if not found or None in found:
        return GpuShare(1, "CUDA does not say what the GPU has")
    kinds = list({_kind(job.cfg): job.cfg for job in jobs}.values())
    (steps,) = call_in_processes(context, measure_steps, [(kinds,)], None)
    if steps is None or isinstance(steps, str):
        return GpuShare(1, f"what a step takes is not known ({steps or 'the process that asked died'})")
    cores = count_cores() // len(gpus)
    shares = [choose_share(step, gpu, cores) for step in steps for gpu in found if gpu]
    return min(shares, key=lambda share: share.runs)


def _kind(cfg: DictConfig) -> str:
    """Return what decides a run's step, as text."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    trainer, debug = settings["trainer"], settings["debug"]
    also = [trainer["precision"], trainer["find_batch_size"], debug["batch_size"]]
    return json.dumps([settings["model"], settings["batchnorm"], settings["data"], also], default=str)


def measure_steps(configs: Sequence[DictConfig]) -> list[TrainingStep] | str:
    """Return what the training steps of some runs compute, or the line that says why that cannot be known."""
    try:
        return [_measure_step(Settings.of(cfg)) for cfg in configs]
    except Exception as error:  # the runs will end by it too, and say so in their directories
        return str(error).partition("\n")[0] or type(error).__name__


def _measure_step(settings: Settings) -> TrainingStep:
    from convolt.training.build import estimate_training_bytes, make_data, summarize_model

    data = settings.data
    if data.channels is None or data.image_size is None or data.num_classes is None:
        settings = make_data(settings)[1]
        data = settings.data
    assert data.channels is not None
    assert data.image_size is not None
    _, summary, name = summarize_model(settings, data.channels, data.image_size)
    batch, precision = settings.debug.batch_size or data.batch_size, str(settings.trainer.precision)
    training_bytes = estimate_training_bytes(summary, batch, precision)
    return TrainingStep(
        network=name,
        layers=len(summary.layers),
        multiply_adds=summary.macs * batch,
        activation_bytes=training_bytes - estimate_training_bytes(summary, 0, precision),
        training_bytes=training_bytes,
        takes_all=settings.trainer.find_batch_size,
    )
