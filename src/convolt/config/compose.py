"""Configs from overrides: composed by Hydra, checked, and their mistakes explained in one line."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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

from convolt.config.check import check, check_trackers_installed
from convolt.config.environment_values import resolve_environment_values
from convolt.config.instantiate import build
from convolt.config.overrides import can_be_read, parse_overrides, quote_for_hydra
from convolt.config.own_pages import own_folders
from convolt.config.pages import file_state, kept_pages
from convolt.config.settings import CONFIG_NAME, Settings, explain_unresolved, flatten
from convolt.config.starting_weights import starting_weights
from convolt.errors import UserError, did_you_mean, did_you_mean_key, list_options
from convolt.system.files import expand_home
from convolt.system.installation import CONF, command_name

_MOST_REFERENCES = 64

_TAKE_SEVERAL = ("augmentation", "logger")
"""Groups of which a run may have several options."""

_ONLY_SEVERAL = "only augmentation and logger take several"

_composing = threading.RLock()
"""Held while a config is composed: what Hydra remembers meanwhile is the whole process's."""

_references: dict[tuple[Any, ...], tuple[dict[str, str], DictConfig]] = {}
"""Choices, and the config without the user's values, by pages and by what chooses options; see `_reference`."""


def slug(text: Any) -> str:
    """Turn overrides into a folder's name: no separators, at most 120 characters, different for different texts."""
    name = re.sub(r"[^\w.,=+-]+", "-", str(text)).strip("-") or "default"
    return name if len(name) <= 120 else f"{name[:107]}-{sha256(name.encode()).hexdigest()[:12]}"


def compose(overrides: Sequence[str] = (), conf: Path = CONF) -> DictConfig:
    """Compose a checked config in Python, ready for `convolt.training.run.run`, as the command line does.

    Args:
        overrides: As on the command line: ["model=resnet18", "optim.lr=0.01"].
        conf: The folder of the configs.

    Raises:
        UserError: When an option or a key does not exist, or a value will not do.
    """
    return compose_run(overrides, conf)[0]


def compose_run(overrides: Sequence[str] = (), conf: Path = CONF) -> tuple[DictConfig, Path]:
    """Compose a checked config; return it with the directory that the command line would give its run.

    Args:
        overrides: See `compose`.
        conf: Likewise.

    Raises:
        UserError: Likewise.
    """
    register_resolvers()
    texts = [quote_for_hydra(text) for text in overrides]
    with _composing, _own_hydra_state(), kept_pages(), hydra.initialize_config_dir(str(conf), version_base="1.3"):
        try:
            cfg = hydra.compose(CONFIG_NAME, overrides=texts, return_hydra_config=True)
        except Exception as error:
            raise explain_hydra_error(error, conf, texts) from error
        return complete_config(cfg, cfg.hydra), Path(expand_home(str(cfg.hydra.run.dir)))


@contextmanager
def _own_hydra_state() -> Iterator[None]:
    """Save the state of another Hydra program around this one, and restore it at the end."""
    kinds: tuple[Any, ...] = (GlobalHydra, VersionBase, JobRuntime)
    saved = {kind: Singleton._instances.pop(kind, None) for kind in kinds}
    try:
        yield
    finally:
        for kind, before in saved.items():
            Singleton._instances.pop(kind, None)
            if before is not None:
                Singleton._instances[kind] = before


