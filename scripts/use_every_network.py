"""Draw, evaluate, predict and export with every network after one step of training, and list what happened.

    python scripts/use_every_network.py [--root data] [MODEL ...]

Every picture must be drawn, the evaluation must equal the run bit for bit, images of many kinds must be predicted and
corrupt ones named, and the exported programs must give the network's outputs. Exit status 1 if anything fails.
"""

import argparse
import contextlib
import io
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.inference.evaluate import main as evaluate
from convolt.inference.export import main as export
from convolt.inference.predict import main as predict
from convolt.system.installation import CONF
from convolt.training.callbacks.pictures import Pictures
from convolt.training.run import run


def images(folder: Path) -> None:
    """Write images of many kinds, and one that is none."""
    folder.mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "color.jpg")
    Image.fromarray(random.integers(0, 256, (9, 5, 4), dtype=np.uint8)).save(folder / "transparent.png")
    Image.fromarray(random.integers(0, 2**16, (30, 30), dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(random.integers(0, 256, (24, 24), dtype=np.uint8)).convert("1").save(folder / "bits.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")


def attempt(model: str, root: str, folder: Path, *more: str) -> str:
    """Do it all; return "fine" with a note, "refused" with the line, or "FAILED" with what went wrong."""
    overrides = [
        f"model={model}",
        f"data.root={root}",
        "data.train_size=16",
        "data.batch_size=8",
        "data.eval_batch_size=16",
        "trainer.max_epochs=1",
        "trainer.threads=1",
        "trainer.precision=32-true",
        "debug.limit_batches=1",
        *more,
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run(compose(overrides), folder)
            done = {
                "evaluate": evaluate([str(folder)]),
                "predict": predict([str(folder), str(folder.parent / "images")]),
                "export": export([str(folder)]),
            }
        except UserError as error:
            larger = re.search(r"use (data\.image_size=\d+) or more", str(error))
            if larger and not more:
                return f"{attempt(model, root, folder, larger[1])}, {larger[1]}"
            if "or data=shapes" in str(error) and not more:
                return attempt(model, root, folder, "data=shapes")
            return f"refused: {error}"
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error}"
    text = said.getvalue()
    wrong = [name for name, status in done.items() if status != (1 if name == "predict" else 0)]
    wrong += [] if "bit for bit" in text else ["equality"]
    wrong += [] if text.count("skipped:") == 1 else ["skipping"]
    if wrong:
        return f"FAILED: {', '.join(wrong)}: {text[-600:]}"
    return f"fine: {', '.join(re.findall(r'outputs differ by .* at most', text))}"


def main() -> None:
    """Try all and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: all of conf/model")
    parser.add_argument("--root", default="data")
    arguments = parser.parse_args()
    Pictures.strict = True
    files = sorted((CONF / "model").rglob("*.yaml"))
    everything = [file.relative_to(CONF / "model").with_suffix("").as_posix() for file in files]
    counts: dict[str, int] = {}
    for model in arguments.models or [name for name in everything if name != "timm"]:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            images(Path(folder) / "images")
            outcome = attempt(model, arguments.root, Path(folder) / "run")
        counts[outcome.split(":")[0]] = counts.get(outcome.split(":")[0], 0) + 1
        print(f"{model} {time.perf_counter() - started:.1f}s {outcome}", flush=True)
    print(counts)
    sys.exit(1 if "FAILED" in counts else 0)


if __name__ == "__main__":
    main()
