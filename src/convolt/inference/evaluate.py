"""A trained network on the images of a split: the classification report.

  python evaluate.py RUN_DIR                           the run's own test images; its numbers come out again
  python evaluate.py RUN_DIR split=val                 its validation images; or train, without augmentation
  python evaluate.py RUN_DIR data.root=/elsewhere      where the prepared datasets lie
  python evaluate.py RUN_DIR data=fashion_mnist        another dataset with classes of the same names
  python evaluate.py RUN_DIR data=folder data.path=DIR all images of DIR/<class>, or those of DIR/test/<class>
  python evaluate.py RUN_DIR trainer.accelerator=cpu   on other hardware; trainer.precision, trainer.threads likewise

Overrides are those of training, as far as they say which images and on what; the network, its weights and how it takes
images (size, padding, mean and standard deviation of its training images) are the run's. Images of another stored size
than the run's are resized to the network's input without a border. Writes to RUN_DIR/evaluations/<data>_<split>/.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from convolt.config.compose import slug
from convolt.errors import UserError, did_you_mean
from convolt.inference.evaluation_images import build_data, read_overrides, with_overrides
from convolt.system.arguments import Parser, run_command
from convolt.system.files import expand_home, write_json, write_text
from convolt.system.imports import fast_imports
from convolt.system.progress import Progress
from convolt.system.terminal import silence_libraries, table_width

if TYPE_CHECKING:
    from convolt.data.module import ImageDataModule
    from convolt.inference.trained import TrainedRun

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
        of_own_images: Whether these are images that the run's result has numbers of.
        split: train, val or test; or all, for all images of a dataset without test images of its own.
    """

    data: "ImageDataModule"
    predicted: Any
    metrics: dict[str, float | None]
    device: str
    precision: str
    of_own_images: bool
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
    split_is_typed, split = "split" in typed, typed.pop("split", "test")
    if split not in SPLITS:
        raise UserError(f"split={split} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    hardware = {key: typed.pop(key) for key in list(typed) if key.startswith("trainer.")}
    settings = with_overrides(run.completed_settings(), hardware)
    data, is_own_dataset = build_data(run, settings, typed)
    takes_all = not split_is_typed and _has_new_images_only(run, data, typed)
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
    limit = settings.debug.limit_batches if is_own_dataset else None
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
    is_equal = is_own_dataset and data.digest == run.result["dataset_hash"]
    measured_before = any(name.startswith(f"{split}/") for name in run.result["metrics"])  # not by trainer.test=none
    of_own_images = is_equal and measured_before and split != "train" and not typed.keys() - PLACES
    split = "all" if takes_all else split
    return Evaluation(data, predicted, metrics, machine.device_name, machine.precision, of_own_images, split)


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

    split, metrics = evaluation.predicted.split, evaluation.metrics
    recorded = {k.split("/")[1]: v for k, v in run.result["metrics"].items() if k.startswith(f"{split}/")}
    differences = [
        f"{name} {_format_number(metrics[name], '.6g')} instead of {_format_number(value, '.6g')}"
        for name, value in recorded.items()
        if name in metrics and metrics[name] != value
    ]
    file = run.folder / PREDICTIONS
    if split == "test" and file.is_file():
        differences += evaluation.predicted.differences(file)
    return differences


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
        for name in album.evaluation_pictures:
            album.pictures(final=False)[name]().write(folder, name)
        predicted.save(folder / PREDICTIONS, data.indices[predicted.split])
        write_text(folder / "report.csv", report_csv(album.class_report))
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
                **album.class_report,
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


def _show(console: Console, evaluation: Evaluation, report: dict[str, Any]) -> None:
    from convolt.metrics.class_report import average_rows, rate_names

    rates = [name for name in rate_names(report) if name != "accuracy"]  # a class's accuracy is its recall
    count = f"{len(evaluation.predicted.targets):,}"
    images = f"all {count} images" if evaluation.split == "all" else f"{count} {evaluation.split} images"
    table = Table(
        Column("class", overflow="fold"),
        *(Column(name, justify="right") for name in (*rates, "support")),
        title=f"{evaluation.data.dataset.name}, {images}",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        title_style="bold",
    )
    for rows in (report["per_class"], average_rows(report)):
        for row in rows:
            numbers = [_format_number(row[name], ".4f") for name in rates]
            table.add_row(str(row["class"]), *numbers, f"{row['support']:,}")
        table.add_section()
    console.print(table)
    metrics = evaluation.metrics
    order = ("mean_iou", "dice", "accuracy", "top5_accuracy", "loss", "calibration_error")
    console.print("  ".join(f"{name} {_format_number(metrics[name], '.4f')}" for name in order if name in metrics))


def _format_number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@silence_libraries()
def _work(argv: Sequence[str]) -> int:
    parser = Parser("evaluate", __doc__ or "")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="split=..., data=..., data.KEY=...")
    arguments = parser.parse(argv)
    read_overrides(arguments.overrides)  # mistakes are explained before torch is imported

    import json

    with fast_imports():
        from convolt.inference.trained import TrainedRun

    run = TrainedRun(arguments.run)
    evaluation = evaluate(run, arguments.overrides)
    differences = compare(run, evaluation) if evaluation.of_own_images else None
    folder = write(run, evaluation, differences)
    console = Console(highlight=False, markup=False, soft_wrap=False, width=table_width())
    _show(console, evaluation, json.loads((folder / "report.json").read_text(encoding="utf-8")))
    for line in evaluation.data.dataset.remarks:
        console.print(f"note: {line}", soft_wrap=True)
    if differences is not None:
        verdict = "equal to the run's own numbers, bit for bit"
        if differences:
            now = f"{evaluation.device}, {evaluation.precision}"
            then = f"{run.result['device']}, {run.result['precision']}"
            where = f" ({now} now, {then} then)" if now != then else ""
            verdict = f"differs from the run's own numbers{where}: {'; '.join(differences)}"
        console.print(verdict, soft_wrap=True)
    console.print(str(folder), soft_wrap=True)
    from convolt.figures import fonts

    if note := fonts.missing_characters_note():
        print(f"note: {note}", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 for a user's mistake.
    """
    return run_command(_work, argv)
