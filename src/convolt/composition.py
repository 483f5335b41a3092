"""Configs from overrides: composed by Hydra, checked, and their mistakes told in one line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from convolt.config import check, unresolved
from convolt.environment_values import settle
from convolt.errors import UserError, near, near_key
from convolt.init_from import starting_weights
from convolt.overrides import parsed, readable

CONF = Path(__file__).resolve().parents[2] / "conf"
"""The folder of the configs in a checkout."""

CONFIG_NAME = "train"

_MOST_REFERENCES = 64

_references: dict[tuple[Any, ...], tuple[dict[str, str], DictConfig]] = {}
"""Choices, and the config without the user's values, by pages and by what chooses options; see `_reference`."""


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
    texts = [readable(text) for text in overrides]
    with _own_hydra_state(), hydra.initialize_config_dir(str(conf), version_base="1.3"):
        try:
            cfg = hydra.compose(CONFIG_NAME, overrides=texts, return_hydra_config=True)
        except Exception as error:
            raise explained(error, conf, texts) from error
        return complete(cfg, cfg.hydra)


@contextmanager
def _own_hydra_state() -> Iterator[None]:
    """Put the state of another Hydra program around this one aside, and back at the end."""
    kinds: tuple[Any, ...] = (GlobalHydra, VersionBase, JobRuntime)
    aside = {kind: Singleton._instances.pop(kind, None) for kind in kinds}
    try:
        yield
    finally:
        for kind, before in aside.items():
            Singleton._instances.pop(kind, None)
            if before is not None:
                Singleton._instances[kind] = before


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
        cfg = settle(_without_hydra(cfg))
        choices, reference = _reference(GlobalHydra.instance().config_loader(), cfg, hydra_config)
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, _main_folder(hydra_config), _typed(hydra_config)) from None
    check(cfg, reference)
    with open_dict(cfg):
        cfg.data.image_size = _image_size(cfg)
        cfg.choices = dict(choices)
        cfg.overrides = _typed(hydra_config)
        cfg.init_from = starting_weights(cfg.init_from)
    return cfg


def _image_size(cfg: DictConfig) -> int | None:
    """Return data.image_size; where it is left to a folder's images, theirs, so that settings are of one size."""
    source = cfg.data.get("source")
    if cfg.data.image_size is not None or not source or source.get("_target_") != "convolt.data.sources.Folder":
        size: int | None = cfg.data.image_size
        return size
    from convolt.data.sources import Folder

    options: Any = OmegaConf.to_container(source, resolve=True)
    try:
        return Folder(**{key: value for key, value in options.items() if not key.startswith("_")}).size
    except (UserError, TypeError):  # what is wrong is told when the images are prepared
        return None


def _reference(loader: ConfigLoader, cfg: DictConfig, hydra_config: DictConfig) -> tuple[dict[str, str], DictConfig]:
    """Return the options chosen of all groups, and what they compose to without the user's values.

    Both depend on the pages and on the overrides that choose options, so that the runs of a sweep share them.
    """
    name = str(hydra_config.job.config_name)
    typed = parsed(_typed(hydra_config))
    searched = [text for text in hydra_config.overrides.hydra if text.startswith("hydra.searchpath=")]
    choosing = [str(each.input_line) for each in typed if _may_choose(each, cfg)]
    folders = [source.path for source in loader.get_search_path().get_path() if source.path]
    pages = _pages([*folders, *(str(folder) for folder in hydra_config.searchpath)])
    key = (pages, name, *searched, *choosing)
    if key not in _references:
        if len(_references) == _MOST_REFERENCES:
            _references.clear()
        found = loader.compute_defaults_list(name, [*searched, *choosing], RunMode.RUN)
        choices = _choices(found.overrides.known_choices, found.defaults, _main_folder(hydra_config))
        values = {each.input_line for each in found.config_overrides}
        groups = [text for text in choosing if text not in values]
        reference = cfg
        if len(groups) < len(typed):
            composed = loader.load_configuration(name, overrides=[*searched, *groups], run_mode=RunMode.RUN)
            reference = _without_hydra(composed)
        _references[key] = choices, reference.copy()
    return _references[key]


def _may_choose(override: Override, cfg: DictConfig) -> bool:
    """Tell whether an override may choose options: keys with a dot, and those that hold a value now, are of values."""
    key = override.key_or_group
    return "." not in key and (override.package is not None or isinstance(cfg._get_node(key), DictConfig | None))


