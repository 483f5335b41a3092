"""Which images `evaluate.py` means: overrides read, and the data module that takes images as a run does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.config.compose import CONF, compose, explain_hydra_error
from convolt.config.environment_values import resolve_environment_values
from convolt.config.overrides import format_override, key_of, parse_overrides
from convolt.config.schema import check
from convolt.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from convolt.data.module import ImageDataModule
    from convolt.inference.trained import TrainedRun

HARDWARE = ("accelerator", "precision", "threads", "channels_last")


def typed_keys_without_places(overrides: Sequence[str], prefix: str = "") -> set[str]:
    """Return the keys that were typed, but for where the data lie."""
    keys = {key_of(each) for each in parse_overrides(overrides)}
    return {key for key in keys if key.startswith(prefix) and key not in ("data.root", "data.path", "data.device")}


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Read overrides in Hydra's grammar: key to value, the last one of a key."""
    try:
        read = parse_overrides(overrides)
    except Exception as error:
        raise explain_hydra_error(error, CONF, overrides) from None
    known = ["split", "data", "data.root", "data.path", *(f"trainer.{name}" for name in HARDWARE)]
    values = {}
    for one in read:
        key = key_of(one)
        if key not in known and not key.startswith("data."):
            raise UserError(
                f"{key}: evaluate.py takes split, data, data.* and trainer hardware{did_you_mean(key, known)}"
            )
        if one.is_delete() or one.is_sweep_override():
            raise UserError(f"{one.input_line}: evaluate.py takes one value of each key")
        values[key] = one.value() if key != "data" else str(one.value())
    return values


def images_for(run: "TrainedRun", cfg: DictConfig, typed: Mapping[str, Any]) -> tuple["ImageDataModule", bool]:
    """Build the data module with the run's preprocessing; tell whether it is of the run's own dataset."""
    from convolt.config.instantiate import build, target

    input_spec = run.input_spec
    settings = dict(typed)
    other = settings.pop("data", None)
    if other is None:
        known = [f"data.{name}" for name in cfg.data]
        for key, value in settings.items():
            if key not in known:
                raise UserError(f"{key}: there is no such key{did_you_mean(key, known)}")
            OmegaConf.update(cfg, key, value)
        check(resolve_environment_values(cfg))
        node = cfg.data
        if "path" in node and node.path is None:
            raise UserError("data.path=DIR is wanted: where the images lie")
    else:
        batch_size = cfg.debug.batch_size or cfg.data.batch_size
        root = cfg.data.root
        node = compose([f"data={other}", *(format_override(key, value) for key, value in settings.items())]).data
        with open_dict(node):
            node.source = OmegaConf.to_container(node.source, resolve=True)
            for name, value in (
                ("image_size", input_spec.stored_size),
                ("channels", input_spec.channels),
                ("resize", input_spec.resize),
                ("white", input_spec.white),
            ):
                if name in node.source and f"data.{name}" not in settings:
                    node.source[name] = value
            node.eval_batch_size = cfg.data.eval_batch_size or max(batch_size, 256)
            node.root = settings.get("data.root", root)
    with open_dict(node):
        node.mean, node.std = list(input_spec.mean), list(input_spec.std)
        node.image_size, node.padding = input_spec.image_size, input_spec.padding
        if other is None and cfg.debug.batch_size is not None:
            node.batch_size = cfg.debug.batch_size
        if other is not None:
            node.train_size, node.label_noise = settings.get("data.train_size"), settings.get("data.label_noise", 0.0)
    make = build(node, "data", known_only=True, _partial_=True)
    data: ImageDataModule = make(seed=cfg.seed, overfit_images=cfg.debug.overfit_images if other is None else None)
    data.setup()
    if type(data) is not target(run.cfg.data, "data"):
        raise UserError(
            f"{data.dataset.name} has labels of another kind than what the network was trained on: {input_spec.dataset}"
        )
    if data.channels != input_spec.channels:
        raise UserError(
            f"{data.dataset.name} has {data.channels} channels, but the network takes {input_spec.channels}"
        )
    if data.dataset.train_images.shape[1] != input_spec.stored_size:
        data.padding = 0
    data.renumber_classes(input_spec.classes)
    return data, other is None
