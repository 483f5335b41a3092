"""Places for runs: a share of a GPU each, or some cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convolt.system.cores import count_cores


@dataclass(frozen=True)
class Slot:
    """What one run at a time may use.

    Attributes:
        number: Counted from 0.
        gpu: As CUDA_VISIBLE_DEVICES names it; None without GPUs.
        threads: CPU threads.
        parallel: How many slots there are.
        more: Other environment variables of a run there.
    """

    number: int
    gpu: str | None
    threads: int
    parallel: int
    more: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a run in this place."""
        visible = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        return visible | {"CONVOLT_THREADS": str(self.threads), "CONVOLT_SLOTS": str(self.parallel), **self.more}


def make_slots(runs: int, gpus: Sequence[str | None], n_jobs: int | None, jobs_per_gpu: int) -> list[Slot]:
    """Divide the machine into slots.

    The number of threads follows from the sweep and the machine alone, not from what is left to do, so that a
    run resumes with as many as it began with.

    Args:
        runs: In the whole sweep.
        gpus: As CUDA_VISIBLE_DEVICES names them; none to train on the CPU.
        n_jobs: Runs at a time at most; None: as many as there are GPU shares, or cores.
        jobs_per_gpu: Runs that share a GPU.
    """
    places: list[str | None] = list(gpus) * jobs_per_gpu if gpus else [None] * (n_jobs or count_cores())
    places = places[: max(1, min(n_jobs or len(places), runs))]
    threads = max(1, count_cores() // len(places))
    return [Slot(number, gpu, threads, len(places)) for number, gpu in enumerate(places)]


def describe_slots(slots: Sequence[Slot]) -> str:
    """Describe how many runs there are at a time, and where."""
    places = f"{len(slots)} at a time" if len(slots) > 1 else "one at a time"
    if slots[0].gpu is not None:
        places += f" on {len({slot.gpu for slot in slots})} GPU(s)"
    return f"{places}, {slots[0].threads} CPU thread{'s' if slots[0].threads > 1 else ''} each"
