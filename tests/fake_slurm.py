"""A SLURM of one file: sbatch, srun, scontrol, sacct and scancel for tests; jobs are processes of this machine.

`install(folder)` makes the commands in `folder/bin`; what they know is in `folder`: script.sh, the batch script that
was submitted; <index>.state and, while a job is to run once more, <index>.requeue.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

JOB = "4711"


def install(folder: Path) -> dict[str, str]:
    """Make the commands; return the variables by which a program finds them."""
    (folder / "bin").mkdir(parents=True)
    for name in ("sbatch", "srun", "scontrol", "sacct", "scancel"):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} {folder} "$@"\n')
        command.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def sbatch(folder: Path, script: str) -> None:
    """Start an array of jobs."""
    text = Path(script).read_text()
    (folder / "script.sh").write_text(text)
    found = re.search(r"^#SBATCH --array=0-(\d+)%", text, re.MULTILINE)
    for index in range(int(found[1]) + 1 if found else 1):
        (folder / f"{index}.state").write_text("RUNNING")
        nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen([sys.executable, __file__, "job", str(folder), str(index)], start_new_session=True, **nowhere)
    print(f"Submitted batch job {JOB}")


def job(folder: Path, index: str) -> None:
    """Run a job of the array, and again as often as it is queued again."""
    place = {"PROCID": "0", "LOCALID": "0", "NODEID": "0", "NTASKS": "1", "JOB_NUM_NODES": "1", "NODELIST": "localhost"}
    place |= {"JOB_ID": f"99{index}", "ARRAY_JOB_ID": JOB, "ARRAY_TASK_ID": index, "TMPDIR": str(folder / "tmp")}
    env = os.environ | {f"SLURM_{name}": value for name, value in place.items()}
    requeue = folder / f"{index}.requeue"
    while True:
        process = subprocess.Popen(["bash", str(folder / "script.sh")], env=env)
        (folder / f"{index}.pid").write_text(str(process.pid))
        status = process.wait()
        if not requeue.exists():
            break
        requeue.unlink()
        (folder / f"{index}.queued").open("a").write("again\n")
    (folder / f"{index}.state").write_text("FAILED" if status else "COMPLETED")


def srun(folder: Path, *arguments: str) -> None:
    """Become the command of a job's step."""
    rest = list(arguments)
    while rest[0].startswith("--"):
        name = rest.pop(0)
        if name in ("--output", "--error"):
            path = rest.pop(0)
            for mark, variable in (("%A", "ARRAY_JOB_ID"), ("%a", "ARRAY_TASK_ID"), ("%t", "PROCID")):
                path = path.replace(mark, os.environ[f"SLURM_{variable}"])
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1 if name == "--output" else 2)
    os.execvp(rest[0], rest)


def scontrol(folder: Path, verb: str, number: str) -> None:
    """Have a job queued again when it has ended."""
    assert verb == "requeue"
    (folder / f"{number.split('_')[1]}.requeue").touch()


def sacct(folder: Path, *_: str) -> None:
    """List the jobs."""
    print("JobID|State|NodeList")
    for file in folder.glob("*.state"):
        print(f"{JOB}_{file.stem}|{file.read_text()}|localhost")


def scancel(folder: Path, *arguments: str) -> None:
    """Tell jobs to stop."""
    for file in folder.glob("*.pid"):
        if any(each in (JOB, f"{JOB}_{file.stem}") for each in arguments):
            os.kill(int(file.read_text()), signal.SIGTERM)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
