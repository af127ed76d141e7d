"""The findings of the doctor: one line each, which says what is good or what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from distilled_splat.runs.words import type_and_words, words_of


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's output.

    Attributes:
        subject: what was looked at.
        words: what was found; what to do about it, unless all is well.
        verdict: `ok`; `note` if something optional is missing; `fault` if students cannot be trained.
    """

    subject: str
    words: str
    verdict: Literal["ok", "note", "fault"] = "ok"


def looked_at(subject: str, look: Callable[[], Finding]) -> Finding:
    """Check something. An error in the check is a finding, too.

    Args:
        subject: what is looked at.
        look: makes the check and returns the finding.
    """
    try:
        return look()
    except (Exception, SystemExit) as error:
        # a refusal is a sentence already
        return Finding(subject, words_of(error) if isinstance(error, SystemExit) else type_and_words(error), "fault")
