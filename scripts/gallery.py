"""Make the pictures of docs/gallery.md again, small enough for a repository: docs/images/gallery_*.png.

python scripts/gallery.py           runs what is missing below outputs/gallery (minutes on two cores), then draws
python scripts/gallery.py FILE.png  only shrinks a picture of docs/images, such as a screenshot
"""

import io
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
RUNS = ROOT / "outputs" / "gallery"
LARGEST = 56_000
"""Bytes of a picture."""

COMMANDS = {
    "run": "python train.py",
    "masks": "python train.py data=shapes model=fcn8s",
    "study": "./multirun.sh optimizers data=digits model=lenet trainer.max_epochs=3 hydra.sweeper.tune=null",
}
"""What makes the runs that are shown, as the page has it."""

PICTURES = {
    "gallery_comparison": ("study", "report/figures/comparison.png"),
    "gallery_study_curves": ("study", "report/figures/curves.png"),
    "gallery_deciding": ("study", "report/figures/images_right_02_adam.png"),
    "gallery_never": ("study", "report/figures/images_wrong_in_every_run.png"),
    "gallery_confusion": ("run", "figures/confusion_matrix.png"),
    "gallery_reliability": ("run", "figures/reliability.png"),
    "gallery_curves": ("run", "figures/curves.png"),
    "gallery_mistakes": ("run", "figures/mistakes.png"),
    "gallery_gradcam": ("run", "figures/gradcam_right.png"),
    "gallery_activations": ("run", "figures/activations.png"),
    "gallery_filters": ("run", "figures/filters.png"),
    "gallery_map": ("run", "figures/map.png"),
    "masks": ("masks", "figures/worst.png"),
}
"""Each picture, the command whose results hold it, and its file there."""


def run(name: str) -> Path:
    """Run what is missing of a command; return the folder of its results."""
    folder = RUNS / name
    program, *overrides = shlex.split(COMMANDS[name].removeprefix("python "))
    if program == "./multirun.sh":
        overrides = [f"study={overrides[0]}", "hydra.sweeper.report=true", f"hydra.sweep.dir={folder}", *overrides[1:]]
    else:
        overrides.append(f"hydra.run.dir={folder}")
    subprocess.run([sys.executable, "train.py", *overrides], cwd=ROOT, check=True)
    return folder


def shrink(picture: Image.Image) -> bytes:
    """Write a picture as a PNG of at most `LARGEST` bytes: as wide and with as many colors as that allows."""
    picture = picture.convert("RGB")
    for width in (900, 720, 600, 480, 360):
        height = round(picture.height * width / picture.width)
        small = picture if picture.width <= width else picture.resize((width, height), Image.Resampling.LANCZOS)
        for colors in (256, 128, 64, 32):
            file = io.BytesIO()
            small.quantize(colors, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
            if file.tell() <= LARGEST:
                return file.getvalue()
    sys.exit(f"no width gives a picture of {LARGEST:,} bytes")


def main() -> None:
    """Make all pictures, or shrink those that are named."""
    for name in sys.argv[1:]:
        (IMAGES / name).write_bytes(shrink(Image.open(IMAGES / name)))
    if sys.argv[1:]:
        return
    folders = {name: run(name) for name in COMMANDS}
    for picture, (name, file) in PICTURES.items():
        path = IMAGES / f"{picture}.png"
        path.write_bytes(shrink(Image.open(folders[name] / file)))
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
