"""The command line of `predict.py`: images in, classes and probabilities out."""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convolt.arguments import Parser, command
from convolt.data.sources.images import read_image
from convolt.errors import UserError, near
from convolt.progress import Progress

if TYPE_CHECKING:
    from convolt.trained import TrainedRun

USAGE = """\
What a trained network sees in images.

  python predict.py RUN_DIR image.png            the five likeliest classes
  python predict.py RUN_DIR photos/ other.jpg    all images below a folder, and one more
  python predict.py RUN_DIR photos/ --json       for machines

Images of any size and kind are brought to what the run was trained on, all of it known from its directory: turned as
their EXIF data says, laid on white where they are transparent, to 8 bits, to grey or colour, the shorter side to the
stored size and the centre kept (or stretched, for a run with data.resize=stretch), padded, resized, standardised.
A network trained on MNIST or its kind wants what it has seen: light strokes on black, filling the image.

Exit status 0: all images were read; 1: some were not, and are named; 2: a mistake of yours, in one line.
"""


@dataclass(frozen=True)
class Answer:
    """What became of a file.

    Attributes:
        file: The file.
        probabilities: (K,), or None where the file is no image.
        error: Why not.
    """

    file: Path
    probabilities: NDArray[np.float32] | None
    error: str = ""


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named, and all images below the folders that are named, sorted.

    In folders, files count by their ending; hidden ones do not. A file that is named counts in any case.

    Raises:
        UserError: For a path that does not exist, or a folder without images.
    """
    from PIL import Image

    endings = {ending.lower() for ending in Image.registered_extensions()}
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = []
            for parent, folders, names in os.walk(path):
                folders[:] = sorted(name for name in folders if name[0] != ".")
                inside += [Path(parent, n) for n in sorted(names) if n[0] != "." and Path(n).suffix.lower() in endings]
            if not inside:
                raise UserError(f"{path} holds no images")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            siblings = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{path}: there is no such file{near(str(path), siblings)}")
    return list(dict.fromkeys(found))


def predict(run: "TrainedRun", files: Sequence[Path]) -> Iterator[Answer]:
    """Yield an answer for each file, in order, in batches as the run was tested with.

    Args:
        run: The run.
        files: Image files.
    """
    import torch

    from convolt.trained import Predictor

    predictor: Predictor = Predictor.load(run)
    taken = run.taken

    def read(file: Path) -> NDArray[np.uint8] | str:
        try:
            return read_image(file, taken.stored_size, 1 if taken.channels == 1 else 3, taken.resize)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged files
            reason = "no image that Pillow knows" if "cannot identify" in str(error) else str(error)
            return " ".join(reason.split()) or type(error).__name__

    size = predictor.batch_size
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Progress("looking at images", len(files)) as progress,
    ):
        warnings.simplefilter("ignore")  # of damaged metadata: what matters is an error here
        for start in range(0, len(files), size):
            batch = files[start : start + size]
            images = list(pool.map(read, batch))
            good = [image for image in images if not isinstance(image, str)]
            rows = iter(predictor(torch.from_numpy(np.stack(good))).numpy()) if good else iter(())
            for file, image in zip(batch, images, strict=True):
                yield Answer(file, None, image) if isinstance(image, str) else Answer(file, next(rows))
            progress.advance(len(batch))


def ranked(probabilities: NDArray[np.float32], classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Return the likeliest classes with their probabilities, the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [(classes[label], float(probabilities[label])) for label in order]


def _work(argv: Sequence[str]) -> int:
    parser = Parser("predict", USAGE)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", type=Path)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes shown of each image; default: 5")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse(argv)
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top} will not do: it must be 1 or more")
    files = find_files(arguments.images)

    from convolt.trained import TrainedRun

    run = TrainedRun(arguments.run)
    if run.taken.channels not in (1, 3):
        raise UserError(f"{arguments.run}: the network takes {run.taken.channels} channels; files have 1 or 3")
    answers = list(predict(run, files))
    if arguments.json:
        print(json.dumps(_document(run, answers, arguments.top), indent=1, ensure_ascii=False))
    else:
        _show(run, answers, arguments.top)
    skipped = [answer for answer in answers if answer.probabilities is None]
    for answer in skipped:
        print(f"skipped: {answer.file}: {answer.error}", file=sys.stderr)
    return 1 if skipped else 0


def _document(run: "TrainedRun", answers: Sequence[Answer], top: int) -> dict[str, Any]:
    classes = run.taken.classes
    return {
        "run": str(run.folder),
        "classes": classes,
        "predictions": [
            {
                "file": str(answer.file),
                "top": [{"class": n, "probability": p} for n, p in ranked(answer.probabilities, classes, top)],
            }
            for answer in answers
            if answer.probabilities is not None
        ],
        "skipped": [{"file": str(a.file), "error": a.error} for a in answers if a.probabilities is None],
    }


def _show(run: "TrainedRun", answers: Sequence[Answer], top: int) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for answer in answers:
        if answer.probabilities is None:
            continue
        best = ranked(answer.probabilities, run.taken.classes, top)
        table.add_row(
            Text(str(answer.file)),
            Text("\n".join(name for name, _ in best)),
            "\n".join(f"{100 * p:.2f}%" for _, p in best),
            end_section=True,
        )
    width: dict[str, Any] = {} if sys.stdout.isatty() or "COLUMNS" in os.environ else {"width": 100}
    if table.rows:
        Console(highlight=False, **width).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, 1 where files were skipped, 2 for a user's mistake.
    """
    return command(_work, argv)
