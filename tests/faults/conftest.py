"""How hard the attacks are: a few kills and flips of each in `make test`, twenty and more in `make test-slow`."""

from __future__ import annotations

import pytest


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often each long command is killed."""
    return request.config.getoption("--kills")
