"""Where Hydra looks for pages besides Convolt's."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from convolt.config.own_pages import own_folder
from convolt.system.installation import CONF


class OwnPages(SearchPathPlugin):
    """Adds the folder `conf/` of the working directory to those of programs that start from Convolt's configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder, after Convolt's own."""
        folder = own_folder()
        if folder and any(source.path == str(CONF) for source in search_path.get_path()):
            search_path.append("working-directory", f"file://{folder}")
