"""What a training says when it refuses to begin."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import prepared


def refusal(config: Any) -> str:
    """Return the one sentence with which a config is refused."""
    with pytest.raises(SystemExit) as refused:
        prepared(config)
    assert isinstance(refused.value.code, str) and "\n" not in refused.value.code
    return refused.value.code
