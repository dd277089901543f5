"""A chat template that needs no arguments, and no kilotune, to write the prompts of a run."""

import json

from kilotune.rendering.template import ChatTemplate


def standalone(template: ChatTemplate) -> str:
    """The Jinja text of `template` with its arguments and its way of opening answers inside.

    Programs that serve the model run a template without arguments, and open answers as it says.
    """
    given = "".join(
        f"{{%- set {name} = {json.dumps(value)} -%}}" for name, value in template.arguments.items()
    )
    source, opening = given + template.source, template.opening
    if not opening.asked and not opening.told:
        return source
    # Jinja drops the newline at a template's end, but not one before a tag.
    written = source.removesuffix("\n")
    cut = f"[:-{len(opening.asked)}]" if opening.asked else ""
    told = json.dumps(opening.told, ensure_ascii=False)
    return (
        f"{{% set written %}}{written}{{% endset %}}"
        f"{{{{- written{cut} ~ {told} if add_generation_prompt else written -}}}}"
    )
