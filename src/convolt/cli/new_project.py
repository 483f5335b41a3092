"""A small project of one's own, which works at once.

  convolt init FOLDER      lays it there; without FOLDER in the working directory

It holds a network, the page that names it, a page of an optimizer, a study, and a test of the network; README.md says
how they are used. Nothing that is there already is overwritten.
"""

from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile

from convolt.errors import UserError
from convolt.system.arguments import Parser, run_command, typed_path

TEMPLATES = Path(__file__).resolve().parent / "project"
"""The files of the project."""

HIDDEN = {"gitignore": ".gitignore"}
"""Files that begin with a dot only where they are used."""


def lay_project(folder: Path) -> list[Path]:
    """Write the files of a project.

    Args:
        folder: Where to; made where absent.

    Returns:
        The files.

    Raises:
        UserError: When one of them is there already, or the folder cannot be written; nothing was overwritten.
    """
    names = [path.relative_to(TEMPLATES) for path in sorted(TEMPLATES.rglob("*")) if path.is_file()]
    names = [name for name in names if "__pycache__" not in name.parts]
    targets = {name: folder / name.with_name(HIDDEN.get(name.name, name.name)) for name in names}
    for target in targets.values():
        if target.exists() or target.is_symlink():
            raise UserError(f"{target} is there already, and nothing was written: name another folder")
    try:
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(TEMPLATES / name, target)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): name another folder") from error
    return list(targets.values())


def _work(argv: Sequence[str]) -> int:
    parser = Parser("init", __doc__ or "", takes_run=False)
    parser.add_argument(
        "folder", nargs="?", type=typed_path, default=Path(), metavar="FOLDER", help="default: the working directory"
    )
    folder = parser.parse(argv).folder
    for file in lay_project(folder):
        print(file)
    there = "" if folder == Path() else f"cd {folder} && "
    print(f"\n{there}convolt train model=mine; {folder / 'README.md'} says more")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 for a user's mistake.

    Args:
        argv: Arguments; those of the process by default.
    """
    return run_command(_work, argv)
