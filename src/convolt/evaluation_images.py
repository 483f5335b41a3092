"""Which images `evaluate.py` means: overrides read, and the data module that takes images as a run does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.composition import CONF, compose, explained
from convolt.config import check
from convolt.environment_values import settle
from convolt.errors import UserError, near
from convolt.overrides import key_of, parsed, written

if TYPE_CHECKING:
    from convolt.data.module import ImageDataModule
    from convolt.trained import TrainedRun

HARDWARE = ("accelerator", "precision", "threads", "channels_last")


def typed_keys_without_places(overrides: Sequence[str], prefix: str = "") -> set[str]:
    """Return the keys that were typed, but for where the data lie."""
    keys = {key_of(each) for each in parsed(overrides)}
    return {key for key in keys if key.startswith(prefix) and key not in ("data.root", "data.path", "data.device")}


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Read overrides in Hydra's grammar: key to value, the last one of a key."""
    try:
        read = parsed(overrides)
    except Exception as error:
        raise explained(error, CONF, overrides) from None
    known = ["split", "data", "data.root", "data.path", *(f"trainer.{name}" for name in HARDWARE)]
    values = {}
    for one in read:
        key = key_of(one)
        if key not in known and not key.startswith("data."):
            raise UserError(f"{key}: evaluate.py takes split, data, data.* and trainer hardware{near(key, known)}")
        if one.is_delete() or one.is_sweep_override():
            raise UserError(f"{one.input_line}: evaluate.py takes one value of each key")
        values[key] = one.value() if key != "data" else str(one.value())
    return values


def images_for(run: "TrainedRun", cfg: DictConfig, typed: Mapping[str, Any]) -> tuple["ImageDataModule", bool]:
    """Build the data module with the run's preprocessing; tell whether it is of the run's own dataset."""
    from convolt.instantiate import build, target

    taken = run.taken
    settings = dict(typed)
    other = settings.pop("data", None)
    if other is None:
        known = [f"data.{name}" for name in cfg.data]
        for key, value in settings.items():
            if key not in known:
                raise UserError(f"{key}: there is no such key{near(key, known)}")
            OmegaConf.update(cfg, key, value)
        check(settle(cfg))
        node = cfg.data
        if "path" in node and node.path is None:
            raise UserError("data.path=DIR is wanted: where the images lie")
    else:
        batch_size = cfg.debug.batch_size or cfg.data.batch_size
        root = cfg.data.root
        node = compose([f"data={other}", *(written(key, value) for key, value in settings.items())]).data
        with open_dict(node):
            node.source = OmegaConf.to_container(node.source, resolve=True)
            for name, value in (
                ("image_size", taken.stored_size),
                ("channels", taken.channels),
                ("resize", taken.resize),
                ("white", taken.white),
            ):
                if name in node.source and f"data.{name}" not in settings:
                    node.source[name] = value
            node.eval_batch_size = cfg.data.eval_batch_size or max(batch_size, 256)
            node.root = settings.get("data.root", root)
    with open_dict(node):
        node.mean, node.std = list(taken.mean), list(taken.std)
        node.image_size, node.padding = taken.image_size, taken.padding
        if other is None and cfg.debug.batch_size is not None:
            node.batch_size = cfg.debug.batch_size
        if other is not None:
            node.train_size, node.label_noise = settings.get("data.train_size"), settings.get("data.label_noise", 0.0)
    make = build(node, "data", known_only=True, _partial_=True)
    data: ImageDataModule = make(seed=cfg.seed, overfit_images=cfg.debug.overfit_images if other is None else None)
    data.setup()
    if type(data) is not target(run.cfg.data, "data"):
        raise UserError(
            f"{data.dataset.name} has labels of another kind than what the network was trained on: {taken.dataset}"
        )
    if data.channels != taken.channels:
        raise UserError(f"{data.dataset.name} has {data.channels} channels, but the network takes {taken.channels}")
    if data.dataset.train_images.shape[1] != taken.stored_size:
        data.padding = 0
    data.number_classes_as(taken.classes)
    return data, other is None
