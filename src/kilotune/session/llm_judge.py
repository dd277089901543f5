"""The judge that a recipe names: a chat model, or a function of the user's own."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kilotune import distributed
from kilotune.data.example import Message, references
from kilotune.errors import KilotuneError
from kilotune.evaluation.preference import PROMPT, Judge, Pair, Preference, compare, worded
from kilotune.generation.decoding import generate, generation_config
from kilotune.generation.prompts import Prompts
from kilotune.models.pretrained import Model, compute_dtype, stop_ids
from kilotune.models.source import locate
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.recipe.functions import is_own, own_function
from kilotune.recipe.schema import DecodingSettings, JudgeSettings, ModelSettings
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate
from kilotune.session.judging import Judged
from kilotune.session.model_session import Session
from kilotune.session.templates import load_template

SETTING = "judge.model"
# Tokens of a reply: room for a prompt that asks for reasons first.
ROOM = 512


@dataclass(frozen=True, slots=True)
class OwnJudge:
    """A user's function of one prompt that returns the reply."""

    function: Callable[[str], Any]
    progress: Progress

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """The replies; where the function fails, "", and the first failure is said.

        Hours of training must not be lost by it.
        """
        replies, failures = [], []
        for prompt in prompts:
            try:
                replies.append(str(self.function(prompt)))
            except Exception as error:
                replies.append("")
                failures.append(repr(error))
        if failures:
            self.progress.say(f"warning: the judge failed {len(failures)} times: {failures[0]}")
        return replies


@dataclass(frozen=True, slots=True)
class ChatJudge:
    """A loaded chat model; it replies greedily."""

    model: Model
    template: ChatTemplate
    progress: Progress

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """The replies; "" to prompts that are longer than the model can read."""
        config, replies = self.model.config.get_text_config(), [""] * len(prompts)
        limit = getattr(config, "max_position_embeddings", None)
        asked: dict[int, tuple[int, ...]] = {}
        for place, prompt in enumerate(prompts):
            try:
                ids = tuple(self.template.prompt_ids((Message("user", prompt),)))
            except RenderError:
                continue
            if limit is None or len(ids) + ROOM <= limit:
                asked[place] = ids
        if len(asked) < len(prompts):
            self.progress.say(f"{len(prompts) - len(asked)} prompts cannot be put to the judge")
        said = self._generated(list(asked.values())) if asked else []
        for place, reply in zip(asked, said, strict=True):
            replies[place] = reply
        return replies

    def _generated(self, prompts: Sequence[tuple[int, ...]]) -> list[str]:
        pad = self.template.tokenizer.pad_token_id
        config = generation_config(
            DecodingSettings(),
            answer_tokens=ROOM,
            stop_ids=stop_ids(self.model, self.template.stop_id),
            pad_id=pad,
        )
        said = generate(
            self.model,
            self.template.tokenizer,
            Prompts(prompts),
            config,
            seed=0,
            progress=self.progress,
            title="judging pairs",
        )
        return [answer.text for answer in said]


def check_judge(prepared: Prepared) -> None:
    """Try the judge before training. Raises KilotuneError where there is none, or no use for it."""
    settings, task = prepared.recipe.judge, prepared.task
    if settings.model is None:
        return
    if task != "generate":
        raise KilotuneError(
            f"the task '{task}' is judged by its own metrics alone",
            where=f"{SETTING}={settings.model}",
            fix="Leave it out; another model compares free answers only (data.task=generate)",
        )
    if not is_own(settings.model):
        source = locate(ModelSettings(name=settings.model))
        source.check_weights()
        load_template(source)
        return
    function = own_function(settings.model, f"{SETTING}={settings.model}")
    pair = Pair("", "How are you?", "Well.", "Well, thanks.", "No.")
    try:
        function(worded(settings.prompt or PROMPT, pair, pair.base, pair.tuned))
    except Exception as error:
        raise KilotuneError(
            f"the judge fails: {error!r}",
            where=f"{SETTING}={settings.model}",
            fix="Take one text, the prompt, and return the reply as a text",
        ) from error


def preference(session: Session, on_test: Judged, progress: Progress) -> Preference | None:
    """What the recipe's judge makes of the test's answers; None where it names none, or fails.

    Hours of training must not be lost by it. Of several processes the leader asks.
    """
    recipe = session.prepared.recipe
    settings = recipe.judge
    if settings.model is None or not distributed.leads():
        return None
    texts = [on_test.answers[name].texts for name in ("base", "tuned")]
    pairs = [
        Pair(example.id, session.prompting.asked(example), reference, base, tuned)
        for example, reference, base, tuned in zip(
            on_test.examples, references(on_test.examples), *texts, strict=True
        )
    ]
    drawn = random.Random(recipe.seed).sample(pairs, min(settings.pairs, len(pairs)))
    try:
        return compare(
            open_judge(settings, progress),
            drawn,
            name=settings.model,
            prompt=settings.prompt or PROMPT,
            samples=settings.bootstrap_samples,
            seed=recipe.seed,
        )
    except Exception as error:  # whatever it is: the run's own figures are still to be written
        progress.say(f"warning: nothing was compared, the judge failed: {error!r}")
        return None


def open_judge(settings: JudgeSettings, progress: Progress) -> Judge:
    """The judge at `settings.model`, loaded."""
    name = settings.model or ""
    if is_own(name):
        return OwnJudge(own_function(name, f"{SETTING}={name}"), progress)
    source = locate(ModelSettings(name=name))
    template = load_template(source)
    return ChatJudge(source.model(compute_dtype("auto")), template, progress)