def register_resolvers() -> None:
    """Register the resolvers that the configs use."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    OmegaConf.register_new_resolver("command", command_name, replace=True)


def complete_config(cfg: DictConfig, hydra_config: DictConfig) -> DictConfig:
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
        cfg = resolve_environment_values(_without_hydra(cfg))
        choices, reference = _reference(GlobalHydra.instance().config_loader(), cfg, hydra_config)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain_hydra_error(error, main_folder(hydra_config), _typed_overrides(hydra_config)) from None
    for group, option in choices.items():
        if group in cfg and group not in Settings.model_fields:
            raise UserError(f"{group}={option}: its page must begin with the line `# @package _global_`")
    settings = check(cfg, reference)
    check_trackers_installed(settings.logger)
    with open_dict(cfg):
        cfg.data.image_size = _image_size(settings)
        cfg.choices = dict(choices)
        cfg.overrides = _typed_overrides(hydra_config)
        cfg.init_from = starting_weights(cfg.init_from)
    return cfg


def _image_size(settings: Settings) -> int | None:
    """Return data.image_size; where it is left to the images and their source knows it, theirs: settings are of one."""
    size = settings.data.image_size
    if size is None and settings.data.source:
        with suppress(UserError):  # what is wrong is explained when the images are prepared
            size = getattr(build(settings.cfg.data.source, "data.source"), "size", None)
    return size


def _reference(loader: ConfigLoader, cfg: DictConfig, hydra_config: DictConfig) -> tuple[dict[str, str], DictConfig]:
    """Return the options chosen of all groups, and what they compose to without the user's values.

    Both depend on the pages and on the overrides that choose options, so that the runs of a sweep share them.
    """
    name = str(hydra_config.job.config_name)
    typed = parse_overrides(_typed_overrides(hydra_config))
    search_paths = [text for text in hydra_config.overrides.hydra if text.startswith("hydra.searchpath=")]
    choosing = [str(each.input_line) for each in typed if _may_choose(each, cfg)]
    folders = [source.path for source in loader.get_search_path().get_path() if source.path]
    folders += [str(folder) for folder in hydra_config.searchpath]
    key = (_page_states(folders), name, *search_paths, *choosing)
    if key not in _references:
        if len(_references) == _MOST_REFERENCES:
            _references.clear()
        composed = loader.compute_defaults_list(name, [*search_paths, *choosing], RunMode.RUN)
        for page in composed.defaults:
            _check_not_hidden(str(page.config_path), folders)
        choices = _choices(composed.overrides.known_choices, composed.defaults, main_folder(hydra_config))
        values = {each.input_line for each in composed.config_overrides}
        groups = [text for text in choosing if text not in values]
        reference = cfg
        if len(groups) < len(typed):
            reference = _without_hydra(loader.load_configuration(name, [*search_paths, *groups], RunMode.RUN))
        _references[key] = choices, reference.copy()
    return _references[key]


def _may_choose(override: Override, cfg: DictConfig) -> bool:
    """Return whether an override may choose options: keys with a dot, and those that hold a value now, do not."""
    key = override.key_or_group
    return "." not in key and (override.package is not None or isinstance(cfg._get_node(key), DictConfig | None))


def main_folder(hydra_config: DictConfig) -> Path:
    """Return the folder of the configs that the command line starts from."""
    return next(Path(source.path) for source in hydra_config.runtime.config_sources if source.provider == "main")


def _page_states(folders: Sequence[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return what identifies the state of the pages of the configs: in a notebook they are edited in between."""
    pages = [page for folder in folders for page in sorted(Path(folder.removeprefix("file://")).rglob("*.yaml"))]
    return tuple((str(page), file_state(page)) for page in pages)


def _check_not_hidden(page: str, folders: Sequence[str]) -> None:
    """Refuse a page of the user's that Hydra skips, since a folder before it has another of the same name."""
    found = [file for folder in folders if (file := Path(folder.removeprefix("file://")) / f"{page}.yaml").is_file()]
    for file in found[1:]:
        if file.read_bytes() != found[0].read_bytes():
            raise UserError(f"{file} would not be read, since {found[0]} comes first: give it another name")


