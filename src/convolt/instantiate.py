"""Objects from config nodes."""

import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from convolt.errors import UserError, near


def target(node: DictConfig) -> Any:
    """Return the class or function that a node's `_target_` names."""
    return get_object(str(node._target_))


def build(node: DictConfig, key: str, *, known_only: bool = False, **more: Any) -> Any:
    """Make what a node's `_target_` names.

    Args:
        node: A node of the config, still in its place, so that interpolations resolve.
        key: What errors call it.
        known_only: Leave out what the target does not take: keys to which others of the node refer.
        more: Further arguments of `hydra.utils.instantiate`.

    Raises:
        UserError: Where the target refuses its arguments.
    """
    plain: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    name: str = plain["_target_"]
    known = inspect.signature(get_object(name)).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
        unknown = [each for each in plain if each not in known and not each.startswith("_")]
        if unknown and not known_only:
            raise UserError(f"{key}.{unknown[0]}: {name} takes no such argument{near(unknown[0], known)}")
        plain = {each: value for each, value in plain.items() if each not in unknown}
    try:
        return instantiate(plain, _convert_="all", **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