def _main_folder(hydra_config: DictConfig) -> Path:
    return next(Path(source.path) for source in hydra_config.runtime.config_sources if source.provider == "main")


def _pages(folders: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return what tells one state of the configs' pages from another: in a notebook they are edited in between."""
    pages = [page for folder in folders for page in sorted(Path(folder.removeprefix("file://")).rglob("*.yaml"))]
    return tuple((str(page), page.stat().st_mtime_ns, page.stat().st_size) for page in pages)


def _without_hydra(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def _typed(hydra_config: DictConfig) -> list[str]:
    """Return the overrides as they were typed, interpolations too."""
    return [str(text) for text in OmegaConf.to_container(hydra_config.overrides.task) or []]


def _choices(known: dict[str, str | None], composed: Sequence[ResultDefault], conf: Path) -> dict[str, str]:
    """Return the option chosen of each group, from what was composed; several of them are joined by "+".

    Args:
        known: Hydra's list, in which groups that take several options are missing.
        composed: The pages of which the config was made.
        conf: The folder of the configs.

    Raises:
        UserError: When there are several options of a group that takes one.
    """
    chosen = {group: str(option) for group, option in known.items() if option is not None}
    several: dict[str, list[str]] = {}
    for page in composed:
        group, _, option = str(page.config_path).partition("/")
        included = str(page.parent).startswith(f"{group}/")  # by an option of the same group
        if option and group not in known and page.override_key is None and not included:
            several.setdefault(group, []).append(option)
    for group, options in several.items():
        if len(options) > 1 and group != "augmentation" and (conf / group).is_dir():
            raise UserError(f"{group}=[{','.join(options)}]: a group takes one option; only augmentation takes several")
    chosen = {"augmentation": "none"} | chosen | {group: "+".join(options) for group, options in several.items()}
    return {k: v for k, v in sorted(chosen.items()) if not k.startswith("hydra") and k != "study"}


def explained(error: Exception, conf: Path, overrides: Sequence[str]) -> UserError:
    """Say in one line what Hydra says in many, and name what would have been right."""
    text = str(error)
    groups = {path.name: sorted(_options(path)) for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not (?:find|load) '([^']+)'", text)):
        group, _, option = found[1].partition("/")
        options = sorted({*groups.get(group, []), *re.findall(r"^\t(\S+)$", text, re.MULTILINE)})
        return UserError(f"{group}={option}: there is no such {group}{near(option, options) or _listed(options)}")
    if line := _of_the_grammar(text):
        return UserError(line)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].lstrip("+")
        keys = [*groups, *_keys(conf, overrides)]
        hint = near_key(key, keys) or "; python train.py --cfg job shows all of them"
        return UserError(f"{key}: there is no such key{hint}")
    if "must be a string or a list" in text:
        empty = [arg for arg in overrides if arg.endswith("=null")]
        return UserError(f"{empty[0] if empty else 'null'}: a group needs one of its options")
    if isinstance(error, OmegaConfBaseException) or isinstance(error.__cause__, OmegaConfBaseException):
        return unresolved(error if isinstance(error, OmegaConfBaseException) else error.__cause__)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return UserError("; ".join(lines[:2]) or type(error).__name__)


def _of_the_grammar(text: str) -> str | None:
    """Say what is wrong with an override that Hydra's grammar does not take."""
    if found := re.search(r"To append to your default list use (\+.*)", text):
        return f"{found[1][1:]}: no page chooses an option of this group: add one by {found[1]}"
    if found := re.search(r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)' requires --multirun", text):
        key, _, value = (found[1] or found[2]).partition("=")
        quoted = f"; one value with commas is quoted: \"{key}='{value}'\"" if found[1] else ""
        return f"{key}={value}: several values are a sweep, by -m{quoted}"
    if found := re.search(r"LexerNoViableAltException: (.*)|Error parsing override '([^']*)'", text):
        return f"'{found[1] or found[2]}' is no override: write KEY=VALUE, and quote values with special characters"
    if found := re.search(r"(?:alternative at|mismatched|extraneous) input '([^']*)'|recognition error at: '(.)", text):
        what = found[1] or found[2] or "an override"
        return f"{what} cannot be read: write KEY=VALUE, close what is opened, and quote values with special characters"
    if found := re.search(r"'hydra\.runtime\.choices\.(\w+)' not found", text):
        return f"{found[1]}: a run needs one option of this group; only augmentation takes several"
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
