"""Examples to answers: prompts by the chat template, cut to fit, then generated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import GenerationConfig

from kilotune.data.example import Example, Image
from kilotune.data.finding import Finding, finding, stop_on_errors
from kilotune.data.normalise import without_answer
from kilotune.generation.decoding import (
    Generation,
    decoding_settings,
    finite,
    generate,
    generation_config,
    plainly_greedy,
    read_answer,
    room,
)
from kilotune.generation.kept import KeptStates
from kilotune.generation.prompts import Prompts
from kilotune.generation.score import LabelScores, LabelSet, answer_losses, label_ids, score_labels
from kilotune.models.pretrained import Model
from kilotune.models.vision import Eyes
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import DecodingSettings
from kilotune.rendering.limits import UNLIMITED, Limits
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.truncation import fit
from kilotune.rendering.wording import Wording

# Answers read off the labels' scores that are generated as well, to be sure.
TRIED = 2


@dataclass(frozen=True, slots=True)
class Prompting:
    """How examples are put to a model, the same in validation, judging and prediction.

    A prompt is refused that leaves no room for an answer within the model's own `limits`.
    `eyes` are how it is given images, None for a model that takes none.
    """

    template: ChatTemplate
    wording: Wording
    generation: GenerationConfig
    max_length: int
    seed: int
    limits: Limits = UNLIMITED
    eyes: Eyes | None = None

    def fit(self, example: Example) -> tuple[Example, bool]:
        """The example in words, cut to `max_length` tokens, and whether that took anything."""
        return fit(self.template, self.wording, example, self.max_length)

    def tight(self, labels: Sequence[str] = ()) -> bool:
        """Whether a prompt of `max_length` tokens may leave an answer no room."""
        positions = self.limits.positions
        return positions is not None and self.max_length + self._room(labels) > positions

    def _room(self, labels: Sequence[str]) -> int:
        """The most tokens that may follow a prompt: of an answer, or of one of `labels`."""
        scored = label_ids(self.template, self.wording.told(labels))
        return max((self.generation.max_new_tokens, *map(len, scored)))

    def refusals(self, examples: Sequence[Example], labels: Sequence[str] = ()) -> list[Finding]:
        """The examples that cannot be put to a model, by what keeps them from it.

        `labels` are those that will be scored: each needs its room, too.
        """
        return self._asked(examples, labels)[1]

    def answers(
        self,
        model: Model,
        examples: Sequence[Example],
        progress: Progress,
        title: str,
        show: Callable[[str], None] | None = None,
    ) -> list[Generation]:
        """What `model` generates for each of `examples`, in their order.

        `show` is given the text of a single example's answer, as it grows.
        Raises KilotuneError that names every example that cannot be put to it.
        """
        prompts = self.prompts(examples)
        return generate(
            model,
            self.template.tokenizer,
            prompts,
            self.generation,
            seed=self.seed,
            progress=progress,
            title=title,
            show=show,
        )

    def asked(self, example: Example) -> str:
        """The texts of an example's prompt, as they are put to a model."""
        return "\n".join(message.text for message in self.worded(example).prompt)

    def plain(self, tokens: int) -> "Prompting":
        """The same model asked without the task's wording, greedily, for so many tokens at most."""
        greedy = self.decoding(DecodingSettings(max_new_tokens=tokens))
        return replace(greedy, wording=Wording("", "{text}"))

    def decoding(self, settings: DecodingSettings) -> "Prompting":
        """The same model asked by other settings; the tokens that end an answer stay."""
        now = self.generation
        changed = generation_config(
            settings,
            answer_tokens=now.max_new_tokens,
            stop_ids=now.eos_token_id,
            pad_id=now.pad_token_id,
        )
        return replace(self, generation=changed)

    def at(self, temperature: float) -> "Prompting":
        """The same model asked by its own probabilities at a temperature; at 0 greedily."""
        settings = decoding_settings(self.generation)
        plain = {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        return self.decoding(settings.model_copy(update=plain))

    def token_ids(self, examples: Sequence[Example]) -> Sequence[Sequence[int]]:
        """What generation starts from, of each of `examples`."""
        return self.prompts(examples).token_ids

    def finite(self, model: Model, example: Example) -> bool:
        """Whether what `model` predicts to follow on the prompt of `example` is finite."""
        return finite(model, self.prompts([example]), self.generation.pad_token_id)

    def scores(
        self,
        model: Model,
        examples: Sequence[Example],
        labels: Sequence[str],
        progress: Progress,
        title: str,
        kept: KeptStates | None = None,
        *,
        greedy: bool = False,
    ) -> list[LabelScores]:
        """How likely each of `labels` is to `model` as the whole answer to each of `examples`.

        `kept` are states of models with the same frozen layers. With `greedy` the greedy answers
        too, as far as they are known.
        """
        prompts, now = self.prompts(examples, labels), self.generation
        ids = label_ids(self.template, self.wording.told(labels))
        closed = LabelSet(ids, now.pad_token_id, (now.eos_token_id or ()) if greedy else ())
        return score_labels(model, prompts, closed, progress=progress, title=title, kept=kept)

    def scored_answers(
        self,
        model: Model,
        examples: Sequence[Example],
        labels: Sequence[str],
        progress: Progress,
        title: str,
        kept: KeptStates | None = None,
    ) -> tuple[list[Generation], list[LabelScores]]:
        """What `answers` gives, and what `scores` does; without labels there are no scores.

        A greedy answer that is one of the labels follows from its scores' forward and is not
        generated again, but for TRIED of them: where these differ, all are.
        """
        if not labels:
            return self.answers(model, examples, progress, title), []
        greedy, titled = plainly_greedy(model, self.generation), f"{title}, labels"
        scores = self.scores(model, examples, labels, progress, titled, kept, greedy=greedy)
        said = self._read_off(model, examples, scores, progress)
        open_ = [index for index, answer in enumerate(said) if answer is None]
        rest = [examples[index] for index in open_]
        generated = self.answers(model, rest, progress, title) if rest else []
        for index, answer in zip(open_, generated, strict=True):
            said[index] = answer
        return [answer for answer in said if answer is not None], scores

    def _read_off(
        self,
        model: Model,
        examples: Sequence[Example],
        scores: Sequence[LabelScores],
        progress: Progress,
    ) -> list[Generation | None]:
        """The answers that follow from `scores`, None for the others."""
        now, tokenizer = self.generation, self.template.tokenizer
        stops, endings = set(now.eos_token_id or ()), list(now.stop_strings or ())
        said: list[Generation | None] = [None] * len(examples)
        for index, one in enumerate(scores):
            if one.greedy is not None:
                ids = one.greedy[: now.max_new_tokens]
                said[index] = read_answer(tokenizer, ids, stops, endings)
        tried = [index for index, answer in enumerate(said) if answer is not None][:TRIED]
        trial = [examples[index] for index in tried]
        plain = self.answers(model, trial, Silent(), "") if trial else []
        if plain == [said[index] for index in tried]:
            return said
        progress.say("answers are generated: those read off the labels' scores are others")
        return [None] * len(examples)

    def losses(
        self,
        model: Model,
        examples: Sequence[Example],
        answers: Sequence[Generation],
        progress: Progress,
        title: str,
    ) -> list[float]:
        """How unlikely `model` finds each of `answers` to `examples`, in nats a token."""
        prompts = self.prompts(examples)
        return answer_losses(
            model,
            prompts,
            [answer.token_ids for answer in answers],
            pad_id=self.generation.pad_token_id,
            progress=progress,
            title=title,
        )

    def worded(self, example: Example) -> Example:
        """The example as it is asked: in words, cut to `max_length`, without its answer."""
        # What is asked must not depend on how long the right answer is.
        return self.fit(without_answer(example))[0]

    def prompts(self, examples: Sequence[Example], labels: Sequence[str] = ()) -> Prompts:
        """What generation starts from. Raises FindingsError for what cannot be put to a model."""
        prompts, refusals = self._asked(examples, labels)
        stop_on_errors(refusals, "prompts for generation")
        return prompts

    def _asked(
        self, examples: Sequence[Example], labels: Sequence[str]
    ) -> tuple[Prompts, list[Finding]]:
        room = self._room(labels)
        asked_ids, shown = list[tuple[int, ...]](), list[tuple[Image, ...]]()
        refused: dict[tuple[str, str], list[str]] = {}
        for example in examples:
            try:
                asked = self.worded(example)
                images = tuple(image for message in asked.prompt for image in message.images)
                if images and self.template.image_text is None:
                    raise RenderError("images-unsupported")
                ids = self.template.prompt_ids(asked.prompt)
                self.limits.check(ids, room)
                asked_ids.append(tuple(ids))
                shown.append(images)
            except RenderError as error:
                refused.setdefault((error.code, error.detail), []).append(example.id)
        prompts = Prompts(asked_ids, shown, self.eyes)
        return prompts, [finding(code, tuple(ids), why) for (code, why), ids in refused.items()]


def answer_room(
    template: ChatTemplate, words: Wording, labels: Sequence[str], examples: Sequence[Example]
) -> int:
    """Tokens that an answer may take, by the closed labels, or by the answers of `examples`."""
    # Of labels the rarest has as much right to its room as the commonest.
    longest = max((len(template.encode(label)) for label in words.told(labels)), default=0)
    known = (example.answer or "" for example in examples)
    lengths = [longest] if longest else [len(template.encode(answer)) for answer in known]
    return room([length + 1 for length in lengths])
