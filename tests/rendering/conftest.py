"""Real vocabularies for rendering."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def qwen_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen's own qwen.tiktoken; `make assets` has fetched it."""
    from tests.support import assets

    return assets.qwen_ranks(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def qwen_base(qwen_ranks: Path) -> Any:
    """The tokenizer of first-generation Qwen, which has no chat template. Not to be changed."""
    from kilotune.models.qwen import qwen_tokenizer

    return qwen_tokenizer(qwen_ranks)


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Any:
    """SmolLM2's own tokenizer. Not to be changed."""
    from kilotune.models.source import source_at

    return source_at(smollm2).tokenizer()
