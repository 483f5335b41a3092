"""Values that come as text and are meant as something else: from the environment, and names that look like numbers."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convolt.config.overrides import NAMES, override_values
from convolt.errors import UserError
from convolt.system.files import expand_home


def resolve_environment_values(cfg: DictConfig) -> DictConfig:
    """Read what comes from the environment as if it had been typed, expand `~`, and make text of names.

    The run then holds these values, so that it resumes with them where the environment is another one.

    Args:
        cfg: The composed config; it is changed.

    Raises:
        UserError: For a class name that YAML has read as true or false.
    """
    for node, key, full_key in list(_leaves(cfg)):
        raw = node._get_node(key)._value()
        if not isinstance(raw, str):
            continue
        if raw.startswith("${oc.env:"):
            try:
                found = node[key]
            except OmegaConfBaseException:
                continue  # `check` tells it
            if isinstance(found, str):
                whole = raw.count("}") == 1 and raw.endswith("}")
                node[key] = _as_typed(full_key, found) if whole else expand_home(found)
        elif raw.startswith("~"):
            node[key] = expand_home(raw)
    for name in NAMES:
        value = OmegaConf.select(cfg, name)
        if isinstance(value, ListConfig):
            OmegaConf.update(cfg, name, [_as_name(name, item) for item in value])
        elif value is not None and not isinstance(value, str | DictConfig):
            OmegaConf.update(cfg, name, _as_name(name, value))
    return cfg


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield each leaf as its container, its key there, and the key of the config that it belongs to."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        inner = node._get_node(key)
        full_key = prefix if isinstance(node, ListConfig) else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(inner, DictConfig | ListConfig) and not (inner._is_interpolation() or inner._is_none()):
            if not inner._is_missing():
                yield from _leaves(inner, full_key)
        else:
            yield node, key, full_key


def _as_typed(key: str, text: str) -> Any:
    """Return what an override with this value means."""
    try:
        found = override_values([f"{key}={text}"])[key]
    except Exception:  # text that is no value in Hydra's grammar
        return text
    return expand_home(text) if isinstance(found, str) else found


def _as_name(key: str, value: Any) -> Any:
    if isinstance(value, bool):
        raise UserError(f"{key}: YAML reads yes, no, on, off, true and false as truth values: quote such names there")
    return str(value) if isinstance(value, int | float) else value
