"""Objects from config nodes; what is wrong with a `_target_` is explained in one line."""

import inspect
import pkgutil
import re
import traceback
from collections.abc import Collection, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from convolt.errors import UserError, did_you_mean


def target(node: Mapping[Any, Any], key: str, kind: type | None = None) -> Any:
    """Return the class or function that a node's `_target_` names.

    Args:
        node: A node of the config.
        key: What errors call it.
        kind: What a class must be a subclass of.

    Raises:
        UserError: Where there is no such class or function, its module cannot be imported, or it is of another kind.
    """
    name = target_name(node, key)
    typed, parts = f"{key}._target_={name}", name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UserError(f"{typed} names nothing: write MODULE.CLASS")
    hint = did_you_mean(parts[0], ("convolt", "torch", "torchvision"))
    found: Any = _import(
        parts[0],
        typed,
        f"there is no module {parts[0]!r}; is it in the working directory, or its folder on PYTHONPATH?{hint}",
    )
    for place, part in enumerate(parts[1:], 1):
        try:
            found = getattr(found, part)
        except AttributeError:
            inside = [*dir(found), *(module.name for module in pkgutil.iter_modules(getattr(found, "__path__", ())))]
            missing = f"there is no {part!r} in {'.'.join(parts[:place])}{did_you_mean(part, inside)}"
            if not hasattr(found, "__path__"):
                raise UserError(f"{typed}: {missing}") from None
            found = _import(".".join(parts[: place + 1]), typed, missing)
    if not callable(found):
        raise UserError(f"{typed} is of type {type(found).__name__}, no class or function")
    if kind and isinstance(found, type) and not issubclass(found, kind):
        raise UserError(f"{typed} is no {_full_name(kind)}")
    return found


def target_name(node: Mapping[Any, Any], key: str) -> str:
    """Return the `_target_` of a node, or raise a `UserError` where it has none."""
    if not node.get("_target_"):
        raise UserError(f"{key} has no _target_: its page must name a class or function, as `_target_: MODULE.CLASS`")
    return str(node["_target_"])


def build(
    node: DictConfig,
    key: str,
    kind: type | None = None,
    *,
    partial: bool = False,
    known_only: bool = False,
    optional: Collection[str] = (),
    **more: Any,
) -> Any:
    """Make what a node's `_target_` names.

    Args:
        node: A node of the config, still in its place, so that interpolations resolve.
        key: What errors call it.
        kind: What it must be an instance of.
        partial: Whether the node itself must ask for a partial, since the first arguments follow later.
        known_only: Leave out what the target does not take: keys to which others of the node refer.
        optional: Keys that are left out where the target does not take them.
        more: Further arguments of `hydra.utils.instantiate`.

    Raises:
        UserError: Where there is no such target, it refuses its arguments, or what it makes is of another kind.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        raise UserError(f"{key}={plain}: set a class or function and its arguments, as {key}._target_=MODULE.CLASS")
    target(plain, key, kind)
    name = plain["_target_"]
    if partial and not plain.get("_partial_"):
        raise UserError(f"{key}: {name} gets its first arguments later: add `_partial_: true` to its page")
    if plain.get("_partial_") and kind and not partial:
        raise UserError(f"{key}: {name} is wanted itself: take `_partial_` out of its page")
    plain = _check_arguments(plain, key, plain if known_only else optional)
    while True:
        try:
            made = instantiate(plain, _convert_="all", **more)
            break
        except InstantiationException as error:
            refused = re.search(r"unexpected keyword argument '(\w+)'", str(error.__cause__))
            if not refused or refused[1] not in plain or refused[1] not in optional:
                raise _explain(error, name, key) from error
            del plain[refused[1]]  # it takes **kwargs, and hands them on to what does not take this one
    if kind and not partial and not more.get("_partial_") and not isinstance(made, kind):
        raise UserError(f"{key}: {name} makes something of type {type(made).__name__}, no {_full_name(kind)}")
    return made


def describe_error(error: BaseException) -> str:
    """Return an error's kind, message and place in one line."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not _lies_below(each, "hydra", "convolt")]
    frames = [frame for frame in frames if not _lies_below(frame, "site-packages", "importlib")] or frames
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def _explain(error: InstantiationException, name: str, key: str) -> Exception:
    """Explain why a target fails: by what it raises itself, or by the arguments that it lacks."""
    cause = error.__cause__
    if isinstance(cause, UserError):
        return cause
    if cause is None:
        return UserError(f"{key}: {' '.join(str(error).split())}")
    called = len(traceback.extract_tb(cause.__traceback__)) > 1  # else its arguments did not fit
    if called and name.startswith("convolt."):
        return error
    return UserError(f"{key}: {name} fails: {describe_error(cause)}")


def _check_arguments(plain: dict[str, Any], key: str, optional: Collection[str]) -> dict[str, Any]:
    """Return a node with the arguments that its target takes, and so for the nodes inside it.

    Raises:
        UserError: Names the first argument that is not taken and not optional.
    """
    known = _parameters(target(plain, key))
    unknown = [each for each in plain if known is not None and each not in known and not each.startswith("_")]
    for each in unknown:
        if each not in optional:
            raise UserError(
                f"{key}.{each}: {plain['_target_']} takes no such argument{did_you_mean(each, known or ())}"
            )
    arguments = {each: value for each, value in plain.items() if each not in unknown}
    if plain.get("_recursive_", True):
        arguments = {each: _check_arguments_inside(value, f"{key}.{each}") for each, value in arguments.items()}
    positional = [each for each, kind in (known or {}).items() if kind == inspect.Parameter.POSITIONAL_ONLY]
    if "_args_" not in arguments and any(each in arguments for each in positional):
        arguments["_args_"] = [arguments.pop(each) for each in positional if each in arguments]
    return arguments


def _check_arguments_inside(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return [_check_arguments_inside(each, f"{key}[{place}]") for place, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _check_arguments(value, key, ())
    return {name: _check_arguments_inside(each, f"{key}.{name}") for name, each in value.items()}


def _parameters(found: Any) -> dict[str, Any] | None:
    """Return the parameters of a class or function and their kinds; None where it takes any or has none."""
    try:
        known = inspect.signature(found).parameters
    except (TypeError, ValueError):
        return None
    kinds = {name: parameter.kind for name, parameter in known.items()}
    return None if inspect.Parameter.VAR_KEYWORD in kinds.values() else kinds


def _import(name: str, typed: str, missing: str) -> ModuleType:
    """Import a module.

    Args:
        name: The module's.
        typed: The key and value that name it.
        missing: The message where there is no such module.

    Raises:
        UserError: Where there is none, or it cannot be imported.
    """
    try:
        return import_module(name)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise UserError(f"{typed}: {missing}") from None
        raise UserError(f"{typed}: importing {name} fails: {describe_error(error)}") from error


def _lies_below(frame: traceback.FrameSummary, *folders: str) -> bool:
    """Return whether a frame's file lies below a folder of one of these names."""
    return any(f"/{folder}/" in frame.filename.replace("\\", "/") for folder in folders)


def _full_name(kind: type) -> str:
    return f"{kind.__name__} of {kind.__module__.partition('.')[0]}"
