"""Makes the helpers in this folder importable, here and in processes that tests start."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarl import registry

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", autouse=True)
def _hill_climber() -> Iterator[None]:
    """Registers the hill climber for the tests of this folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._agents, "hill-climber", "hill_climber:HillClimber")
        patch.setitem(registry._agents, "hoarder", "hill_climber:Hoarder")
        yield
