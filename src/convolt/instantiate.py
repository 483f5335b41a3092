"""Objects from config nodes."""

import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from convolt.errors import UserError, near


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
    target: str = plain["_target_"]
    known = inspect.signature(get_object(target)).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
        unknown = [name for name in plain if name not in known and not name.startswith("_")]
        if unknown and not known_only:
            raise UserError(f"{key}.{unknown[0]}: {target} takes no such argument{near(unknown[0], known)}")
        plain = {name: value for name, value in plain.items() if name not in unknown}
    try:
        return instantiate(plain, _convert_="all", **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
