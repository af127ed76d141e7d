"""The members of a folder or of a zip archive of a stranger's, each of bounded size and none outside."""

from __future__ import annotations

import zipfile
from pathlib import Path

from distilled_splat.runs.words import words_of


class Archive:
    """Files by their plain names, in a folder or in a .zip.

    Attributes:
        path: the folder or the archive.
        size: bytes that it takes on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = [item for item in path.iterdir() if item.is_file()] if path.is_dir() else [path]
        self.size = sum(item.stat().st_size for item in files)

    def read(self, name: object, limit: int) -> bytes:
        """Read one member.

        Args:
            name: as a stranger gives it.
            limit: the most bytes that it may have.

        Raises:
            ValueError: if the name is none, or leads elsewhere, or the member is missing, damaged or larger.
        """
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise ValueError(f"{self.path} refers to {name!r}, which is not the name of a file in it.")
        try:
            if self.path.is_dir():
                if not (self.path / name).is_file():  # a pipe would never end
                    raise FileNotFoundError("it is missing")
                with (self.path / name).open("rb") as file:
                    content = file.read(limit + 1)
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                    content = file.read(limit + 1)
        except Exception as error:  # zipfile raises what its decoders raise
            raise ValueError(f"{self.path} is damaged: {name} cannot be read ({words_of(error)}).") from error
        if len(content) > limit:
            raise ValueError(f"{self.path} is not a splat: {name} has more than {limit} bytes.")
        return content
