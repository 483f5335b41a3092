"""The images of `evaluate.py`: its overrides, and the data module that preprocesses images as a run does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf, open_dict

from convolt.config.check import check
from convolt.config.compose import compose, explain_hydra_error
from convolt.config.environment_values import resolve_environment_values
from convolt.config.overrides import format_override, key_of, parse_overrides
from convolt.config.settings import Settings
from convolt.errors import UserError, did_you_mean
from convolt.system.installation import CONF

if TYPE_CHECKING:
    from convolt.data.module import ImageDataModule
    from convolt.inference.trained import TrainedRun

HARDWARE = ("accelerator", "precision", "threads", "channels_last")


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Read overrides in Hydra's grammar: key to value, the last one of a key."""
    try:
        parsed = parse_overrides(overrides)
    except Exception as error:
        raise explain_hydra_error(error, CONF, overrides) from None
    known = ["split", "data", "data.root", "data.path", *(f"trainer.{name}" for name in HARDWARE)]
    values = {}
    for one in parsed:
        key = key_of(one)
        if key not in known and not key.startswith("data."):
            raise UserError(
                f"{key}: an evaluation takes split, data, data.* and trainer hardware{did_you_mean(key, known)}"
            )
        if one.is_delete() or one.is_sweep_override():
            raise UserError(f"{one.input_line}: an evaluation takes one value of each key")
        values[key] = one.value() if key != "data" else str(one.value())
    return values


def with_overrides(settings: Settings, typed: Mapping[str, Any]) -> Settings:
    """Return settings with other values, read and checked as on the command line of train.py."""
    cfg = settings.cfg.copy()
    for key, value in typed.items():
        OmegaConf.update(cfg, key, value)
    return check(resolve_environment_values(cfg))


def build_data(run: "TrainedRun", settings: Settings, typed: Mapping[str, Any]) -> tuple["ImageDataModule", bool]:
    """Build the data module with the run's preprocessing; return also whether it is of the run's own dataset."""
    from convolt.config.instantiate import build, target

    input_spec = run.input_spec
    typed = dict(typed)
    other = typed.pop("data", None)
    debug = settings.debug
    changes: dict[str, Any] = {"mean": list(input_spec.mean), "std": list(input_spec.std)}
    changes |= {"image_size": input_spec.image_size, "padding": input_spec.padding}
    if other is None:
        known = [f"data.{name}" for name in settings.cfg.data]
        for key in typed:
            if key not in known:
                raise UserError(f"{key}: there is no such key{did_you_mean(key, known)}")
        node = with_overrides(settings, typed).cfg.data
        if "path" in node and node.path is None:
            raise UserError("data.path=DIR is wanted: where the images lie")
        changes |= {} if debug.batch_size is None else {"batch_size": debug.batch_size}
    else:
        node = compose([f"data={other}", *(format_override(key, value) for key, value in typed.items())]).data
        node.source = OmegaConf.to_container(node.source, resolve=True)
        reading = {"image_size": input_spec.stored_size} | {
            name: getattr(input_spec, name) for name in ("channels", "resize", "white")
        }
        node.source.update({k: v for k, v in reading.items() if k in node.source and f"data.{k}" not in typed})
        batch_size = debug.batch_size or settings.data.batch_size
        changes |= {
            "eval_batch_size": settings.data.eval_batch_size or max(batch_size, 256),
            "root": typed.get("data.root", settings.data.root),
            "train_size": typed.get("data.train_size"),
            "label_noise": typed.get("data.label_noise", 0.0),
        }
    with open_dict(node):
        node.update(changes)
    make = build(node, "data", known_only=True, _partial_=True)
    data: ImageDataModule = make(seed=settings.seed, overfit_images=debug.overfit_images if other is None else None)
    data.setup()
    if type(data) is not target(settings.cfg.data, "data"):
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
