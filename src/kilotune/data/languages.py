"""The language that a text in Latin letters is in, by its function words."""

import re
from collections import defaultdict

# Short words that nearly every sentence has some of. What several languages share counts less.
FUNCTION_WORDS = {
    "English": (
        "the of and to in is was for that it with as on be at by this have from or are an "
        "not but they you which were their has will can would there what been if more "
        "when who do a i he she we his her our your my no so do did into than then them "
        "only some could about these because s t"
    ),
    "German": (
        "der die das und ist nicht ein eine einen dem den des mit auf für von zu im sich "
        "auch es an werden aus er hat dass sie nach wird bei sind wie oder aber noch wenn "
        "ich wir kann über"
    ),
    "French": (
        "le la les de des et est en un une du que qui dans pour pas au sur plus par ne se "
        "ce il elle avec sont nous vous mais ou cette aux être leur fait sans peut était "
        "je ils où"
    ),
    "Spanish": (
        "el la los las de y que en un una es no se del por con para su al lo como más "
        "pero sus este fue esta son entre está muy sin sobre también hay cuando ya desde "
        "porque todo si"
    ),
    "Italian": (
        "il lo la gli le di e che è in un una non si del della con per sono da al come "
        "più ma nel anche alla dei delle ha questo essere i o sul ci se dal era molto "
        "quando"
    ),
    "Portuguese": (
        "o os as de e que em um uma é não se do da dos das no na com por para mais ao "
        "como mas foi seu sua ou ser são pelo pela também já está muito quando isso você "
        "nos a porque nas ela ele"
    ),
    "Dutch": (
        "de het een en van is niet dat in te op zijn met voor die aan er ook maar om bij "
        "hij naar dan nog wel worden door ze als uit wordt deze kan wat hebben geen over "
        "je wij"
    ),
    "Scandinavian": (
        "och det att som en på är av för med den till inte om ett har han jag var men og "
        "i at er til ikke et af fra kan vi så skal når eller eft efter ved hun blev være"
    ),
    "Polish": (
        "i w nie na się z do to że jest o jak ale po co tak za od przez dla są być jego "
        "tym czy może był oraz tego które który już przy bardzo tylko ma lub"
    ),
    "Czech": (
        "a v na se že je to s z do o ve pro jako by jsou ale tak za po od jeho nebo být "
        "jsem které který už při také jen byl bylo co má podle může"
    ),
    "Turkish": (
        "ve bir bu da de için ile çok olarak daha var gibi ne ama o olan kadar sonra en "
        "değil mi ben her şey veya ancak tarafından ise bunu ya"
    ),
    "Indonesian": (
        "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga ke karena "
        "adalah oleh ada atau saya bisa sudah mereka dia telah kami kita lebih seperti "
        "anda"
    ),
    "Romanian": (
        "și de la în a cu nu pe că o este un din care pentru mai se sunt ce au dar să fi "
        "sau prin după fost lui această acest când foarte"
    ),
    "Finnish": (
        "ja on ei se että oli hän mutta joka kun ovat myös niin kuin tai ole vain jo sen "
        "tämä mitä voi jos ovat olla hänen"
    ),
}
OWNERS = {
    word: [name for name, words in FUNCTION_WORDS.items() if word in words.split()]
    for word in " ".join(FUNCTION_WORDS.values()).split()
}

WORDS = re.compile(r"[^\W\d_]+")
# Code is full of these, and of English words. Prose has fewer.
CODE_SIGNS, CODE_SHARE = re.compile(r"[{}\[\]()=<>;_/\\|#*]"), 0.05
# Fewer words than this tell nothing, and more than this tell no more.
LEAST_WORDS, MOST_WORDS = 8, 100
# In running text a third to a half of the words are such words; some of them are not listed here.
LEAST_SHARE, LEAST_DIFFERENT = 0.15, 4
# The runner-up must be this far behind.
MARGIN = 2.0


def language(text: str) -> str | None:
    """The language of a text in Latin letters; None where that is not plain, and for code.

    A word counts 1, divided by the languages that have it; the best must have twice the score of
    the next, and several different words.
    """
    words = WORDS.findall(text.lower())[:MOST_WORDS]
    if len(words) < LEAST_WORDS or len(CODE_SIGNS.findall(text)) > CODE_SHARE * len(text):
        return None
    scores: dict[str, float] = defaultdict(float)
    different: dict[str, set[str]] = defaultdict(set)
    for word in words:
        names = OWNERS.get(word, ())
        for name in names:
            scores[name] += 1 / len(names)
            different[name].add(word)
    if not scores:
        return None
    best, *others = sorted(scores, key=lambda name: -scores[name])
    score, next_score = scores[best], max((scores[name] for name in others), default=0)
    plain = (
        score >= LEAST_SHARE * len(words)
        and score >= MARGIN * next_score
        and len(different[best]) >= LEAST_DIFFERENT
    )
    return best if plain else None
