"""Locks on files, by the operating system: they go with the process that held them, however it ended."""

import errno
import inspect
from pathlib import Path

from filelock import FileLock

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


def lock(path: Path) -> FileLock:
    """Make a lock, not taken yet.

    Where a file system has no locks, newer versions of filelock would take the mere existence of the file for one,
    which a killed process leaves behind; this one raises instead.
    """
    options = (
        {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters else {}
    )
    return FileLock(path, **options)  # type: ignore[arg-type]


def has_no_locks(error: BaseException) -> bool:
    """Tell whether an error says that the file system has no locks."""
    return isinstance(error, NotImplementedError) or (isinstance(error, OSError) and error.errno in _NO_LOCKS)
