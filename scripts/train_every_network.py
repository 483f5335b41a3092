"""Train every network for an epoch on a few images, with each option of `batchnorm`, and list what happened.

    python scripts/train_every_network.py [--data mnist cifar10] [--images 64] [--root data] [MODEL ...]

A network that asks for larger images gets them; an option that it refuses is listed with its line; anything else that
goes wrong is a failure, and the exit status is 1. Takes most of an hour on one core for all networks.
"""

import argparse
import contextlib
import io
import re
import sys
import tempfile
import time
from pathlib import Path

from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.system.installation import CONF
from convolt.training.run import run

PLACEMENTS = ("auto", "before", "after", "none")


def attempt(model: str, data: str, placement: str, images: int, root: str, *more: str) -> str:
    """Train once; return "trained" with the loss, "refused" with the line, or "FAILED" with the error."""
    overrides = [
        f"model={model}",
        f"data={data}",
        f"batchnorm={placement}",
        f"data.root={root}",
        f"data.train_size={images}",
        "data.batch_size=32",
        "data.eval_batch_size=32",
        "optim=sgd",
        "optim.lr=0.01",
        "trainer.max_epochs=1",
        "debug.limit_batches=2",
        *more,
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            result = run(compose(overrides), Path(folder) / "run")
        except UserError as error:
            larger = re.search(r"use (data\.image_size=\d+) or more", str(error))
            if larger and not more:
                return f"{attempt(model, data, placement, images, root, larger[1])}, {larger[1]}"
            if "or data=shapes" in str(error):
                return f"{attempt(model, 'shapes', placement, images, root)}, data=shapes"
            return f"refused: {error}"
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error}"
    return f"trained: loss {result['metrics']['train/loss']:.3f}"


def main() -> None:
    """Try all and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: all of conf/model")
    parser.add_argument("--data", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--root", default="data")
    arguments = parser.parse_args()
    files = sorted((CONF / "model").rglob("*.yaml"))
    everything = [file.relative_to(CONF / "model").with_suffix("").as_posix() for file in files]
    models = arguments.models or [name for name in everything if name != "timm"]
    counts: dict[str, int] = {}
    for model in models:
        for data in arguments.data:
            for placement in PLACEMENTS:
                started = time.perf_counter()
                outcome = attempt(model, data, placement, arguments.images, arguments.root)
                counts[outcome.split(":")[0]] = counts.get(outcome.split(":")[0], 0) + 1
                print(f"{model} {data} {placement} {time.perf_counter() - started:.1f}s {outcome}", flush=True)
    print(counts)
    sys.exit(1 if "FAILED" in counts else 0)


if __name__ == "__main__":
    main()
