"""Pages of the user's own: the folder `conf/` of the working directory, beside Convolt's."""

from collections.abc import Sequence
from pathlib import Path

from convolt.system.installation import CONF


def own_folder() -> Path | None:
    """Return the folder `conf/` of the working directory; None where there is none, or it is Convolt's own."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and not folder.samefile(CONF) else None


def own_folders(arguments: Sequence[str] = ()) -> list[Path]:
    """Return the folders of the user's pages, in the order in which they are searched.

    Args:
        arguments: Of the command line, where `--config-dir` may name a further one.
    """
    named = [Path(text.partition("=")[2]) for text in arguments if text.startswith(("--config-dir=", "-cd="))]
    return [folder for folder in (own_folder(), *named) if folder and folder.is_dir()]
