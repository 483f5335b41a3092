"""`init_from=RUN_DIR`: a run that starts from the tested weights of another one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolt.config.check import NETWORK_KEYS
from convolt.config.settings import Settings, StartingWeights
from convolt.config.starting_weights import explain_pruned
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
        say: Shows a line to the user: what was loaded.

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
    initial = network.state_dict()
    here, there = _shapes(initial), _shapes(weights)
    differing = [name for name in here | there if here.get(name) != there.get(name)]
    head = _head_shapes(settings, here, classes) if differing and classes not in (0, settings.data.num_classes) else {}
    for name in differing:
        if name not in there or head.get(name) != there[name]:
            raise UserError(
                f"init_from={source.run}: its network is another one: {name} is {_format_shape(there.get(name))} there "
                f"and {_format_shape(here.get(name))} here"
            )
    network.load_state_dict(weights | {name: initial[name] for name in differing})
    note = f"; new, for {settings.data.num_classes} classes and not {classes}: {', '.join(differing)}"
    if not differing:
        same = not before or list(names) == before
        note = "" if same else f"; the head too, though its classes are {some(before)} there and {some(names)} here"
    say(f"starts from the weights of {source.run}{note}")
    return {"init_from": {**source.model_dump(), "left_new": differing}}


def origin(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `start` did, from the facts of the checkpoint from which a run is resumed."""
    return {key: value for key, value in facts.items() if key == "init_from"}


def _read(source: StartingWeights) -> tuple[dict[str, Any], list[str]]:
    """Return the network's tensors by name, and the classes that it tells apart; none where nothing says it."""
    from convolt.runs.checkpoints import intact_epochs, read_weights

    files = RunFiles(Path(source.run))
    path = files.checkpoints / source.checkpoint
    if intact_epochs(path) is None or read_index(files.checkpoints)[path.name]["sha256"] != source.sha256:
        lost = f"checkpoints/{path.name} is damaged, missing or no longer what it was: restore it, or type the command "
        lost += "again with init_from=WHERE_IT_IS"
        pruned = "" if path.exists() else explain_pruned(files.path, source.run, "none", "best")
        raise UserError(f"init_from={source.run}: {pruned or lost}")
    state = read_weights(path)
    classes = files.preprocessing().get("classes", [])
    return {name.removeprefix(PREFIX): each for name, each in state.items() if name.startswith(PREFIX)}, classes


def _head_shapes(settings: Settings, here: Mapping[str, tuple[int, ...]], classes: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors whose shape depends on the number of classes, with their shapes for another number."""
    import torch

    from convolt.config.instantiate import build

    other = settings.replaced({"data.num_classes": classes, "model.num_classes": classes})
    with torch.random.fork_rng(devices=[]):
        shapes = _shapes(build(other.cfg.model, "model", optional=NETWORK_KEYS).state_dict())
    return {name: shape for name, shape in shapes.items() if name in here and shape != here[name]}


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _format_shape(shape: tuple[int, ...] | None) -> str:
    return "not" if shape is None else "x".join(map(str, shape)) or "a number"
