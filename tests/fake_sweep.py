"""A launcher of runs that train nothing: python fake_sweep.py FOLDER '{"kinds": [...], ...}'.

Prints what became of each run as JSON. A kind is a name and a number of seconds: "ok 0.1", "raise", "hang".
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.runs.directory import RunDirectory
from convolt.sweeps import pool
from convolt.sweeps.jobs import Job, State
from convolt.sweeps.slots import Slot
from convolt.system.signals import Interrupted, interrupt_on_signals


def work(cfg: DictConfig, run_dir: Path) -> None:
    """Do what a run of the kind does."""
    kind, _, seconds = cfg.callbacks.kind.partition(" ")
    if kind == "early":
        raise UserError("nothing there")
    with RunDirectory(run_dir, cfg) as directory, interrupt_on_signals():
        directory.begin()
        began = time.monotonic()
        (run_dir / "pids").write_text(str(os.getpid()))
        print(f"hello from {run_dir.name}")
        if kind == "raise":
            raise ValueError("what a pity\nindeed")
        if kind == "exit":
            sys.exit(7)
        if kind == "nothing":
            os._exit(0)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "second" and not (run_dir / "once").exists():
            (run_dir / "once").touch()
            raise ValueError("not yet")
        if kind in ("hang", "deaf"):
            child = subprocess.Popen(["sleep", "100"])
            (run_dir / "pids").write_text(f"{os.getpid()} {child.pid}")
            if kind == "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(100)
        time.sleep(float(seconds or 0))
        directory.finish(
            {
                "metrics": {},
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "mps": os.environ.get("CUDA_MPS_PIPE_DIRECTORY"),
                "threads": os.environ["CONVOLT_THREADS"],
                "slots": os.environ["CONVOLT_SLOTS"],
                "began": began,
                "ended": time.monotonic(),
            }
        )


class Silent:
    """Shows the changes of state on standard error."""

    def update(self, run: Job) -> None:
        """Print it."""
        print(run.name, run.state, run.reason, file=sys.stderr, flush=True)


def main() -> int:
    """Run the runs."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    pool.GRACE_SECONDS = options.pop("grace", 1.0)
    kinds, gpus = options.pop("kinds"), options.pop("gpus", [None, None])
    settings = compose([])
    runs = [
        Job(f"run{number}", OmegaConf.merge(settings, {"callbacks": {"kind": kind}}), folder / f"run{number}")  # type: ignore[arg-type]
        for number, kind in enumerate(kinds)
    ]
    for run in runs:
        run.result = run.find_result()
        run.state = State.FINISHED if run.result else State.WAITING
    slots = [Slot(number, gpu, 1, len(gpus)) for number, gpu in enumerate(gpus)]
    context = pool.make_context(["convolt.sweeps.pool"])
    status = 0
    try:
        pool.Pool(work, slots, context=context, screen=Silent(), **options).run(runs)
    except Interrupted as error:
        status = error.exit_status
    print(json.dumps([{"state": run.state, "reason": run.reason, "attempts": run.attempts} for run in runs]))
    return status


if __name__ == "__main__":
    sys.exit(main())
