"""How an error of somebody else's is told inside a sentence of ours."""

from __future__ import annotations

LONGEST = 400
"""Characters."""


def words_of(error: BaseException) -> str:
    """Return an error's words on one line of bounded length; the name of its type if it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:LONGEST]


def type_and_words(error: BaseException) -> str:
    """Return an error's words after its type, for errors such as KeyError, whose words alone say little."""
    words, kind = words_of(error), type(error).__name__
    return words if type(error) is ValueError or words == kind else f"{kind}: {words}"
