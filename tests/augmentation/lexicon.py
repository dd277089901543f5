"""A dictionary of a few words in the form of WordNet's files."""

from pathlib import Path

# lemma: part of speech, words of its one synset, times met under that part
SYNSETS = (
    ("noun", "n", "movie film picture"),
    ("noun", "n", "hour minute"),
    ("noun", "n", "story tale"),
    ("noun", "n", "apple orange"),
    ("verb", "v", "stop halt"),
    ("verb", "v", "buy purchase"),
    ("verb", "v", "cry weep"),
    ("adj", "a", "big large"),
    ("adj", "a", "funny comic"),
    ("adv", "r", "quickly fast"),
)
SENSE = {"n": "1", "v": "2", "a": "3", "r": "4"}
IRREGULAR = {
    "noun": "women woman",
    "verb": "bought buy\nstopped stop\nstopping stop\nwept weep",
    "adj": "bigger big\nbiggest big",
    "adv": "best well",
}


def write_wordnet(folder: Path) -> Path:
    """Write the dictionary into a new `folder`."""
    folder.mkdir()
    counts = []
    for name in ("noun", "verb", "adj", "adv"):
        data, index = "  1 A licence in lines that begin with spaces\n", []
        for place, part, words in SYNSETS:
            if place != name:
                continue
            lemmas = words.split()
            listed = " ".join(f"{lemma} 0" for lemma in lemmas)
            offset = len(data)
            data += f"{offset:08d} 00 {part} {len(lemmas):02x} {listed} 000 | a gloss\n"
            index += [f"{lemma} {part} 1 0 1 1 {offset:08d}  \n" for lemma in lemmas]
            counts += [f"{lemma}%{SENSE[part]}:00:00:: 1 9\n" for lemma in lemmas]
        (folder / f"data.{name}").write_text(data)
        (folder / f"index.{name}").write_text("".join(sorted(index)))
        (folder / f"{name}.exc").write_text(IRREGULAR[name] + "\n")
    (folder / "cntlist.rev").write_text("".join(counts))
    return folder