def _without_hydra(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def _typed_overrides(hydra_config: DictConfig) -> list[str]:
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
    chosen = {group: str(option).removesuffix(".yaml") for group, option in known.items() if option is not None}
    several: dict[str, list[str]] = {}
    for page in composed:
        group, _, option = str(page.config_path).partition("/")
        included = str(page.parent).startswith(f"{group}/")  # by an option of the same group
        if option and group not in known and page.override_key is None and not included:
            several.setdefault(group, []).append(option.removesuffix(".yaml"))
    for group, options in several.items():
        if len(options) > 1 and group not in _TAKE_SEVERAL and (conf / group).is_dir():
            raise UserError(f"{group}=[{','.join(options)}]: a group takes one option; {_ONLY_SEVERAL}")
        real = [option for option in dict.fromkeys(options) if option != "none"]
        chosen[group] = "+".join(real) or "none"
    chosen = dict.fromkeys(_TAKE_SEVERAL, "none") | chosen
    return {k: v for k, v in sorted(chosen.items()) if not k.startswith("hydra") and k != "study"}


def explain_hydra_error(error: Exception, conf: Path, overrides: Sequence[str]) -> UserError:
    """Explain in one line what Hydra explains in many, and name what would have been right."""
    text = str(error)
    groups = _groups([conf, *own_folders(overrides)])
    line = (
        _explain_page(error, conf, overrides)
        or _explain_option(error, groups)
        or _explain_grammar(text, overrides)
        or _explain_key(text, conf, groups, overrides)
    )
    if line:
        return UserError(line)
    if isinstance(error, OmegaConfBaseException) or isinstance(error.__cause__, OmegaConfBaseException):
        return explain_unresolved(error if isinstance(error, OmegaConfBaseException) else error.__cause__)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return UserError("; ".join(lines[:2]) or type(error).__name__)


def _explain_page(error: Exception, conf: Path, arguments: Sequence[str]) -> str | None:
    """Name the page that cannot be read; Hydra does not name one that is not UTF-8."""
    if mark := getattr(error, "problem_mark", None):
        return f"{mark.name}, line {mark.line + 1}: {getattr(error, 'problem', error)}"
    if isinstance(error, UnicodeDecodeError):
        for page, *_ in _page_states([str(folder) for folder in (conf, *own_folders(arguments))]):
            try:
                Path(page).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                return f"{page} is not in UTF-8: save it in this encoding"
    return None


def _explain_option(error: Exception, groups: Mapping[str, Mapping[str, Path]]) -> str | None:
    """Name the options that an unknown one resembles."""
    found = re.search(r"Could not (?:find|load) '((?:hydra/)?[^/']*)/?([^']*)'", str(error))
    if not found or not isinstance(error, MissingConfigException):
        return None
    group, option = found[1], found[2]
    options = sorted({*groups.get(group, ()), *re.findall(r"^\t(\S+)$", str(error), re.MULTILINE)})
    hint = did_you_mean(option, options) or list_options(options)
    return f"{group}={option}: there is no such {group.removeprefix('hydra/')}{hint}"


_CHOSEN = "{0}: an option is chosen already: choose another by {0}=OPTION, in a page by `override /{0}: OPTION`"
_SWEPT = "{0}: several values are a sweep, by -m"
_ONE_OPTION = f"{{0}}: a run needs one option of this group; {_ONLY_SEVERAL}"
_HYDRA_MESSAGES = {
    r"To append to your default list use \+(.*)": "{0}: no page chooses an option of this group: add one by +{0}",
    r"Ambiguous value for argument '((.*?)=(.*))'": f"{_SWEPT}; one value with commas is quoted: \"{{1}}='{{2}}'\"",
    r"Sweep parameters '(.*)' requires --multirun": _SWEPT,
    r"(\S+) appears more than once|Multiple values for (\S+)\.|not supported: '\+\+(\w+)": _CHOSEN,
    r"Could not delete '(\S+?)(?:=\S*)?'": "~{0}: no option can be taken away here; choose another by {0}=OPTION",
    r"'hydra\.runtime\.choices\.(\w+)' not found": _ONE_OPTION,
}
"""Hydra's messages, and ours instead."""


def _explain_grammar(text: str, overrides: Sequence[str]) -> str | None:
    """Explain what is wrong with an override that Hydra's grammar does not take, or not there."""
    for typed in overrides:
        if not typed.startswith("-") and not can_be_read(quote_for_hydra(typed)):
            return (
                f"{typed} is no override: write KEY=VALUE without spaces around =, close what is opened, "
                "and quote values with special characters"
            )
        if "must be a string or a list" in text and typed.endswith("=null"):
            return f"{typed}: a group needs one of its options"
    for pattern, ours in _HYDRA_MESSAGES.items():
        if found := re.search(pattern, text):
            return ours.format(*(part for part in found.groups() if part is not None))
    return None


def _explain_key(
    text: str, conf: Path, groups: Mapping[str, Mapping[str, Path]], overrides: Sequence[str]
) -> str | None:
    """Name the options that have a key which the chosen one lacks, or the keys that it resembles."""
    found = re.search(r"Could not override '\+*([^']+)'", text)
    if not found:
        return None
    key = found[1]
    if key in groups:
        return f"{key}: a group takes the name of one of its options{list_options([*groups[key]])}"
    group, _, inner = key.partition(".")
    having = [option for option, page in groups.get(group, {}).items() if inner in _keys_of(page)]
    if having:
        return f"{key}: the chosen {group} has no such key; those that have it: {', '.join(having)}"
    keys = [*groups, *_all_keys(conf, groups, overrides)]
    hint = did_you_mean_key(key, keys) or f"; {command_name('train')} --cfg job shows all of them"
    return f"{key}: there is no such key{hint}"


def _groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Return the pages of each group's options by their names; those of an earlier folder count."""
    groups: dict[str, dict[str, Path]] = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.is_dir() and path.name != "hydra":
            groups[path.name] = _options(path) | groups.get(path.name, {})
    return groups


def _options(group: Path) -> dict[str, Path]:
    """Return the pages of a group's options by their names, those in folders too."""
    return dict(sorted((page.relative_to(group).with_suffix("").as_posix(), page) for page in group.rglob("*.yaml")))


def _all_keys(conf: Path, groups: Mapping[str, Mapping[str, Path]], overrides: Sequence[str]) -> Iterator[str]:
    """Name the keys of the common page and of all options."""
    yield from (key for key in _keys_of(conf / f"{CONFIG_NAME}.yaml") if not key.startswith(("defaults", "hydra")))
    chosen = dict(arg.split("=", 1) for arg in overrides if "=" in arg)
    for group, options in groups.items():
        for option, page in options.items() if group != "study" else ():  # its keys are the sweeper's
            if option == chosen.get(group, page.stem):
                is_global = page.read_text(encoding="utf-8").startswith("# @package _global_")
                yield from _keys_of(page, "" if is_global else group)


def _keys_of(page: Path, group: str = "") -> list[str]:
    """Name the keys of a page, sections too."""
    return list(flatten(OmegaConf.to_container(OmegaConf.load(page)), f"{group}." if group else ""))
