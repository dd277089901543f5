"""What tests read besides the built-in model: fetched by `make assets`, read offline.

`python -m tests.support.assets` fetches.
"""

import zipfile
from pathlib import Path

from kilotune.augmentation.dictionaries import DICTIONARIES, fetch_dictionary
from kilotune.data.packages import Package, cache_folder, fetch

QWEN = Package(
    name="dashscope",
    version="2.0.2",
    filename="dashscope-2.0.2-py3-none-any.whl",
    sha256="0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258",
)


def qwen_ranks(folder: Path) -> Path:
    """Qwen's real vocabulary, unpacked into `folder`."""
    with zipfile.ZipFile(cache_folder() / "packages" / QWEN.filename) as wheel:
        return Path(wheel.extract("dashscope/resources/qwen.tiktoken", folder))


def qwen_source() -> str:
    """The source text of the vendor's own tokenizer, to compare with; it is not run."""
    with zipfile.ZipFile(cache_folder() / "packages" / QWEN.filename) as wheel:
        return wheel.read("dashscope/tokenizers/qwen_tokenizer.py").decode()


if __name__ == "__main__":
    fetch(QWEN)
    for dictionary in DICTIONARIES:
        fetch_dictionary(dictionary)
