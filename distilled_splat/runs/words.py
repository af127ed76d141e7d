"""The text of a foreign error inside one of our sentences."""

from __future__ import annotations

LONGEST = 400
"""Characters."""


def words_of(error: BaseException) -> str:
    """Return an error's text on one line of limited length, or the name of its type if it has no text."""
    return (" ".join(str(error).split()) or type(error).__name__)[:LONGEST]


def type_and_words(error: BaseException) -> str:
    """Return an error's type and text, for errors such as KeyError whose text alone says little."""
    words, kind = words_of(error), type(error).__name__
    return words if type(error) is ValueError or words == kind else f"{kind}: {words}"
