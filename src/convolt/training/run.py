"""One run, from its settings to its result."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from convolt.config.check import refuse_validation_monitors
from convolt.config.settings import Settings
from convolt.errors import DivergedError, UserError
from convolt.runs.changes import describe_change
from convolt.runs.checkpoints import BEST, load_weights
from convolt.runs.directory import RunDirectory
from convolt.runs.files import PREDICTIONS, PREPROCESSING, Change
from convolt.system.allocation import retain_freed_memory
from convolt.system.files import write_json
from convolt.system.notebook import in_notebook
from convolt.system.signals import interrupt_on_signals
from convolt.system.terminal import ignore_output_errors, silence_libraries
from convolt.tasks.task import Task
from convolt.training import build, ddp, init_from, resume
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints
from convolt.training.callbacks.notebook_screen import NotebookScreen
from convolt.training.callbacks.pictures import Pictures
from convolt.training.callbacks.recorder import Recorder
from convolt.training.callbacks.screen import Screen
from convolt.training.callbacks.validated_weights import ValidatedWeights
from convolt.training.compilation import should_compile
from convolt.training.failures import explain_failures
from convolt.training.machine import Machine
from convolt.training.overview import describe_experiment
from convolt.training.result import describe_divergence, gather_result, hyperparameters
from convolt.training.trackers.tracker import trackers_among, tracking
from convolt.training.trainer import callback, make_trainer


def run(
    cfg: DictConfig, run_dir: Path | str, batch_size: int | None = None, change: Change | None = None
) -> dict[str, Any]:
    """Train a network as the settings say, test it once (or not at all, as trials), and write down everything.

    A directory with the result of the same settings stays unchanged; a run that was cut off is resumed from its last
    checkpoint; one of other settings is moved aside.

    Args:
        cfg: The settings, checked (`convolt.config.check.check`).
        run_dir: The run's directory; all that a run leaves is below it.
        batch_size: What `trainer.find_batch_size` found before, where it is not to search again.
        change: What the settings change of those that the run had so far; see `convolt.training.extend`.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: When the settings cannot be run, or the directory cannot be used.
        RunError: When the run failed for a reason that a line explains: no memory, no disk, an infinite loss.
    """
    rank = ddp.process_rank()
    directory = RunDirectory(Path(run_dir), cfg, change)
    run_dir, settings = directory.path, directory.settings
    screen = NotebookScreen() if in_notebook() else Screen()
    with ignore_output_errors(), directory, interrupt_on_signals(), silence_libraries():
        finished = directory.result(directory.hash)
        if finished and not settings.force:
            directory.mark_finished(finished)
            screen.say(f"finished before with the same settings: {run_dir}; force=true runs it again")
            return finished
        machine = Machine.of(settings.trainer, rank)
        with explain_failures("training", settings, run_dir, machine):
            aside = directory.move_aside(force=settings.force)
            if aside:
                screen.say(f"what was in {run_dir} is of other settings, or forced to run again: moved to {aside.name}")
            with ExitStack() as tracked:  # trackers are waited for when the result is written
                try:
                    with ddp.ddp_workers(directory, batch_size, machine):
                        result = _train_and_test(machine, directory, screen, batch_size, tracked)
                except UserError:
                    if aside and directory.move_back(aside):
                        screen.say(f"moved back from {aside.name}: nothing has begun")
                    raise
                result = directory.finish(result)
        screen.result(result, run_dir)
        return result


def run_ddp_worker(cfg: DictConfig, run_dir: Path, batch_size: int | None = None, change: Change | None = None) -> None:
    """Train as one of the further processes of a run, which write nothing; see `convolt.training.ddp`.

    Args:
        cfg: The settings of the run.
        run_dir: Its directory, held by the first process.
        batch_size: See `run`.
        change: See `run`.
    """
    directory = RunDirectory(run_dir, cfg, change)
    machine = Machine.of(directory.settings.trainer, ddp.process_rank())
    with silence_libraries(), ExitStack() as tracked:
        _train_and_test(machine, directory, Screen(shown=False), batch_size, tracked)


def _train_and_test(
    machine: Machine, directory: RunDirectory, screen: Screen, batch_size: int | None, tracked: ExitStack
) -> dict[str, Any]:
    """Build data, network and task, train, and test the chosen checkpoint.

    Args:
        machine: What the run computes on.
        directory: The run's.
        screen: Shows what happens.
        batch_size: See `run`.
        tracked: Tells the trackers, when it closes, that the run has ended.
    """
    first = machine.rank == 0
    with explain_failures("preparation", directory.settings, directory.path, machine):
        data, settings = build.make_data(directory.settings)
    network, summary = build.make_network(settings, data)
    experiment = build.Experiment(settings, machine, data, network, summary)
    if not experiment.validates:
        refuse_validation_monitors(settings)

    checkpoint = resume.find_checkpoint(
        directory, needs_best=settings.trainer.test != "last", say=screen.say, tidy=first
    )
    if checkpoint:
        origin = init_from.origin(checkpoint.facts)
        batch_size = checkpoint.facts.get("batch_size")
    else:
        origin = init_from.start(settings, network, data.classes, screen.say)
    machine.apply()
    build.set_batch_size(experiment, batch_size)
    settings = experiment.settings
    compiled_before = bool(checkpoint and checkpoint.facts.get("compiled"))
    experiment.compiled = should_compile(settings.trainer.compile, machine.device.type, resumed=compiled_before)
    facts = experiment.facts(directory.hash) | origin
    if checkpoint:
        resume.check_resumable(checkpoint, facts, screen.say)

    pictures = build.make_pictures(experiment, directory, screen)
    trainer = make_trainer(
        experiment,
        directory,
        screen,
        pictures=[pictures.collector, pictures],
        own_callbacks=build.make_callbacks(settings),
        epochs_done=checkpoint.epochs if checkpoint else 0,
        facts=facts,
    )
    task = build.make_task(experiment)
    if first:
        directory.begin()
        write_json(directory.path / PREPROCESSING, experiment.preprocessing())
    screen.settings(describe_experiment(experiment), data.dataset.remarks)
    if settings.summary:
        screen.layers(summary)
    if checkpoint:
        screen.say(f"resumes after epoch {checkpoint.epochs}{describe_change(directory.change)}")
        if first:
            resume.restore_best(directory.checkpoints, checkpoint)

    tracked.enter_context(tracking(trainer.loggers))
    with explain_failures("training", settings, directory.path, machine), retain_freed_memory():
        diverged = _fit(trainer, task, experiment, checkpoint.path if checkpoint else None)
    if diverged:
        data.verify_unchanged()
        return gather_result(experiment, trainer, task, None, None) | origin | describe_divergence(diverged)
    return _test(experiment, directory, trainer, task, pictures) | origin


def _fit(
    trainer: pl.Trainer, task: Task, experiment: build.Experiment, checkpoint: Path | None
) -> DivergedError | None:
    """Train; return the error by which a run that never tests ends as the worst of results, and not as a failure."""
    try:
        trainer.fit(task, datamodule=experiment.data, ckpt_path=checkpoint)
    except DivergedError as error:
        if experiment.settings.tests:
            raise
        return error
    return None


def _test(
    experiment: build.Experiment, directory: RunDirectory, trainer: pl.Trainer, task: Task, pictures: Pictures
) -> dict[str, Any]:
    """Choose the checkpoint, test it unless the run never tests, and gather and draw what was measured."""
    settings, data = experiment.settings, experiment.data
    tested_epoch, which = _choose_checkpoint(settings, trainer)
    if settings.tests:
        _load_tested_weights(directory, trainer, task, tested_epoch, which)
        with explain_failures("evaluation", settings, directory.path, experiment.machine):
            trainer.test(task, datamodule=data, verbose=False)
    data.verify_unchanged()

    result = gather_result(experiment, trainer, task, tested_epoch, which)
    if experiment.machine.rank == 0:
        if settings.tests:
            pictures.collector.found["test"].save(directory.path / PREDICTIONS, data.indices["test"])
            result["pictures_seconds"] = pictures.finish(trainer, task, tested_epoch)
        split = "test/" if settings.tests else "val/"
        compared = {name: value for name, value in result["metrics"].items() if name.startswith(split)}
        for tracker in trackers_among(trainer.loggers):
            tracker.log_result(hyperparameters(settings), compared, tested_epoch)
    return result


def _choose_checkpoint(settings: Settings, trainer: pl.Trainer) -> tuple[int, str]:
    """Return the epoch of the checkpoint that is tested, or would be, and which it is: best or last."""
    best_epoch = callback(trainer, KeepCheckpoints).best_epoch
    if settings.trainer.test != "last" and best_epoch is not None:
        return best_epoch + 1, "best"
    return len(callback(trainer, Recorder).rows), "last"


def _load_tested_weights(directory: RunDirectory, trainer: pl.Trainer, task: Task, epoch: int, which: str) -> None:
    """Put the weights that are tested into the task."""
    settings = directory.settings
    path = directory.checkpoints / BEST if which == "best" else directory.epoch_checkpoint(epoch)
    if which == "best" or settings.callbacks:  # what a user's callback leaves is not always what was validated
        load_weights(task, path, epoch)
    if settings.callbacks:
        callback(trainer, ValidatedWeights).remember_tested(task)
