"""What went wrong, told in one line."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def printable(name: object) -> str:
    """Write a file's name for people, in one line: bytes that are not UTF-8, and control characters, as escapes."""

    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(found[0])[1:-1]

    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", escape, str(name))


def some(names: Iterable[str], separator: str = ", ") -> str:
    """Name the first few of many."""
    listed = [*names]
    more = f"{separator}and {len(listed) - 5} more" if len(listed) > 5 else ""
    return separator.join(listed[:5]) + more


class _ToldInOneLine(Exception):  # noqa: N818 (no error of its own)
    """An error whose message says all: IPython shows it without a traceback."""

    _prefix = "error"

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows."""
        return [f"{self._prefix}: {self}"]


class UserError(_ToldInOneLine, ValueError):
    """A mistake of the user's: its message names the mistake and the mend in one line; exit status 2."""

    def __str__(self) -> str:
        return printable(super().__str__())


class RunError(_ToldInOneLine, RuntimeError):
    """A run failed for a reason that is told in one line: what happened and what to do; exit status 1."""

    _prefix = "failed"


class DivergedError(RunError):
    """The loss became infinite or not a number."""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Name the candidates that resemble a misspelt word.

    Args:
        word: What the user wrote.
        candidates: What would have been right.

    Returns:
        "; did you mean 'a' or 'b'?", or an empty string where nothing is near.
    """
    matches = get_close_matches(str(word), list(dict.fromkeys(candidates)), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


def list_options(options: Sequence[str]) -> str:
    """List the options at the end of a message: "; there are a, b", or an empty string where there are none."""
    return f"; there are {', '.join(options)}" if options else ""


ALSO_KNOWN_AS = {
    "epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs", "n_epochs": "trainer.max_epochs",
    "learning_rate": "optim.lr", "wd": "optim.weight_decay", "batch": "data.batch_size", "bs": "data.batch_size",
    "gpus": "trainer.devices", "num_gpus": "trainer.devices", "device": "trainer.accelerator", "cuda": "trainer=gpu",
    "workers": "trainer.threads", "num_workers": "trainer.threads", "num_threads": "trainer.threads",
    "amp": "trainer.precision", "fp16": "trainer.precision", "bf16": "trainer.precision", "aug": "augmentation",
    "dataset": "data", "optimizer": "optim", "network": "model", "arch": "model", "net": "model",
    "lr_scheduler": "scheduler", "name": "hydra.run.dir", "output": "hydra.run.dir", "output_dir": "hydra.run.dir",
}  # fmt: skip
"""What other programs call our keys."""


def did_you_mean_key(key: str, keys: Iterable[str]) -> str:
    """Name the keys that a wrong one may stand for: what others call so, those that end so, those that resemble it.

    >>> did_you_mean_key("lr", ["optim.lr", "seed"])
    "; did you mean 'optim.lr'?"
    """
    keys = list(dict.fromkeys(keys))
    last = key.rpartition(".")[2]
    known = [ALSO_KNOWN_AS[last]] if last in ALSO_KNOWN_AS else []
    ending = [each for each in keys if each.rpartition(".")[2] == last and each != key]
    matches = [*known, *ending][:3] or get_close_matches(key, keys, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""
