"""scikit-learn's handwritten digits as PNG files, with a question about each as a chat.

`python -m examples.vision.digits FOLDER [COUNT]` writes images, two files of chats, and a model to
begin with: a random one, since none that sees comes with kilotune. A real one takes its place by
its name alone (`model.name`).
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 56  # pixels of a side: four tokens of Qwen2-VL


def write_images(folder: Path, numbers: Sequence[int]) -> dict[str, int]:
    """Write the images of these numbers; returns what each file shows."""
    digits = load_digits()
    shown = {}
    for number in numbers:
        grey = (digits.images[number] * 15.9).astype(np.uint8)
        drawn = Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        if number % 5 == 0:  # as pictures come: some of them half transparent
            drawn.putalpha(200)
        drawn.save(folder / f"{number}.png")
        shown[f"{number}.png"] = int(digits.target[number])
    return shown


def write_chats(
    file: Path, shown: dict[str, int], question: str, answer: Callable[[int], str]
) -> None:
    """Write a chat a line: the image and a question about it, and the answer."""
    with file.open("w", encoding="utf-8") as lines:
        for image, digit in shown.items():
            asked = [{"type": "image", "image": image}, {"type": "text", "text": question}]
            messages = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answer(digit)},
            ]
            lines.write(json.dumps({"messages": messages}) + "\n")


def main(folder: Path, count: int = 1000) -> None:
    """Write everything that the example needs into `folder`."""
    from tests.support.tiny_vision import write_learner

    folder.mkdir(parents=True, exist_ok=True)
    shown = write_images(folder, range(count))
    write_chats(folder / "read.jsonl", shown, "Digit?", str)
    write_chats(folder / "odd.jsonl", shown, "Odd?", lambda digit: str(digit % 2))
    write_learner(folder / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
