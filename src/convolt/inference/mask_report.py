"""What `predict.py` reports of images whose pixels are labeled: masks as files, and the classes in them."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convolt.data.sources.base import IGNORED
from convolt.data.sources.decoding import open_upright, row_boxes, voc_palette
from convolt.data.sources.parallel_reading import read_each
from convolt.data.sources.squares import restore_from_square
from convolt.errors import UserError
from convolt.figures.palette import overlay
from convolt.inference.prediction_report import FilePrediction, PredictionReport
from convolt.system.files import atomic_write

if TYPE_CHECKING:
    from convolt.inference.trained import TrainedRun


class MaskPredictionReport(PredictionReport):
    """Writes NAME_mask.png, labels in VOC's palette, and NAME_overlay.png for each image, both of the image's own size.

    Args:
        run: The run.
        top: Number of classes shown of each image, those with most pixels.
        output: The folder of the files; None: RUN_DIR/predictions.
    """

    score: ClassVar[str] = "share"
    columns: ClassVar[tuple[str, ...]] = ("image", "class", "pixels", "mask")

    def __init__(self, run: "TrainedRun", top: int, output: Path | None) -> None:
        super().__init__(run, top, output)
        self._names: set[str] = set()

    def _add(self, file: Path, probabilities: NDArray[np.float32]) -> None:
        square = probabilities.argmax(0).astype(np.uint8)

        def read(file: Path) -> tuple[NDArray[np.uint8], Image.Image]:
            with open_upright(file, 3, white=self.run.input_spec.white) as with_colors:
                mask = self._at_size(square, with_colors.width, with_colors.height)
                return mask, _overlay_mask(with_colors, mask)

        ((_, found),) = read_each([file], read)
        if isinstance(found, str):  # it has changed since the network saw it
            self.skipped.append(FilePrediction(file, None, found))
            return
        mask, over = found
        image = Image.fromarray(mask)
        image.putpalette(voc_palette().flatten().tolist())
        name = self._unused_name(file.stem)
        paths = {kind: self.folder / f"{name}_{kind}.png" for kind in ("mask", "overlay")}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, each in zip(paths.values(), (image, over), strict=True):
                with atomic_write(path) as beside:
                    each.save(beside, format="PNG")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder}: {error.strerror}; --output DIR puts masks elsewhere"
            ) from None
        counts = np.array(image.histogram()[: len(self.run.input_spec.classes)])
        order = [label for label in np.argsort(-counts, kind="stable")[: self.top] if counts[label]]
        shares = [(self.run.input_spec.classes[label], float(counts[label] / counts.sum())) for label in order]
        self._rows.append((file, shares, paths))

    def _at_size(self, mask: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
        """Resize a mask of the network's size to that of its image."""
        input_spec = self.run.input_spec
        padded = input_spec.stored_size + 2 * input_spec.padding
        square = np.asarray(Image.fromarray(mask).resize((padded, padded), Image.Resampling.NEAREST))
        inner = slice(input_spec.padding, input_spec.padding + input_spec.stored_size)
        return restore_from_square(square[inner, inner], width, height, input_spec.resize)

    def _unused_name(self, stem: str) -> str:
        """Return a name that no other image of this call has."""
        name = next(n for k in range(1, 10**6) if (n := stem if k == 1 else f"{stem}-{k}") not in self._names)
        self._names.add(name)
        return name


def _overlay_mask(image: Image.Image, mask: NDArray[np.uint8]) -> Image.Image:
    """Lay a mask over its image in color, some rows at a time."""
    over = Image.new("RGB", image.size)
    for strip in row_boxes(image):
        rows = mask[strip[1] : strip[3]]
        shown = np.where(rows == IGNORED, 0, rows).astype(np.uint8)  # ignored pixels are unchanged
        pixels = overlay(np.asarray(np.asarray(image.crop(strip)) / np.float32(255), np.float32), shown)
        over.paste(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)), strip)
    return over
