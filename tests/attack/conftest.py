"""What the attacks share: one stage for all cases of a test process."""

import pytest

from tests.attack.scenes import Stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("attack"))
