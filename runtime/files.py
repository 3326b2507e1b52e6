"""Files and folders that are whole or not there: written beside their place, synced, renamed.

A rename within one folder is atomic on POSIX file systems (NFS and Lustre included), and it
is on the disk only after the folder itself is synced. What carries the suffix `.tmp` is
nobody's: a reader never looks at it and the next start removes it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"
# A run folder holds prompts, tokens of users and paths: it is its owner's alone.
FILE_MODE = 0o600
FOLDER_MODE = 0o700
# Why a system refuses to write.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
PROBE_BYTES = 1 << 20


def write_file(path: Path, data: bytes) -> None:
    """Put a file in place, whole; what stood there before stays until then.

    Raises OSError naming `path`; nothing of the new file is left behind.
    """
    temporary = temporary_of(path)
    with _named(path):
        try:
            _write_and_sync(temporary, data)
            temporary.replace(path)
            sync(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Put a JSON file in place, whole: sorted, indented, with a final newline; OSError as above."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_file(path, text.encode() + b"\n")


def make_folder(path: Path) -> None:
    """A folder that only its owner may enter; parents are made too, an existing one is kept."""
    with _named(path):
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=FOLDER_MODE, exist_ok=True)


def move_folder(temporary: Path, path: Path) -> None:
    """Put a synced folder in its place; one that stood there before is removed.

    Raises OSError naming `path`.
    """
    with _named(path):
        discard_folder(path)
        temporary.rename(path)
        sync(path.parent)


def discard_folder(path: Path) -> None:
    """Remove a folder, if there is one; half removed it already carries the temporary suffix."""
    if path.exists():
        doomed = temporary_of(path.with_name(f"{path.name}.old"))
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove what a dead process left unfinished directly in a folder; returns what it was."""
    found = sorted(folder.glob(f"*{TEMPORARY}"))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


@contextmanager
def refusals_told(folder: Path) -> Iterator[None]:
    """Turns what a library raises because the system refused to write into that OSError.

    torch says 'unexpected pos 704 vs 598' in an exception that is no Exception, safetensors
    and HDF5 put the reason into the text, Python leaves out where. What is not about writing
    passes unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    except BaseException as error:
        number = _refusal_in(str(error)) or _refusal_of(folder)
        if number:
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise


def temporary_of(path: Path) -> Path:
    """Where a file or folder is written before it is put in its place."""
    return path.with_name(path.name + TEMPORARY)


def sync(path: Path) -> None:
    """Return when the contents of a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _write_and_sync(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with os.fdopen(number, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(number)


def _refusal_in(text: str) -> int | None:
    return next((number for number in REFUSALS if os.strerror(number) in text), None)


def _refusal_of(folder: Path) -> int | None:
    """Why nothing can be written to a folder at this moment, None when it can."""
    probe = temporary_of(folder / "probe")
    try:
        _write_and_sync(probe, bytes(PROBE_BYTES))
    except OSError as error:
        return error.errno if error.errno in REFUSALS else None
    finally:
        probe.unlink(missing_ok=True)
    return None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the file system carry the name of the file that was wanted."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
