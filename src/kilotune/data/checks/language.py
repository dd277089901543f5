"""Answers in another language than the rest, in the same letters."""

import re
from collections import Counter
from collections.abc import Sequence

from kilotune.data.checks.markup import CODE
from kilotune.data.example import Example
from kilotune.data.finding import Finding, about_rows
from kilotune.data.languages import language

# So many answers must plainly be in one language, and nearly all of those that plainly are in any.
LEAST_ANSWERS, USUAL_SHARE = 10, 0.9
# A conversation that speaks of languages explains an answer in another one.
SPEAKS_OF_LANGUAGES = re.compile(
    r"translat|überset|tradu[cziç]|vertaal|överset|oversæt|tłumacz|přelož|çevir|terjemah|"
    r"\b(?:english|german|french|spanish|italian|portuguese|dutch|swedish|danish|norwegian|polish|"
    r"czech|turkish|indonesian|malay|romanian|finnish|latin|deutsch|englisch|français|anglais|"
    r"español|inglés|italiano|inglese|português|inglês|nederlands|engels|svenska|polsk[iu]|"
    r"bahasa)\b",
    re.IGNORECASE,
)


def answer_language(examples: Sequence[Example]) -> list[Finding]:
    """Answers that plainly are in another language than nine of ten.

    By function words of 14 languages in Latin letters. Left alone are answers in the language of
    their own prompt, and those of conversations that name a language or ask for a translation.
    """
    found = {e.id: said for e in examples if (said := language(CODE.sub("", e.answer or "")))}
    counts = Counter(found.values())
    if len(counts) < 2:
        return []
    usual, times = counts.most_common(1)[0]
    if times < max(LEAST_ANSWERS, USUAL_SHARE * len(found)):
        return []
    odd = {
        example.id: said
        for example in examples
        if (said := found.get(example.id, usual)) != usual and not _explained(example, said)
    }
    others = ", ".join(sorted(set(odd.values())))
    return about_rows("answer-language", list(odd), others=others, usual=usual)


def _explained(example: Example, said: str) -> bool:
    asked = " ".join(message.text for message in example.prompt)
    return SPEAKS_OF_LANGUAGES.search(asked) is not None or language(example.text) == said
