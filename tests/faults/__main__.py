"""Kills runs and studies at drawn points: python tests/faults --runs 60 --studies 20 --seed 0."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Figures, kill_runs, kill_studies, warm_up


def main() -> int:
    """Draw, tell the figures, and return 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=60, help="kill points of one run (default 60)")
    parser.add_argument("--studies", type=int, default=20, help="kill points of a study (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    figures, began = Figures(), time.monotonic()
    if chosen.runs:
        warm_up()
        kill_runs(folder / "runs", chosen.seed, chosen.runs, figures)
    if chosen.studies:
        kill_studies(folder / "studies", chosen.seed, chosen.studies, figures)
    print(f"seed {chosen.seed}, {time.monotonic() - began:.0f} s")
    for what, count in (figures.points | figures.goes_on).items():
        print(f"{count:4}  {what}")
    print(f"{figures.compared:4}  runs compared, {len(figures.lost)} lost")
    print("\n".join(figures.lost))
    if not figures.lost:
        shutil.rmtree(folder)
    return bool(figures.lost)


if __name__ == "__main__":
    sys.exit(main())
