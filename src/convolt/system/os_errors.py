"""Errors of the operating system over files, each in words with what to do about it."""

import errno

from convolt.system.locks import has_no_locks

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAILING_DISK = (errno.EIO, errno.ENXIO, errno.ENODEV, getattr(errno, "ESTALE", errno.EIO), errno.ETIMEDOUT)

DISK_ERRORS = (*FULL_DISK, errno.EROFS, errno.EACCES, errno.EPERM, *_FAILING_DISK)
"""Those that a program cannot be blamed for."""


def explain_os_error(error: OSError | NotImplementedError, path: object) -> str:
    """Explain what is wrong with a file or folder and what to do: "/data cannot be written (...): make it writable".

    Args:
        error: What was raised; `NotImplementedError` where there are no locks.
        path: What was written to, for an error that names no file.
    """
    path = getattr(error, "filename", None) or path
    if has_no_locks(error) or not isinstance(error, OSError):
        return f"{path} is on a file system without locks: use a local disk"
    for numbers, explanation in (
        (FULL_DISK, f"no space is left on the disk of {path}: free some"),
        ((errno.EROFS,), f"{path} cannot be written ({error.strerror}): make it writable"),
        ((errno.EACCES, errno.EPERM), f"{path} cannot be accessed ({error.strerror}): change its permissions"),
        (_FAILING_DISK, f"the disk of {path} fails ({error.strerror}): repair it"),
        ((errno.ENOTDIR, errno.EEXIST), f"a part of the path {path} is a file, not a folder: move that file"),
    ):
        if error.errno in numbers:
            return explanation
    return f"{path}: {error.strerror or error}"
