"""What the doctor finds: one line each, good, or with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from distilled_splat.runs.words import type_and_words, words_of


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        words: what was found; what to do about it, unless all is well.
        verdict: `ok`; `note` where something is missing that the main job can do without; `fault` where it cannot.
    """

    subject: str
    words: str
    verdict: Literal["ok", "note", "fault"] = "ok"


def looked_at(subject: str, look: Callable[[], Finding]) -> Finding:
    """Look at something, and make whatever goes wrong with that a finding, too.

    Args:
        subject: what is looked at.
        look: returns what it finds.
    """
    try:
        return look()
    except (Exception, SystemExit) as error:
        # a refusal is a sentence already
        return Finding(subject, words_of(error) if isinstance(error, SystemExit) else type_and_words(error), "fault")
