"""`init_from=RUN_DIR`: a run that starts from the tested weights of another one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolt.config.check import NETWORK_KEYS
from convolt.config.settings import Settings, StartingWeights
from convolt.errors import UserError, some
from convolt.runs.files import RunFiles, read_index

if TYPE_CHECKING:
    from torch import nn

PREFIX = "network."
"""Of the network's tensors in a task's state."""


def start(settings: Settings, network: "nn.Module", names: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Put the weights that the settings start from into a network; all of them but a head for other classes.

    Args:
        settings: The run's, with what was left to the data filled in.
        network: Takes them; a head of another size stays as it was initialized.
        names: Of the classes, in the order of the logits.
        say: Told what was taken.

    Returns:
        What result and checkpoints hold of it: below `init_from`, `run`, `checkpoint`, `sha256`, and `left_new`, the
        names of the tensors that were not taken; empty where the settings name no weights.

    Raises:
        UserError: When the weights are no longer there, or are of another network: names the first that does not fit.
    """
    source = settings.init_from
    if source is None:
        return {}
    assert isinstance(source, StartingWeights)  # since the config was composed
    weights, before = _read(source)
    classes = len(before)
    own = network.state_dict()
    head: dict[str, tuple[int, ...]] = {}
    if classes not in (0, settings.data.num_classes) and any(_differs(own, weights, name) for name in own):
        head = _head(settings, own, classes)
    for name in [*own, *(name for name in weights if name not in own)]:
        if _differs(own, weights, name) and (name not in weights or head.get(name) != tuple(weights[name].shape)):
            raise UserError(
                f"init_from={source.run}: its network is another one: {name} is {_shape(weights, name)} there and "
                f"{_shape(own, name)} here"
            )
    left = [name for name in own if _differs(own, weights, name)]
    network.load_state_dict({name: own[name] if name in left else weights[name] for name in own})
    head_told = f"; new, for {settings.data.num_classes} classes and not {classes}: {', '.join(left)}" if left else ""
    if not left and before and list(names) != before:
        head_told = f"; the head too, though its classes are {some(before)} there and {some(names)} here"
    say(f"starts from the weights of {source.run}{head_told}")
    return {"init_from": {**source.model_dump(), "left_new": left}}


def origin(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `start` did, from the facts of the checkpoint from which a run is resumed."""
    return {key: value for key, value in facts.items() if key == "init_from"}


def _read(source: StartingWeights) -> tuple[dict[str, Any], list[str]]:
    """Return the network's tensors by name, and the classes that it tells apart; none where nothing says it."""
    from convolt.runs.checkpoints import intact_epochs, read_weights

    files = RunFiles(Path(source.run))
    path = files.checkpoints / source.checkpoint
    if intact_epochs(path) is None or read_index(files.checkpoints)[path.name]["sha256"] != source.sha256:
        raise UserError(
            f"init_from={source.run}: checkpoints/{path.name} is damaged, missing or no longer what it was: restore "
            "it, or type the command again with init_from=WHERE_IT_IS"
        )
    state = read_weights(path)
    classes = files.preprocessing().get("classes", [])
    return {name.removeprefix(PREFIX): each for name, each in state.items() if name.startswith(PREFIX)}, classes


def _head(settings: Settings, own: dict[str, Any], classes: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors whose shape depends on the number of classes, with their shapes for another number."""
    import torch

    from convolt.config.instantiate import build

    other = settings.replaced({"data.num_classes": classes, "model.num_classes": classes})
    with torch.random.fork_rng(devices=[]):
        state = build(other.cfg.model, "model", optional=NETWORK_KEYS).state_dict()
    return {name: tuple(each.shape) for name, each in state.items() if name in own and each.shape != own[name].shape}


def _differs(own: dict[str, Any], weights: dict[str, Any], name: str) -> bool:
    return name not in own or name not in weights or own[name].shape != weights[name].shape


def _shape(tensors: dict[str, Any], name: str) -> str:
    return "x".join(map(str, tensors[name].shape)) or "a number" if name in tensors else "not"
