"""What a trained network sees in images.

  python predict.py RUN_DIR image.png            the five likeliest classes
  python predict.py RUN_DIR photos/ other.jpg    all images below a folder, and one more
  python predict.py RUN_DIR photos/ --json       for machines

In folders, links are followed; files that are no pictures by their ending are passed over, and counted in a line.
Images of any size and kind are brought to what the run was trained on, all of it known from its directory: turned as
their EXIF data says, laid on white where they are transparent, to 8 bits (from 16 by the run's data.white), to gray or
color, the shorter side to the stored size and the center kept (or stretched, for a run with data.resize=stretch),
padded, resized, standardized. What of a file's metadata cannot be read is left out, and a note says so.
A network that labels pixels writes NAME_mask.png, of the image's own size and in VOC's colors, and NAME_overlay.png to
RUN_DIR/predictions or --output DIR; pixels that it was not shown (a crop's sides) have the label 255.
A network trained on MNIST or its kind wants what it has seen: light strokes on black, filling the image.

Exit status 0: all images were read; 1: some were not, and are named (HEIC and raw photos, which have to be converted,
among them); 2: a mistake of yours, in one line.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources import image_files
from convolt.data.sources.image_files import CONVERTIBLE, read_file, readable_endings
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.images import read_each, read_image
from convolt.errors import UserError, did_you_mean, printable, some
from convolt.inference.prediction_report import REPORTS, FilePrediction
from convolt.system.arguments import Parser, run_command, typed_path
from convolt.system.imports import fast_imports
from convolt.system.progress import Progress

if TYPE_CHECKING:
    from convolt.inference.trained import TrainedRun


def find_files(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that are named, and all images below the folders that are named, sorted.

    In folders, files count by their ending, also those that will have to be converted; what is hidden, or was left by
    the system, does not. A file that is named counts in any case.

    Returns:
        The images, and the other files of the folders.

    Raises:
        UserError: For a path that does not exist, or a folder without images.
    """
    endings = readable_endings() | CONVERTIBLE
    found: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = [*image_files.find_files(path)]
            except OSError as error:
                raise UserError(f"{printable(error.filename)} cannot be read: {error.strerror}") from error
            images = [file for file in inside if file.suffix.lower() in endings]
            rest = [file for file in inside if file.suffix.lower() not in endings]
            if not images:
                raise UserError(f"{path} holds no images" + (f", but {_describe_other_files(rest)}" if rest else ""))
            found += images
            others += rest
        elif path.exists() or path.is_symlink():
            found.append(path)
        else:
            siblings = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{path}: there is no such file{did_you_mean(str(path), siblings)}")
    return list(dict.fromkeys(found)), list(dict.fromkeys(others))


def _describe_other_files(files: Sequence[Path]) -> str:
    """Count files that are no images, and name their endings."""
    endings = sorted({file.suffix.lower() or "without an ending" for file in files})
    return f"{len(files):,} other file{'' if len(files) == 1 else 's'}: {printable(some(endings))}"


def predict(run: "TrainedRun", files: Sequence[Path], notes: ImageNotes | None = None) -> Iterator[FilePrediction]:
    """Yield a prediction for each file, in order, in batches as the run was tested with.

    Args:
        run: The run.
        files: Image files.
        notes: Where to note what the user should know about the files.
    """
    import torch

    from convolt.inference.trained import Predictor

    predictor: Predictor = Predictor.load(run)
    spec, size = run.input_spec, predictor.batch_size
    decode = partial(read_image, size=spec.stored_size, channels=spec.channels, resize=spec.resize, white=spec.white)

    def read(file: Path) -> NDArray[np.uint8]:
        return read_file(file, partial(decode, notes=notes))

    with Progress("looking at images", len(files)) as progress:
        for start in range(0, len(files), size):
            batch = files[start : start + size]
            images = [image for _, image in read_each(batch, read)]
            good = [image for image in images if not isinstance(image, str)]
            rows = iter(predictor(torch.from_numpy(np.stack(good))).numpy()) if good else iter(())
            for file, image in zip(batch, images, strict=True):
                yield FilePrediction(file, None, image) if isinstance(image, str) else FilePrediction(file, next(rows))
            progress.advance(len(batch))


def _work(argv: Sequence[str]) -> int:
    parser = Parser("predict", __doc__ or "")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", type=typed_path)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes shown of each image; default: 5")
    parser.add_argument(
        "--output",
        type=typed_path,
        metavar="DIR",
        help="for masks, where there are any; default: RUN_DIR/predictions",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse(argv)
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top} will not do: it must be 1 or more")
    files, others = find_files(arguments.images)

    with fast_imports():
        from convolt.inference.trained import TrainedRun
        from convolt.tasks.task import for_task

    run = TrainedRun(arguments.run)
    if run.input_spec.channels not in (1, 3):
        raise UserError(f"{arguments.run}: the network takes {run.input_spec.channels} channels; files have 1 or 3")
    report = for_task(run.kind, REPORTS)(run, arguments.top, arguments.output)
    notes = ImageNotes()
    for prediction in predict(run, files, notes):
        report.add(prediction)
    if arguments.json:
        print(json.dumps(report.document(), indent=1, ensure_ascii=False))
    else:
        report.show()
    for line in notes.lines(white_can_be_set=False):
        print(f"note: {line}", file=sys.stderr)
    for prediction in report.skipped:
        print(f"skipped: {printable(prediction.file)}: {printable(prediction.error)}", file=sys.stderr)
    if others:
        print(f"passed over: {_describe_other_files(others)}", file=sys.stderr)
    return 1 if report.skipped else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, 1 where files were skipped, 2 for a user's mistake.
    """
    return run_command(_work, argv)
