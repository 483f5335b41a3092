"""Convolt: image-classification ablations whose numbers can be trusted.

The names below are the Python interface (docs/python.md); everything else may change without a word.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolt.api.load import load
    from convolt.api.run import Run
    from convolt.api.run_study import study
    from convolt.api.study import Study
    from convolt.api.train import train
    from convolt.errors import RunError, UserError

__version__ = "0.1.0"

__all__ = ["Run", "RunError", "Study", "UserError", "load", "study", "train"]

_PLACES = {
    "Run": "api.run", "RunError": "errors", "Study": "api.study", "UserError": "errors", "load": "api.load",
    "study": "api.run_study", "train": "api.train",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `import convolt` takes no time."""
    if name not in _PLACES:
        raise AttributeError(f"module 'convolt' has no attribute {name!r}")
    return getattr(import_module(f"convolt.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
