"""Writes files that are whole or absent, and reads small untrusted files."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

SECONDS_BETWEEN_TRIES = (0.01, 0.03, 0.1, 0.3, 0.6)


def write_beside(
    path: Path, write: Callable[[Path], object], scratch: Optional[Path] = None, lasting: bool = True
) -> None:
    """Write a file so that it is whole or absent: `write` fills a temporary file, which is then renamed to `path`.

    Args:
        path: the final file; its folder is made.
        write: called with the path of the temporary file.
        scratch: folder of the temporary file, on the same file system; None: the folder of `path`.
        lasting: whether the file must survive a power failure right afterwards; this waits for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (scratch or path.parent) / f".{path.name}.{unique()}.part"
    try:
        write(temporary)
        if lasting:
            onto_disk(temporary)
        replace(temporary, path)
        if lasting:
            onto_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def unique() -> str:
    """Return a name of this process and this call: in two containers, two processes can have one number."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def onto_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder (which Windows cannot open)."""
    if path.is_dir():
        if os.name != "posix":
            return
        number = os.open(path, os.O_RDONLY)
    else:
        number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """Make a folder that is whole or absent: this yields a temporary folder, which is then renamed to `folder`.

    The caller removes an earlier folder of this name before the context ends.
    """
    part = folder.with_name(f".{folder.name}.{unique()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace(source: Path, target: Path) -> None:
    """Rename a file so that it replaces another one.

    Windows refuses this while a process reads the other file, so this function retries for a second.

    Raises:
        OSError: if the file cannot be renamed.
    """
    for seconds in SECONDS_BETWEEN_TRIES:
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(seconds)
    os.replace(source, target)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    write_beside(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, content: object, lasting: bool = True) -> None:
    """Write JSON, whole or not at all; see `write_beside`."""
    text = json.dumps(content, indent=2) + "\n"
    write_beside(path, lambda temporary: temporary.write_text(text, encoding="utf8"), lasting=lasting)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose result it will hold. Its folder is made.

    Raises:
        ValueError: if the path is a folder, or no file can be written beside it.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): give another place.") from None


LONGEST_TEXT = 1 << 24
"""Characters. A config.yml has about 10 thousand, a record about 30 per photo."""


def read_text(path: Path) -> str:
    """Read a small untrusted text file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is not text, or too long.
    """
    if not path.is_file():  # reading a pipe would never end
        raise FileNotFoundError(path)
    with path.open(encoding="utf-8-sig") as file:  # some editors on Windows write a mark first
        text = file.read(LONGEST_TEXT)
    if len(text) == LONGEST_TEXT:
        raise ValueError(f"{path} is too long.")
    return text
