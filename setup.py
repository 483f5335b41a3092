"""What pyproject.toml cannot say: a wheel holds conf/, which stands at the top of the repository, as convolt/conf."""

from pathlib import Path
from shutil import copyfile, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies the configs too; an editable install uses those of the checkout."""

    def run(self) -> None:
        """Build the packages."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "convolt", "conf")
        rmtree(folder, ignore_errors=True)  # pages of an earlier build may be gone
        for page in Path("conf").rglob("*.yaml"):
            target = folder / page.relative_to("conf")
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(page, target)


setup(cmdclass={"build_py": BuildWithConfigs})
