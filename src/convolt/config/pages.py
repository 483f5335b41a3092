"""Pages of configs, kept with what they compose to as long as none of them changes, and Hydra's loader over them.

A command composes its config three times and a sweep hundreds of times, of the same pages: to read and merge them anew
would be four fifths of that.
"""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra._internal import hydra as hydra_app
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf

_MOST_COMPOSED = 256

_pages: dict[tuple[Any, ...], "_Pages"] = {}
"""By where they are looked for."""


def file_state(file: Path) -> tuple[int, ...]:
    """Return what changes when a file does, also where it is replaced by one of the same time and size.

    Raises:
        OSError: When there is none.
    """
    status = file.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@contextmanager
def kept_pages() -> Iterator[None]:
    """Let Hydra compose by `KeepingLoader`, and prepare interpolations in lists of defaults only where there are."""
    create_map = defaults_list._create_interpolation_map

    def create_map_if_needed(overrides: Any, defaults: Sequence[InputDefault], self_added: bool) -> Any:
        return create_map(overrides, [*defaults], self_added) if any(d.is_interpolation() for d in defaults) else None

    replaced = [
        (hydra_app, "ConfigLoaderImpl", KeepingLoader),
        (defaults_list, "_create_interpolation_map", create_map_if_needed),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    for module, name, value in replaced:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class KeepingLoader(ConfigLoaderImpl):
    """Applies a user's values, as Hydra does, to a copy of what the pages compose to."""

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed = OverridesParser.create().parse_overrides(overrides)
        typed = [each.input_line for each in parsed if each.key_or_group == "hydra.searchpath"]
        where = (config_name, *typed, *((each.provider, each.path) for each in self.config_search_path.get_path()))
        pages = _pages.get(where)
        if pages is None or pages.folders != pages.named_folders(str(config_name)):
            pages = _pages[where] = _Pages(self.config_search_path)
            self._process_config_searchpath(config_name, parsed, pages)
            pages.folders = pages.named_folders(str(config_name))
        return parsed, pages

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        assert isinstance(repo, _Pages)
        key, states = str(defaults), [repo.state(str(each.config_path)) for each in defaults]
        before, config = repo.composed.get(key, (None, b""))
        if before != states:
            if len(repo.composed) == _MOST_COMPOSED:
                repo.composed.clear()
            config = pickle.dumps(super()._compose_config_from_defaults_list(defaults, repo))
            repo.composed[key] = states, config
        loaded: DictConfig = pickle.loads(config)  # a fifth of what copy.deepcopy takes
        return loaded

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        assert isinstance(repo, _Pages)
        return super()._load_single_config(default, _Copies(repo))


class _Pages(CachingConfigRepository):
    """Pages, each of which is read again when its file has changed.

    Attributes:
        folders: Those that the main page named when they were looked up.
        composed: The states of pages, and the pickled config that these compose to, by their list.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        self.delegate = ConfigRepository(search_path)
        self.folders: Any = None
        self.composed: dict[str, tuple[list[Any], bytes]] = {}
        self._read: dict[str, tuple[Any, ConfigResult | None]] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        state = self.state(config_path)
        before, page = self._read.get(config_path, (None, None))
        if page is None or before != state:
            page = self.delegate.load_config(config_path)
            self._read[config_path] = state, page
        return page

    def named_folders(self, config_path: str) -> Any:
        """Return the further folders that the main page names now; they may depend on the environment."""
        page = self.load_config(config_path)
        named = page and OmegaConf.select(page.config, "hydra.searchpath")
        return [*named] if isinstance(named, ListConfig) else named

    def state(self, config_path: str) -> Any:
        """Return what changes when a page does: where the first file of its name lies, and its state; or its node.

        What lies in installed packages stays as it is while a process runs.
        """
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        for source in self.delegate.get_sources():
            if source.scheme() == "file":
                with suppress(OSError):
                    return source.path, file_state(Path(source.path, name))
        with suppress(ConfigLoadError):
            return (ConfigStore.instance()._load(name),)
        return None


class _Copies(CachingConfigRepository):
    """Pages to be merged, which changes them."""

    def __init__(self, pages: _Pages) -> None:
        self.delegate = pages

    def load_config(self, config_path: str) -> ConfigResult | None:
        page: ConfigResult | None = pickle.loads(pickle.dumps(self.delegate.load_config(config_path)))
        return page
