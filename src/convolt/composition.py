"""Configs from overrides: composed by Hydra, checked, and their mistakes told in one line."""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from convolt.config import check
from convolt.errors import UserError, near
from convolt.init_from import starting_weights

CONF = Path(__file__).resolve().parents[2] / "conf"
"""The folder of the configs in a checkout."""

CONFIG_NAME = "train"

_MOST_REFERENCES = 64

_references: dict[tuple[Any, ...], DictConfig] = {}
"""Configs without the user's values, by their pages and options; see `_reference`."""


def slug(text: Any) -> str:
    """Turn overrides into a folder's name: no separators, at most 120 characters, different for different texts."""
    name = re.sub(r"[^\w.,=+-]+", "-", str(text)).strip("-") or "default"
    return name if len(name) <= 120 else f"{name[:107]}-{sha256(name.encode()).hexdigest()[:12]}"


def compose(overrides: Sequence[str] = (), conf: Path = CONF) -> DictConfig:
    """Compose a checked config in Python, ready for `convolt.run.run`, as the command line does.

    Args:
        overrides: As on the command line: ["model=resnet18", "optim.lr=0.01"].
        conf: The folder of the configs.

    Raises:
        UserError: When an option or a key does not exist, or a value will not do.
    """
    register_resolvers()
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        try:
            cfg = hydra.compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
        except Exception as error:
            raise explained(error, conf, overrides) from error
        return complete(cfg, cfg.hydra)


def register_resolvers() -> None:
    """Teach OmegaConf the resolvers that the configs use."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def complete(cfg: DictConfig, hydra_config: DictConfig) -> DictConfig:
    """Check a composed config against the one without the user's values, and fill in choices and overrides.

    Args:
        cfg: The composed config, with or without its section `hydra`.
        hydra_config: That section.

    Returns:
        A copy without the section `hydra`.

    Raises:
        UserError: When a value will not do.
    """
    try:
        cfg = _without_hydra(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the config'}: {str(error).splitlines()[0]}") from None
    choices = _choices(hydra_config)
    groups = [f"{group}=[{option.replace('+', ',')}]" for group, option in choices.items() if group == "augmentation"]
    groups += [f"{group}={option}" for group, option in choices.items() if group != "augmentation"]
    check(cfg, _reference(GlobalHydra.instance().config_loader(), hydra_config, groups))
    with open_dict(cfg):
        cfg.choices = choices
        cfg.overrides = _typed(hydra_config)
        cfg.init_from = starting_weights(cfg.init_from)
    return cfg


def _reference(loader: ConfigLoader, hydra_config: DictConfig, groups: Sequence[str]) -> DictConfig:
    """Compose the options of all groups without the user's values; configs of the same pages share them."""
    typed = [str(text) for text in hydra_config.overrides.hydra]
    overrides = [*(text for text in typed if text.startswith("hydra.searchpath=")), *groups]
    folders = [source.path for source in loader.get_search_path().get_path() if source.path]
    key = (_pages([*folders, *(str(folder) for folder in hydra_config.searchpath)]), *overrides)
    if key not in _references:
        if len(_references) == _MOST_REFERENCES:
            _references.clear()
        composed = loader.load_configuration(CONFIG_NAME, overrides=overrides, run_mode=RunMode.RUN)
        _references[key] = _without_hydra(composed)
    return _references[key]


