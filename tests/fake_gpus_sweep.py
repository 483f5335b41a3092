"""A local launcher on GPUs that are not there: python fake_gpus_sweep.py FOLDER '{"kinds": [...], ...}'.

Runs are those of `fake_sweep.py`; the other options are the launcher's, and gpus and cores. Prints, in the last line,
as JSON what each run saw, and whether torch was imported.
"""

import json
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from convolt.config.compose import compose
from convolt.sweeps import gpu_share, local, mps_daemon, pool, slots
from convolt.sweeps.gpus import Gpu
from convolt.sweeps.jobs import Job
from convolt.system.signals import Interrupted
from fake_sweep import work
from hydra_plugins.convolt_sweeps.local_launcher import LocalLauncherConf


def measure_steps(configs: list[DictConfig]) -> list[gpu_share.TrainingStep]:
    """Measure nothing."""
    return [gpu_share.TrainingStep("lenet", 12, 83 * 10**6, 15 * 10**6, 16 * 10**6) for _ in configs]


def main() -> int:
    """Run the runs."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    kinds, gpus = options.pop("kinds"), options.pop("gpus", ["0"])
    cores = options.pop("cores", 16)

    def describe(context: object, environments: list[dict[str, str]]) -> list[Gpu]:
        names = [each["CUDA_VISIBLE_DEVICES"] for each in environments]
        return [Gpu(name if "-" in name else f"GPU-{name}", 80 * 2**30, 132) for name in names]

    gpu_share.visible_gpus = lambda context: gpus
    gpu_share.describe_gpus = mps_daemon.describe_gpus = describe
    gpu_share.count_cores = slots.count_cores = lambda: cores
    gpu_share.measure_steps = measure_steps
    local.make_context = lambda _: pool.make_context(["convolt.sweeps.pool"])
    local.start_run = work
    settings = compose(["model=lenet", "data=cifar10"])
    runs = [
        Job(f"run{number}", OmegaConf.merge(settings, {"callbacks": {"kind": kind}}), folder / f"run{number}")
        for number, kind in enumerate(kinds)
    ]
    try:
        local.run(runs, LocalLauncherConf(**options))
    except Interrupted as error:
        return error.exit_status
    print(json.dumps({"runs": [run.result for run in runs], "torch": "torch" in sys.modules}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
