"""The command line of `evaluate.py`: a trained network on the images of a split, its own or another dataset's."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from convolt.config.compose import slug
from convolt.errors import UserError, did_you_mean
from convolt.inference.evaluation_images import images_for, read_overrides, with_typed
from convolt.system.arguments import Parser, run_command
from convolt.system.files import expand_home, write_json, write_text
from convolt.system.imports import fast_imports
from convolt.system.progress import Progress
from convolt.system.terminal import silence_libraries

if TYPE_CHECKING:
    from convolt.data.module import ImageDataModule
    from convolt.inference.trained import TrainedRun

USAGE = """\
A trained network on the images of a split: the classification report.

  python evaluate.py RUN_DIR                           the run's own test images; its numbers come out again
  python evaluate.py RUN_DIR split=val                 its validation images; or train, without augmentation
  python evaluate.py RUN_DIR data.root=/elsewhere      where the prepared datasets lie
  python evaluate.py RUN_DIR data=fashion_mnist        another dataset with classes of the same names
  python evaluate.py RUN_DIR data=folder data.path=DIR all images of DIR/<class>, or those of DIR/test/<class>
  python evaluate.py RUN_DIR trainer.accelerator=cpu   on other hardware; trainer.precision, trainer.threads likewise

Overrides are those of train.py, as far as they say which images and on what; the network, its weights and how it takes
images (size, padding, mean and standard deviation of its training images) are the run's. Images of another stored size
than the run's are resized to the network's input without a border. Writes to RUN_DIR/evaluations/<data>_<split>/.
"""

SPLITS = ("train", "val", "test")
PLACES = {"data.root", "data.path", "data.device"}
"""Keys that change where images lie, but not which."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        data: The images.
        predicted: What the network predicts for them.
        metrics: By name, without the split: "accuracy", "loss", ...; None where there is none.
        device: What it was computed on.
        precision: Likewise.
        same: Whether these are images that the run's result has numbers of.
        split: train, val or test; or all, for all images of a dataset without test images of its own.
    """

    data: "ImageDataModule"
    predicted: Any
    metrics: dict[str, float | None]
    device: str
    precision: str
    same: bool
    split: str


@silence_libraries()
def evaluate(run: "TrainedRun", overrides: Sequence[str] = ()) -> Evaluation:
    """Evaluate a run's tested weights.

    Args:
        run: The run.
        overrides: `split=...` and overrides of `data` and of the trainer's hardware.

    Raises:
        UserError: When the overrides make no sense, or the images are not such as the network knows.
    """
    from dataclasses import replace

    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import LambdaCallback

    from convolt.metrics.rates import finite_or_none
    from convolt.tasks.task import for_task
    from convolt.training.callbacks.predictions import COLLECTORS
    from convolt.training.machine import Machine

    typed = read_overrides(overrides)
    no_split_typed = "split" not in typed
    split = typed.pop("split", "test")
    if split not in SPLITS:
        raise UserError(f"split={split} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    hardware = {key: typed.pop(key) for key in list(typed) if key.startswith("trainer.")}
    settings = with_typed(run.completed_settings(), hardware)
    data, own = images_for(run, settings, typed)
    takes_all = no_split_typed and _has_new_images_only(run, data, typed)
    if takes_all:
        data.test_on_all()
        data.renumber_classes(run.input_spec.classes)
    if not len(data.indices[split]):
        raise UserError(f"{data.dataset.name} has no {split} images with these settings")

    machine = Machine.of(settings.trainer, one_device=True)
    machine = machine.as_recorded(run.result, but={key.removeprefix("trainer.") for key in hardware})
    machine.apply()
    collector, task = for_task(run.kind, COLLECTORS)(), run.task(machine.precision)
    machine.prepare(task.network)
    loader = data.evaluation_loader(split, machine.device)
    limit = settings.debug.limit_batches if own else None
    progress = Progress(f"{data.dataset.name}, {split}", min(len(loader), limit or len(loader)))
    trainer = pl.Trainer(
        **machine.trainer_arguments(),
        limit_test_batches=limit,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[collector, LambdaCallback(on_test_batch_end=lambda *_: progress.advance())],
    )
    with progress:
        trainer.test(task, dataloaders=loader, verbose=False)
    measured = trainer.callback_metrics.items()
    metrics = {k.removeprefix("test/"): finite_or_none(v) for k, v in measured if k.startswith("test/")}
    predicted = replace(collector.found["test"], split=split)
    same = own and data.digest == run.result["dataset_hash"] and split != "train" and not typed.keys() - PLACES
    split = "all" if takes_all else split
    return Evaluation(data, predicted, metrics, machine.device_name, machine.precision, same, split)


def _has_new_images_only(run: "TrainedRun", data: "ImageDataModule", typed: Mapping[str, Any]) -> bool:
    """Return whether images of the user's own, without splits, are others than those that the run learned from."""
    if not typed.keys() & {"data", "data.path"} or "data.test_fraction" in typed or data.dataset.val_labels is not None:
        return False
    path, before = getattr(data.source, "path", None), run.settings.data.path
    if path and before and Path(expand_home(path)).resolve() == Path(expand_home(before)).resolve():
        return False
    return bool(getattr(data.source, "holds_out", False)) and data.digest != run.result["dataset_hash"]


