"""A data set as renderings: all its examples, and all that is wrong with them together."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.example import Example
from kilotune.data.finding import Finding, errors_first, finding
from kilotune.rendering.label_mask import Rendering, TrainOn, render
from kilotune.rendering.limits import UNLIMITED, Limits
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.template_checks import all_findings, check_rendering, truncated
from kilotune.rendering.truncation import fit
from kilotune.rendering.vocabulary_fit import unfamiliar_writing
from kilotune.rendering.wording import Wording


@dataclass(frozen=True, slots=True)
class Rendered:
    """The examples that could be rendered, as they are put to the model, and all findings."""

    examples: tuple[Example, ...]
    renderings: tuple[Rendering, ...]
    findings: tuple[Finding, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all renderings."""
        return sum(len(rendering.token_ids) for rendering in self.renderings)

    @property
    def trained(self) -> int:
        """Tokens that are trained."""
        return sum(rendering.trained for rendering in self.renderings)

    def share(self) -> str:
        """In words, how much of all is trained."""
        share = self.trained / max(1, self.tokens)
        return f"{self.trained:,} of {self.tokens:,} tokens are trained ({share:.1%})"


def render_examples(
    template: ChatTemplate,
    wording: Wording,
    examples: Sequence[Example],
    *,
    max_length: int,
    train_on: TrainOn = "auto",
    limits: Limits = UNLIMITED,
) -> Rendered:
    """Word, cut, render and check every example; what cannot be rendered is a finding.

    Longer than `max_length` is cut; what then is beyond the model's own `limits` is refused.
    """
    worded: list[Example] = []
    renderings: list[Rendering] = []
    faults: list[list[str]] = []
    cut: list[str] = []
    refused: dict[tuple[str, str], list[str]] = {}
    for example in examples:
        try:
            fitting, was_cut = wording.apply(example), False
            rendering = render(template, fitting, train_on)
            if (length := len(rendering.token_ids)) > max_length:
                fitting, was_cut = fit(
                    template, wording, example, max_length, train_on, length=length
                )
                rendering = render(template, fitting, train_on)
            limits.check(rendering.token_ids)
        except RenderError as error:
            refused.setdefault((error.code, error.detail), []).append(example.id)
            continue
        worded.append(fitting)
        renderings.append(rendering)
        # At once, while the tokenizer's work on this example is still remembered.
        faults.append(check_rendering(template, fitting, rendering))
        if was_cut:
            cut.append(example.id)
    findings = [
        *(finding(code, tuple(ids), detail) for (code, detail), ids in refused.items()),
        *all_findings(template, renderings, faults),
        *truncated(cut, max_length),
        *unfamiliar_writing(template, examples),
    ]
    return Rendered(tuple(worded), tuple(renderings), tuple(errors_first(findings)))
