"""What may change when a run is resumed (`resume=RUN_DIR KEY=VALUE`): more epochs, moved images, other devices.

A run may be given other epochs where a run of so many would have done the same so far, and ends with the bits of that.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from convolt.config.check import check
from convolt.config.instantiate import build
from convolt.config.overrides import format_override, override_values
from convolt.config.settings import Settings
from convolt.config.starting_weights import DIVERGED, explain_pruned
from convolt.errors import UserError, did_you_mean
from convolt.runs.config_hash import config_hash
from convolt.runs.files import Change, RunFiles
from convolt.runs.stored_settings import stored_settings
from convolt.system.imports import fast_imports
from convolt.system.installation import command_name

IMAGE_PLACES = ("data.root", "data.path")
"""Where the images are; these keys may be given with `resume` and `rerun`."""

RESUME_KEYS = ("trainer.max_epochs", "trainer.devices", *IMAGE_PLACES)
"""Keys that may be given with `resume`."""

_STEPS = 20
"""Steps of an epoch in which two schedules are compared."""


def read_changes(what: str, arguments: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Read what stands on the command line beside `resume` or `rerun`.

    Args:
        what: Begins the message of an error: `resume=RUN_DIR ...` or `rerun=RUN_DIR ...`.
        arguments: The whole command line.
        keys: Those that may stand there.

    Raises:
        UserError: Where another key stands there, or a value cannot be read.
    """
    typed: dict[str, Any] = {}
    for text in arguments:
        key = text.partition("=")[0]
        if key == what.partition("=")[0]:
            continue
        if key not in keys:
            raise UserError(
                f"{text}: {what} with the settings in the directory and takes no others but {', '.join(keys)}"
                f"{did_you_mean(key, keys)}"
            )
        try:
            typed |= override_values([text])
        except HydraException:
            raise UserError(f"{text}: the value cannot be read") from None
        if typed[key] in ("", None):
            raise UserError(f"{text}: a value is missing")
    return typed


def resumed_settings(directory: Path, arguments: Sequence[str]) -> tuple[DictConfig, Change | None]:
    """Return the settings with which a run is resumed, and what they change of those that it had so far.

    Args:
        directory: The run's.
        arguments: The whole command line.

    Returns:
        The settings, checked; None where nothing changes that could change a number.

    Raises:
        UserError: When there is no run, or it cannot be resumed with these.
    """
    typed = read_changes("resume=RUN_DIR resumes", arguments, RESUME_KEYS)
    before = stored_settings(directory, "resume")
    before.force = False  # it was to start over once, and not each time that it is resumed
    old = config_hash(before)
    files = RunFiles(directory)
    if files.status().get("config_hash", old) not in files.hashes(old):
        raise UserError(
            f"resume={directory}: .hydra/config.yaml has changed since the run began; restore it, or start another run"
        )
    now = with_images_at(before, {key: value for key, value in typed.items() if key in IMAGE_PLACES})
    if "trainer.devices" in typed:
        hash_so_far = config_hash(now)
        OmegaConf.update(now, "trainer.devices", typed["trainer.devices"])
        check(now)
        if config_hash(now) != hash_so_far:
            raise UserError(
                f"trainer.devices={typed['trainer.devices']}: trainer.batch_per=device makes other batches of it; "
                f"leave it out, or start another run"
            )
    if "trainer.max_epochs" in typed:
        _set(now, "trainer.max_epochs", typed["trainer.max_epochs"])
    settings = check(now)
    if config_hash(now) == old:
        return now, None
    after_epoch = _check_change(files, Settings.of(before), settings)
    pairs = {key: [OmegaConf.select(cfg, key) for cfg in (before, now)] for key in ("trainer.max_epochs", "data.path")}
    changes = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    return now, {"config_hash": old, "to": config_hash(now), "changes": changes, "after_epoch": after_epoch}


def with_images_at(cfg: DictConfig, places: dict[str, str]) -> DictConfig:
    """Return a copy of a run's settings with its images elsewhere.

    Raises:
        UserError: When its dataset has no such place.
    """
    cfg = cfg.copy()
    for key, place in places.items():
        if OmegaConf.select(cfg, key) is None:
            raise UserError(f"{key}={place}: data={cfg.choices.get('data', '')} is found by data.root alone")
        _set(cfg, key, place)
    return cfg