def compare(run: "TrainedRun", evaluation: Evaluation) -> list[str]:
    """Describe by how much the numbers differ from the run's own, one entry a difference; none where they are equal.

    Args:
        run: The run.
        evaluation: Of its own images.
    """
    from convolt.runs.files import PREDICTIONS

    split = evaluation.predicted.split
    own = {k.split("/")[1]: v for k, v in run.result["metrics"].items() if k.startswith(f"{split}/")}
    found = [
        f"{name} {_shown(evaluation.metrics[name], '.6g')} instead of {_shown(value, '.6g')}"
        for name, value in own.items()
        if name in evaluation.metrics and evaluation.metrics[name] != value
    ]
    file = run.folder / PREDICTIONS
    if split == "test" and file.is_file():
        found += evaluation.predicted.differences(file)
    return found


def write(run: "TrainedRun", evaluation: Evaluation, differences: list[str] | None) -> Path:
    """Write report, predictions and figures below the run's directory.

    Returns:
        The folder.
    """
    from convolt.figures.album import ALBUMS
    from convolt.metrics.class_report import report_csv
    from convolt.runs.files import PREDICTIONS
    from convolt.tasks.task import for_task

    data, predicted = evaluation.data, evaluation.predicted
    folder = run.folder / "evaluations" / slug(f"{data.dataset.name}_{evaluation.split}")
    trained = f"{run.settings.choice('model')} of {run.input_spec.dataset}, seed {run.settings.seed}"
    task = run.task()
    album = for_task(type(task), ALBUMS)(f"{trained}, on {data.dataset.name}", task.network, data, predicted, [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in album.evaluated:
            album.pictures(final=False)[name]().write(folder, name)
        predicted.save(folder / PREDICTIONS, data.indices[predicted.split])
        write_text(folder / "report.csv", report_csv(album.report))
        write_json(
            folder / "report.json",
            {
                "run": str(run.folder.resolve()),
                "dataset": data.dataset.name,
                "dataset_hash": data.digest,
                "split": evaluation.split,
                "skipped": list(data.dataset.skipped),
                "notes": list(data.dataset.notes),
                "metrics": evaluation.metrics,
                **album.report,
                "confusion_matrix": album.matrix.tolist(),
                "classes": list(data.classes),
                "device": evaluation.device,
                "precision": evaluation.precision,
                "equals_the_run": None if differences is None else not differences,
                "differences": differences or [],
            },
        )
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    return folder


def _show(console: Console, evaluation: Evaluation, report: Mapping[str, Any]) -> None:
    from convolt.metrics.class_report import averages, rates_of

    data, predicted = evaluation.data, evaluation.predicted
    # A class's accuracy is its recall.
    rates = [name for name in rates_of(dict(report)) if name != "accuracy"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    count = f"{len(predicted.targets):,}"
    table.title = f"{data.dataset.name}, " + (
        f"all {count} images" if evaluation.split == "all" else f"{count} {evaluation.split} images"
    )
    table.add_column("class", overflow="fold")
    for name in (*rates, "support"):
        table.add_column(name, justify="right")
    for place, row in enumerate([*report["per_class"], *averages(dict(report))]):
        if place == len(report["per_class"]):
            table.add_section()
        figures = [_shown(row[name], ".4f") for name in rates]
        table.add_row(str(row["class"]), *figures, f"{row['support']:,}")
    console.print(table)
    shown = ("mean_iou", "dice", "accuracy", "top5_accuracy", "loss", "calibration_error")
    names = [name for name in shown if name in evaluation.metrics]
    console.print("  ".join(f"{name} {_shown(evaluation.metrics[name], '.4f')}" for name in names))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@silence_libraries()
def _work(argv: Sequence[str]) -> int:
    parser = Parser("evaluate", USAGE)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="split=..., data=..., data.KEY=...")
    arguments = parser.parse(argv)
    read_overrides(arguments.overrides)  # mistakes are explained before torch is imported

    import json

    with fast_imports():
        from convolt.inference.trained import TrainedRun

    run = TrainedRun(arguments.run)
    evaluation = evaluate(run, arguments.overrides)
    differences = compare(run, evaluation) if evaluation.same else None
    folder = write(run, evaluation, differences)
    width: dict[str, Any] = {} if sys.stdout.isatty() or "COLUMNS" in os.environ else {"width": 100}
    console = Console(highlight=False, markup=False, soft_wrap=False, **width)
    _show(console, evaluation, json.loads((folder / "report.json").read_text(encoding="utf-8")))
    for line in evaluation.data.dataset.remarks:
        console.print(f"note: {line}", soft_wrap=True)
    if differences is not None:
        verdict = "equal to the run's own numbers, bit for bit"
        if differences:
            now, then = (
                f"{evaluation.device}, {evaluation.precision}",
                f"{run.result['device']}, {run.result['precision']}",
            )
            where = f" ({now} now, {then} then)" if now != then else ""
            verdict = f"differs from the run's own numbers{where}: {'; '.join(differences)}"
        console.print(verdict, soft_wrap=True)
    console.print(str(folder), soft_wrap=True)
    from convolt.figures import fonts

    lacking = fonts.missing_characters_note()
    if lacking:
        print(f"note: {lacking}", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 for a user's mistake.
    """
    return run_command(_work, argv)
