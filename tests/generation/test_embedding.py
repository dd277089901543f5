"""Nearness in meaning by a real encoder."""

from pathlib import Path

import pytest

from kilotune.generation.embedding import load_nearness
from tests.support.encoder import encoder


@pytest.mark.long
def test_cosines_are_those_that_the_encoder_is_published_with(tmp_path: Path) -> None:
    nearness = load_nearness(str(encoder(tmp_path)))
    said = "That is a happy person"
    others = ["That is a happy dog", "That is a very happy person", "Today is a sunny day", said]
    found = nearness([(said, other) for other in others])
    assert found == pytest.approx([0.695, 0.943, 0.257, 1.0], abs=1e-3)
