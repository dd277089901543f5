import pytest

from kilotune.data.languages import FUNCTION_WORDS, language

TEXTS = {
    "English": "The bridge was closed for two weeks because the river had risen over its banks.",
    "German": "Die Brücke war zwei Wochen lang gesperrt, weil der Fluss über die Ufer getreten "
    "ist.",
    "French": "Le pont est resté fermé pendant deux semaines, car la rivière avait débordé dans "
    "les rues.",
    "Spanish": "El puente estuvo cerrado dos semanas porque el río se había salido de su cauce.",
    "Italian": "Il ponte è rimasto chiuso per due settimane perché il fiume era uscito dagli "
    "argini.",
    "Portuguese": "A ponte ficou fechada durante duas semanas porque o rio não cabia mais nas "
    "margens.",
    "Dutch": "De brug was twee weken gesloten omdat het water van de rivier te hoog stond.",
    "Scandinavian": "Bron var stängd i två veckor eftersom ån hade stigit över kanten och det var "
    "farligt.",
    "Polish": "Most był zamknięty przez dwa tygodnie, bo rzeka nie mieściła się w korycie i to "
    "było groźne.",
    "Czech": "Most byl dva týdny zavřený, protože se řeka vylila z břehů a bylo to nebezpečné.",
    "Turkish": "Köprü iki hafta kapalı kaldı, çünkü nehir çok yükseldi ve bu her zaman bir "
    "tehlike oldu.",
    "Indonesian": "Jembatan itu ditutup dua minggu karena air sungai naik dan tidak aman untuk "
    "dilalui.",
    "Romanian": "Podul a fost închis două săptămâni pentru că râul nu mai încăpea în albie și era "
    "periculos.",
    "Finnish": "Silta oli suljettu kaksi viikkoa, kun joki tulvi ja se oli niin vaarallista että "
    "ei voi uskoa.",
}


def test_every_language_is_told_by_a_sentence() -> None:
    assert {name: language(text) for name, text in TEXTS.items()} == {name: name for name in TEXTS}
    assert set(TEXTS) == set(FUNCTION_WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The end.",
        "Berlin Paris Madrid Roma Lisboa Amsterdam Stockholm Warszawa Praha",
        "la la la la la la la la la la la la",
        "def main(args): return [item.name for item in args if item.name]",
        "这座桥因为河水上涨关闭了两个星期，大家只好绕路走。",
        "Der Mann und the woman went mit dem car to the Haus in der city and das Kind",
    ],
)
def test_what_is_not_plainly_one_language_is_none(text: str) -> None:
    assert language(text) is None
