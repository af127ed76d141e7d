"""Read files from an untrusted folder or zip archive: no file outside of it, and none above a size limit."""

from __future__ import annotations

import zipfile
from pathlib import Path

from distilled_splat.runs.words import words_of


class Archive:
    """The files in a folder or in a .zip, by their plain names.

    Attributes:
        path: the folder or the archive.
        size: its bytes on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = [item for item in path.iterdir() if item.is_file()] if path.is_dir() else [path]
        self.size = sum(item.stat().st_size for item in files)

    def read(self, name: object, limit: int) -> bytes:
        """Read one file.

        Args:
            name: untrusted name of the file.
            limit: largest number of bytes.

        Raises:
            ValueError: if the name is not a plain name, or the file is missing, damaged or larger.
        """
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise ValueError(f"{self.path} refers to {name!r}, which is not the name of a file in it.")
        try:
            if self.path.is_dir():
                if not (self.path / name).is_file():  # reading a pipe would never end
                    raise FileNotFoundError("it is missing")
                with (self.path / name).open("rb") as file:
                    content = file.read(limit + 1)
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                    content = file.read(limit + 1)
        except Exception as error:  # zipfile passes on the errors of its decoders
            raise ValueError(f"{self.path} is damaged: {name} cannot be read ({words_of(error)}).") from error
        if len(content) > limit:
            raise ValueError(f"{self.path} is not a splat: {name} has more than {limit} bytes.")
        return content