def _pages(folders: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return what tells one state of the configs' pages from another: in a notebook they are edited in between."""
    pages = [page for folder in folders for page in sorted(Path(folder.removeprefix("file://")).rglob("*.yaml"))]
    return tuple((str(page), page.stat().st_mtime_ns, page.stat().st_size) for page in pages)


def _without_hydra(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def _typed(hydra_config: DictConfig) -> list[str]:
    """Return the overrides as they were typed, interpolations too."""
    return [str(text) for text in OmegaConf.to_container(hydra_config.overrides.task) or []]


def _choices(hydra_config: DictConfig) -> dict[str, str]:
    """Return the option chosen of each group; several of them are joined by "+"."""
    groups = {str(group): option for group, option in hydra_config.runtime.choices.items()}
    chosen = {k: str(v) for k, v in groups.items() if not k.startswith("hydra/") and k != "study"}
    # Hydra does not list the groups that take several options.
    typed = dict(text.split("=", 1) for text in _typed(hydra_config) if "=" in text)
    for group, option in typed.items():
        if option.startswith("[") and "." not in group and group != "augmentation":
            raise UserError(f"{group}={option}: a group takes one option; only augmentation takes several")
    chosen["augmentation"] = typed.get("augmentation", "none").strip("[]").replace(" ", "").replace(",", "+") or "none"
    return dict(sorted(chosen.items()))


def explained(error: Exception, conf: Path, overrides: Sequence[str]) -> UserError:
    """Say in one line what Hydra says in many, and name what would have been right."""
    text = str(error)
    groups = {path.name: sorted(_options(path)) for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not (?:find|load) '([^']+)'", text)):
        group, _, option = found[1].partition("/")
        options = sorted({*groups.get(group, []), *re.findall(r"^\t(\S+)$", text, re.MULTILINE)})
        return UserError(f"{group}={option}: there is no such {group}{near(option, options) or _listed(options)}")
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].lstrip("+")
        keys = [*groups, *_keys(conf, overrides)]
        return UserError(
            f"{key}: there is no such key{near(key, keys) or '; python train.py --cfg job shows all of them'}"
        )
    if line := _unreadable(text):
        return UserError(line)
    if "must be a string or a list" in text:
        empty = [arg for arg in overrides if arg.endswith("=null")]
        return UserError(f"{empty[0] if empty else 'null'}: a group needs one of its options")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return UserError("; ".join(lines[:2]) or type(error).__name__)


def _unreadable(text: str) -> str | None:
    """Say what is wrong with an override that Hydra cannot read."""
    if found := re.search(r"Error parsing override '([^']*)'", text):
        return f"'{found[1]}' is no override: write KEY=VALUE, and quote values with special characters"
    if found := re.search(r"(?:alternative at|mismatched|extraneous) input '([^']*)'|recognition error at: '(.)", text):
        what = found[1] or found[2] or "an override"
        return f"{what} cannot be read: write KEY=VALUE, close what is opened, and quote values with special characters"
    if found := re.search(r"'hydra\.runtime\.choices\.(\w+)' not found", text):
        return f"{found[1]}: a group takes one option; only augmentation takes several"
    return None


def _options(group: Path) -> Iterator[str]:
    """Name the options of a group, those in folders too."""
    for path in group.rglob("*.yaml"):
        yield path.relative_to(group).with_suffix("").as_posix()


def _listed(options: list[str]) -> str:
    return f"; there are {', '.join(options)}" if options else ""


def _keys(conf: Path, overrides: Sequence[str]) -> Iterator[str]:
    """Name the keys of the common page and of all options."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, inner in node.items():
                key = f"{prefix}.{name}" if prefix else str(name)
                yield key
                yield from walk(inner, key)

    page = OmegaConf.to_container(OmegaConf.load(conf / f"{CONFIG_NAME}.yaml"))
    yield from (key for key in walk(page, "") if not key.startswith(("defaults", "hydra")))
    chosen = dict(arg.split("=", 1) for arg in overrides if "=" in arg)
    for group in (path for path in conf.iterdir() if path.is_dir() and path.name != "hydra"):
        for file in group.rglob("*.yaml"):
            if file.relative_to(group).with_suffix("").as_posix() == chosen.get(group.name, file.stem):
                whole_page = file.read_text(encoding="utf-8").startswith("# @package _global_")
                yield from walk(OmegaConf.to_container(OmegaConf.load(file)), "" if whole_page else group.name)
