"""What a run sets for its whole process, restored for the code around it: a notebook's other cells."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SEEDS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""Variables in which Lightning keeps a seed for later."""


@contextmanager
def restore_process_state() -> Iterator[None]:
    """Restore random generators, threads and switches of PyTorch after the block; signals are restored by runs."""
    import torch
    from pytorch_lightning.utilities.seed import isolate_rng

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    tf32, benchmark = cudnn.allow_tf32, cudnn.benchmark
    seeds = {name: os.environ.get(name) for name in _SEEDS}
    try:
        with isolate_rng(include_cuda=torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32, cudnn.benchmark = tf32, benchmark
        for name, value in seeds.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
