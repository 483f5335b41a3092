"""Locks on files, by the operating system: they are released when the process ends, however it ends."""

import errno
import inspect
from pathlib import Path

from filelock import FileLock

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)

_SINGLE_NODE_OPTIONS = {"nfs": ("nolock", "local_lock=flock", "local_lock=all"), "lustre": ("localflock",)}
"""Mount options by which a network file system keeps the kind of locks taken here on the node itself."""


def make_lock(path: Path) -> FileLock:
    """Make a lock, not acquired yet.

    Where a file system has no locks, newer versions of filelock would take the mere existence of the file for one,
    which a killed process leaves behind; this one raises instead.
    """
    has_option = "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters
    return FileLock(path, **({"fallback_to_soft": False} if has_option else {}))  # type: ignore[arg-type]


def has_no_locks(error: BaseException) -> bool:
    """Return whether an error says that the file system has no locks."""
    return isinstance(error, NotImplementedError) or (isinstance(error, OSError) and error.errno in _NO_LOCKS)


def single_node_mount(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the mount point of a network file system whose locks other nodes do not see, or None.

    Args:
        folder: A folder on it, which need not be there yet.
        mounts: What is mounted where, as Linux lists it.
    """
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:  # not Linux
        return None
    above = {str(path) for path in (folder.resolve(), *folder.resolve().parents)}
    inside = [line for line in lines if len(line) > 3 and line[1].replace("\\040", " ") in above]
    if not inside:
        return None
    _, point, kind, options, *_ = max(inside, key=lambda line: len(line[1]))
    local = _SINGLE_NODE_OPTIONS.get(kind.removesuffix("4"), ())
    return point.replace("\\040", " ") if set(options.split(",")) & set(local) else None
