"""Examples to answers: prompts by the chat template, cut to fit, then generated."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import GenerationConfig

from kilotune.data.example import Example
from kilotune.generate.decode import Generation, generate
from kilotune.models.load import Model
from kilotune.progress import Progress
from kilotune.render.template import ChatTemplate, fit_prompt


@dataclass(frozen=True, slots=True)
class Prompting:
    """How examples are put to a model, the same in validation, judging and prediction."""

    template: ChatTemplate
    generation: GenerationConfig
    max_length: int
    seed: int

    def answers(
        self, model: Model, examples: Sequence[Example], progress: Progress, title: str
    ) -> list[Generation]:
        """What `model` generates for each of `examples`, in their order."""
        fitted = (fit_prompt(self.template, example, self.max_length)[0] for example in examples)
        prompts = [self.template.prompt_ids(example.prompt) for example in fitted]
        return generate(
            model,
            self.template.tokenizer,
            prompts,
            self.generation,
            seed=self.seed,
            progress=progress,
            title=title,
        )