def _set(cfg: DictConfig, key: str, value: Any) -> None:
    """Set a key, also among the overrides by which reports name a run."""
    OmegaConf.update(cfg, key, value)
    others = [text for text in cfg.overrides if text.lstrip("+").partition("=")[0] != key]
    cfg.overrides = [*others, format_override(key, value)]


def _check_change(files: RunFiles, before: Settings, now: Settings) -> int:
    """Check that a run may be resumed with changed settings; return the number of epochs that it was trained."""
    directory, trained = files.path, files.epochs_trained()
    result = files.result(config_hash(before.cfg))
    if result.get("diverged"):
        raise UserError(f"resume={directory}: {DIVERGED}")
    if not trained and (pruned := explain_pruned(directory, directory, "none", "best")):
        raise UserError(f"resume={directory}: {pruned}")
    if not trained:
        raise UserError(f"resume={directory}: no epoch has been completed; start a run with these settings instead")
    epochs, planned = now.trainer.max_epochs, before.trainer.max_epochs
    if epochs == planned:
        if result:
            raise UserError(
                f"resume={directory}: the run has finished; {command_name('evaluate')} {directory} data.path=... "
                "measures it where its images are now"
            )
        return trained
    typed = f"resume={directory} trainer.max_epochs={epochs}"
    study = next((folder for folder in directory.resolve().parents[:3] if (folder / "study.json").is_file()), None)
    if study:
        raise UserError(
            f"{typed}: the run is one of the study {study.name}, whose other runs have {planned} epochs; copy it out "
            "of the study's folder, or run the study with trainer.max_epochs"
        )
    if before.debug.epochs is not None or before.debug.max_epochs is not None:
        raise UserError(f"{typed}: debug={before.choice('debug')} sets the number of epochs of this run")
    if epochs < trained:
        raise UserError(f"{typed}: {trained} epochs are trained already")
    if result.get("epochs", planned) < planned or _stopped_early(files.epoch_checkpoint(trained)):
        raise UserError(
            f"{typed}: early stopping ended this run after epoch {trained}, and would end one of {epochs} "
            "there too; start another run with a larger trainer.early_stopping.patience"
        )
    _check_schedule(typed, directory, before, now, trained)
    return trained


def _stopped_early(checkpoint: Path) -> bool:
    """Tell whether early stopping ended a run with this checkpoint, which may have been its last anyway."""
    with fast_imports():
        import torch

    try:
        callbacks = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["callbacks"]
    except Exception:  # damaged or missing, which is reported when the run is resumed
        return False
    return any(state.get("stopped_epoch") for name, state in callbacks.items() if name.startswith("StopEarly"))


def _check_schedule(typed: str, directory: Path, before: Settings, now: Settings, trained: int) -> None:
    """Refuse other epochs where the learning rates so far would have been others."""
    epochs = now.trainer.max_epochs
    (rates, state), (others, other_state) = (_rates(settings, trained) for settings in (before, now))
    if rates == others and state == other_state:
        return
    step = max(range(len(rates)), key=lambda step: abs(rates[step][0] - others[step][0]))
    why = "keeps the number of epochs"
    if rates != others:
        had, has = rates[step][0], others[step][0]
        why = f"had a learning rate of {had:.4g} after {step / _STEPS:g} epochs, where one of {epochs} has {has:.4g}"
    raise UserError(
        f"{typed}: with scheduler={before.choice('scheduler')} this run {why}; start a run of "
        f"{epochs} epochs instead, with init_from={directory} where it is to begin from these weights"
    )


def _rates(settings: Settings, epochs: int) -> tuple[list[tuple[float, float]], list[Any]]:
    """Return learning rate and momentum at each step of the first epochs, and the state of the schedules after them."""
    import torch
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.optim.lr, momentum=0.9)
    schedules = build(settings.cfg.scheduler, "scheduler")(optimizer, settings.trainer.max_epochs, _STEPS)
    timed = [each for each in schedules if not isinstance(each["scheduler"], ReduceLROnPlateau)]
    group = optimizer.param_groups[0]
    rates = [(group["lr"], group["momentum"])]
    for step in range(1, epochs * _STEPS + 1):
        optimizer.step()
        for each in timed:
            if each.get("interval") == "step" or step % _STEPS == 0:
                each["scheduler"].step()
        rates.append((group["lr"], group["momentum"]))
    return rates, [each["scheduler"].state_dict() for each in schedules]
