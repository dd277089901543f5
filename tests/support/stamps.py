"""785 pictures with captions, for long tests: Tux Paint's stamps, out of the Debian package.

`python -m tests.support.stamps` fetches it (161 MB, GPL-2) with apt-get into the cache; it is
read there, and is no part of kilotune.
"""

import json
import shutil
import subprocess
import tempfile
from hashlib import file_digest
from itertools import groupby
from pathlib import Path

from kilotune.data.packages import cache_folder

PACKAGE = "tuxpaint-stamps-default"
VERSION = "2022.06.04-1"
FILENAME = f"{PACKAGE}_{VERSION}_all.deb"
SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
CHINESE = "zh_CN.utf8="


def archive() -> Path:
    """The package in the cache."""
    return cache_folder() / "packages" / FILENAME


def fetch() -> None:
    """Download the package, unless it is there; raises unless it is the pinned one."""
    if archive().exists():
        return
    archive().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive().parent) as folder:
        command = ["apt-get", "download", f"{PACKAGE}={VERSION}"]
        subprocess.run(command, cwd=folder, check=True)
        file = Path(folder) / FILENAME
        with file.open("rb") as opened:
            assert file_digest(opened, "sha256").hexdigest() == SHA256, "not the pinned file"
        shutil.move(file, archive())


def unpack(folder: Path) -> Path:
    """The folder of pictures, unpacked under `folder`: a folder a category."""
    subprocess.run(["dpkg-deb", "-x", archive(), folder], check=True)
    return folder / "usr/share/tuxpaint/stamps"


def captions(picture: Path) -> tuple[str, str | None]:
    """What the picture shows, in English and, where that is known, in Chinese."""
    lines = picture.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    chinese = next((line for line in lines if line.startswith(CHINESE)), None)
    return lines[0], chinese and chinese.removeprefix(CHINESE)


def pictures(stamps: Path) -> list[Path]:
    """Every picture that has a caption, in the order of names."""
    return sorted(p for p in stamps.rglob("*.png") if p.with_suffix(".txt").exists())


def write_captions(stamps: Path) -> Path:
    """A chat of two questions about every picture: in English and, where it has one, in Chinese."""
    file = stamps / "captions.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for picture in pictures(stamps):
            english, chinese = captions(picture)
            source = picture.relative_to(stamps).as_posix()
            asked = [{"type": "image", "image": source}, {"type": "text", "text": "What is this?"}]
            messages = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": english},
            ]
            if chinese:
                messages += [
                    {"role": "user", "content": "用中文怎么说？"},
                    {"role": "assistant", "content": chinese},
                ]
            lines.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return file


def write_categories(stamps: Path, each: int) -> Path:
    """A CSV of about so many pictures of each category, the name of its folder."""
    file = stamps / "categories.csv"
    lines = ["image,text,label"]
    named = [picture.relative_to(stamps) for picture in pictures(stamps)]
    for category, group in groupby(named, key=lambda picture: picture.parts[0]):
        found = list(group)
        chosen = found[:: max(1, len(found) // each)][:each]
        lines += [f"{picture.as_posix()},Which kind?,{category}" for picture in chosen]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    fetch()
