"""Words of users in Markdown, shown as they are: no HTML, links, tables or headings of theirs."""

import re

# What means something anywhere, and what does at the beginning of a line.
ANYWHERE = re.compile(r"([\\`*_\[\]<>|~&$@]|(?<=:)//|(?<=www)\.)", re.IGNORECASE)
LEADING = re.compile(r"([#+>=:-]|\d+(?=[.)]))")
BACKTICKS = re.compile(r"`+")


def plain(text: str) -> str:
    """`text` on one line, shown letter by letter, also in a cell of a table."""
    line = ANYWHERE.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
    first = LEADING.match(line)
    if first is None:
        return line
    # No digit can be escaped, only what makes a list of it.
    place = first.end() if first[0].isdigit() else 0
    return f"{line[:place]}\\{line[place:]}"


def code(text: str) -> str:
    """`text` as a code span on one line, whatever backticks are in it."""
    line = " ".join(text.split()) or " "  # two backticks alone are no span
    fence = "`" * (max(map(len, BACKTICKS.findall(line)), default=0) + 1)
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def block(text: str, language: str) -> str:
    """`text` as a block of code, whatever backticks are in it."""
    fence = "`" * max(3, max(map(len, BACKTICKS.findall(text)), default=0) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
