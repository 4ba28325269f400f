"""How many simulated studies each check runs: 40 in `make test`, 400 or more in `make test-slow`."""

from __future__ import annotations

import pytest

from tests.validity.kit import Recorder


@pytest.fixture
def studies(request: pytest.FixtureRequest) -> int:
    """Number of simulated studies of a check."""
    chosen = request.config.getoption("--studies")
    assert isinstance(chosen, int)
    return chosen


@pytest.fixture
def record_rate(request: pytest.FixtureRequest) -> Recorder:
    """Checks a measured rate against what was promised, and keeps it for docs/concepts/validity.md."""
    return Recorder(request.config.getoption("--validity-out"))
