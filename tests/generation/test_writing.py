"""Writing, guessing and translating by tiny random models, in their true form on disk."""

import random
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from kilotune.augmentation.operation import Draw
from kilotune.augmentation.paraphrase import MaskedWord, in_context
from kilotune.augmentation.protection import Protection
from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.session.training_augmentation import OwnModels
from tests.support.made import classified

WORDS = ["the", "film", "story", "was", "very", "good", "bad", "fine", "today", "it", "is", "a"]


def own(model: Path, **augment: object) -> OwnModels:
    settings = {
        "data": {"train": "none.csv"},
        "model": {"name": str(model), "precision": "float32"},
        "augment": augment,
    }
    return OwnModels(load_recipe(settings=settings), Silent())


def test_the_base_model_writes_the_same_for_the_same_seed(tiny_model: Path) -> None:
    writer = own(tiny_model).writer()
    asked = [(Message("user", f"Say {word} again"),) for word in ("this", "that")]
    first = writer.write(asked, temperature=1.0, seed=1)
    assert first == writer.write(asked, temperature=1.0, seed=1)
    assert len(first) == 2
    assert writer.write([], temperature=1.0, seed=1) == []


def word_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[MASK]", "</s>", *WORDS, "eng", "fra"]
    vocabulary = {word: index for index, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        eos_token="</s>",
    )  # fmt: skip


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_masked_model_guesses_words_of_its_own(tiny_model: Path, masked: Path) -> None:
    guesser = own(tiny_model, masked=str(masked)).guesser()
    gaps = [MaskedWord("the ", "film", " was good"), MaskedWord("it is a ", "story", "")]
    found = guesser.guesses(gaps)
    assert [len(each) for each in found] == [12, 12]
    assert all(word in [*WORDS, "eng", "fra"] for each in found for word, _ in each)
    # The gain is the difference of log-likelihoods in the masked place.
    model, tokenizer = guesser.model, guesser.tokenizer  # type: ignore[attr-defined]
    ids = tokenizer("the [MASK] was good", return_tensors="pt")["input_ids"]
    scores = model(ids).logits[0, 1].log_softmax(-1)
    word, gain = found[0][0]
    before, after = (tokenizer.convert_tokens_to_ids(name) for name in ("film", word))
    expected = (scores[after] - scores[before]).detach()
    assert gain == pytest.approx(float(expected), abs=1e-5)


def test_an_encoder_says_how_near_texts_are_whatever_is_asked_beside(
    tiny_model: Path, masked: Path, tmp_path: Path
) -> None:
    nearness = own(tiny_model, embedding=str(masked)).nearness()
    assert nearness is not None
    pairs = [("a film", "a film"), ("the film was good", "a story"), ("a story", ""), ("", "")]
    found = nearness(pairs)
    assert found == pytest.approx([nearness([pair])[0] for pair in pairs], abs=1e-5)
    assert (found[0], found[2], found[3]) == (1.0, 0.0, 1.0)
    # By hand, without padding: the mean of the last states.
    tokenizer, model = AutoTokenizer.from_pretrained(masked), BertModel.from_pretrained(masked)
    means = [
        model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        for text in pairs[1]
    ]
    expected = torch.nn.functional.cosine_similarity(*means, dim=0)
    assert found[1] == pytest.approx(float(expected.detach()), abs=1e-5)
    assert len(nearness([("good " * 200, "the film")])) == 1  # longer than the model takes
    with pytest.raises(KilotuneError, match="cannot read a sentence encoder"):
        own(tiny_model, embedding=str(tmp_path)).nearness()


def test_a_causal_models_gain_is_that_of_the_whole_sentence(tiny_model: Path) -> None:
    guesser = own(tiny_model).guesser()
    texts = ["a good film", "a bad film today"]
    model, tokenizer = guesser.model, guesser.tokenizer  # type: ignore[attr-defined]
    scores = guesser._likelihoods(texts)  # type: ignore[attr-defined]
    for text, score in zip(texts, scores, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        loss = model(ids, labels=ids).loss
        assert score == pytest.approx(-float(loss.detach()) * (ids.shape[1] - 1), rel=1e-4)


def test_texts_too_long_for_a_model_get_no_answer_guess_or_translation(
    tiny_model: Path, masked: Path, many: Path
) -> None:
    long = "a film " * 400  # of 2,800 tokens for the one model, of 800 for the others
    writer = own(tiny_model).writer()
    asked = [(Message("user", text),) for text in (long, "a film")]
    assert writer.write(asked, temperature=1.0, seed=1)[0] == ""
    gaps = [MaskedWord(long, "film", " was good"), MaskedWord("the ", "film", " was good")]
    for models in (own(tiny_model, masked=str(masked)), own(tiny_model)):
        guesses = models.guesser().guesses(gaps)
        assert guesses[0] == []
        assert guesses[1] == models.guesser().guesses(gaps[1:])[0]
    pivot = own(tiny_model).translator(f"{many}@eng-fra", 0)
    assert [bool(text) for text in pivot.there([long, "the film was good"])] == [False, True]


def test_missing_models_are_said(tiny_model: Path, tmp_path: Path) -> None:
    models = own(tiny_model, masked=str(tmp_path))
    with pytest.raises(KilotuneError, match="cannot read a masked language model"):
        models.guesser()
    with pytest.raises(KilotuneError, match="cannot read a sequence-to-sequence model"):
        models.translator(f"{tmp_path},{tmp_path}", 0)
    with pytest.raises(KilotuneError, match="neither two models nor one with two languages"):
        models.translator(str(tmp_path), 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    tokenizer = word_tokenizer()
    config = M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=64, pad_token_id=0, eos_token_id=3,
        bos_token_id=3, decoder_start_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        M2M100ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_one_model_of_many_languages_begins_with_the_language(tiny_model: Path, many: Path) -> None:
    pivot = own(tiny_model).translator(f"{many}@eng-fra", 0)
    said = pivot.there(["the film was good", "it is a story today"])
    assert said == pivot.there(["the film was good", "it is a story today"])
    assert all("fra" in text.split()[:2] for text in said)
    assert all("eng" in text.split()[:2] for text in pivot.back(said))


@pytest.mark.slow
def test_the_real_model_finds_another_word_that_fits(smollm2: Path) -> None:
    bulk = in_context(own(smollm2).guesser(), Protection(), 0.1)
    every = classified(("The director has succeeded by focusing intently on the characters.", "x"))
    [[made]] = bulk([Draw(every[0], random.Random(3))])
    assert len(made.text.split()) == len(every[0].text.split())
    assert made.text != every[0].text
