"""Everything that rendering finds: one registry of codes, and the exception for single examples."""

from kilotune.data.finding import Finding, Kind
from kilotune.errors import KilotuneError, some

KINDS: dict[str, Kind] = {
    # The conversation as text.
    "empty-conversation": Kind(
        "error",
        "conversations without any message",
        "Remove these rows, or give them a question and its answer",
    ),
    "answer-first": Kind(
        "error",
        "conversations that begin with the assistant, whose first answer has no prompt to be "
        "trained behind",
        "Begin with what the user says, or train the last answers alone: train_on: last",
    ),
    "template-refuses": Kind(
        "error",
        "the chat template refuses the conversation",
        "Change these rows, or use another template with --chat-template",
    ),
    "message-dropped": Kind(
        "error",
        "the chat template leaves messages out",
        "Change the role of these messages, or use another template with --chat-template",
    ),
    "answer-rewritten": Kind(
        "error",
        "the chat template writes the answer otherwise than it stands in the data",
        "For answers with thoughts of their own: model.template_arguments={enable_thinking: true}."
        " Otherwise take out what the template changes, or use another with --chat-template",
    ),
    "turns-rewritten": Kind(
        "error",
        "the chat template rewrites earlier turns once another follows, so that earlier answers "
        "would be trained behind prompts that generation never sees",
        "Train the last answers alone: train_on: last",
    ),
    "special-in-rewritten": Kind(
        "error",
        "spellings of control tokens in text that the chat template rewrites",
        "Remove them from these rows: they cannot be told from the template's own tokens",
    ),
    "images-unsupported": Kind(
        "error",
        "images in examples for a chat template that has no place for them",
        "Use a model that sees images, or leave the images out",
    ),
    "image-placeholders": Kind(
        "error",
        "the rendering has another number of image placeholders than the example has images",
        "Use the chat template that came with the model",
    ),
    "image-unreadable": Kind(
        "error",
        "images that the model's processor cannot take",
        "Run kilotune check, which says what is wrong with them, or leave these rows out",
    ),
    "image-in-answer": Kind(
        "error",
        "images in what the assistant says, which no model can be trained to write",
        "Move them to what the user says before it, or after",
    ),
    "images-not-counted": Kind(
        "note",
        "images whose tokens were not counted, each stands as one placeholder: there is no "
        "processor beside the tokenizer",
        "Put the model's config.json and its processor's files into the folder, and install "
        "kilotune[vision]",
    ),
    "too-long": Kind(
        "error",
        "longer than max_length even with nothing left of the text",
        "Raise data.max_length, or shorten these answers; of images fewer tokens are made with "
        "model.max_pixels",
    ),
    # The conversation as token ids.
    "beyond-length": Kind(
        "error",
        "longer than the model's positions, beyond which it was never trained",
        "Lower data.max_length to have prompts cut, or decoding.max_new_tokens, or leave these out",
    ),
    "beyond-vocabulary": Kind(
        "error",
        "token ids outside the model's vocabulary; the tokenizer is another model's",
        "Give the tokenizer that came with the model, or a chat template without these tokens",
    ),
    "prompt-mismatch": Kind(
        "error",
        "the prompt is rendered in one way for training and another for generation",
        "Use another chat template for this model",
    ),
    "nothing-trained": Kind("error", "nothing is trained", "Give these rows an answer"),
    "stop-untrained": Kind(
        "error",
        "a trained answer does not end with a token that ends generation",
        "Use a chat template that closes each answer, or train_on: last",
    ),
    "answer-altered": Kind(
        "error",
        "the trained tokens do not read back as the answer",
        "The tokenizer cannot spell these answers: replace the characters it does not know",
    ),
    "double-bos": Kind(
        "error",
        "the rendering begins with two beginning-of-sequence tokens",
        "Take one of the two out of the chat template",
    ),
    "missing-bos": Kind(
        "warning",
        "the tokenizer wants a beginning-of-sequence token, which the chat template leaves out",
        "Begin the chat template with {{ bos_token }}",
    ),
    "unwanted-bos": Kind(
        "warning",
        "the chat template writes a beginning-of-sequence token that the tokenizer does not want",
        "Take {{ bos_token }} out of the chat template, unless the model was trained with it",
    ),
    "bos-inside": Kind(
        "warning",
        "a beginning-of-sequence token in the middle of the rendering",
        "Let the chat template write {{ bos_token }} once, before the first message",
    ),
    "truncated": Kind("warning", "prompts cut to fit max_length", "Raise data.max_length"),
    # The template, the same for every example.
    "stop-differs": Kind(
        "warning",
        "the token that ends answers in this chat template is not one that the model's own "
        "settings stop at",
        "kilotune generates and exports with both; elsewhere add it to eos_token_id",
    ),
    "turn-end-differs": Kind(
        "warning",
        "earlier answers end with a token that neither the last one ends with nor the model's own "
        "settings stop at",
        "Add it to eos_token_id in the model's generation_config.json, or use train_on: last",
    ),
    "opening-differs": Kind(
        "warning",
        "the chat template opens an answer in one way for training and another for generation; "
        "kilotune uses the first for both",
        "Other programs must open the answer in the same way",
    ),
    "template-arguments": Kind(
        "note",
        "the chat template opens answers alike for training and generation only with an argument",
        "Other programs must give it too",
    ),
    "template-chosen": Kind(
        "note",
        "the tokenizer has no chat template of its own",
        "Choose another with --chat-template; the tuned model is saved with this one",
    ),
    "date-fixed": Kind(
        "note",
        "the chat template asks for today's date; kilotune gives it the same one every day",
        "Nothing; the tuned model is saved with a template that says this date too",
    ),
    "markers-not-tokens": Kind(
        "warning",
        "the markers of ChatML are no tokens of this vocabulary and are spelt out",
        "Use --chat-template plain",
    ),
    "pad-is-stop": Kind(
        "note",
        "the padding token is the one that ends answers",
        "kilotune masks padding by place and trains the real one; elsewhere masking by id "
        "would leave it untrained",
    ),
    # Said so that nobody wonders.
    "default-system": Kind(
        "note",
        "some conversations have a system message, and into the others the chat template inserts "
        "its own",
        "Give one with --system to say otherwise",
    ),
    "system-moved": Kind(
        "note",
        "the chat template takes no system message; it stands before the user's first words",
        "Other programs must do the same",
    ),
    "answer-trimmed": Kind(
        "note",
        "spaces or line breaks around answers are left out by the chat template",
        "Nothing, unless they matter",
    ),
    "answer-composed": Kind(
        "note",
        "answers with accents written apart from their letters, which the tokenizer puts together",
        "Nothing; the model says them in the usual (NFC) way",
    ),
    "special-in-text": Kind(
        "note",
        "spellings of control tokens in messages, encoded as ordinary text",
        "Remove them unless they are meant; other programs turn them into control tokens",
    ),
}


class RenderError(KilotuneError):
    """An example that this template or tokenizer cannot render. `code` is one of KINDS.

    `detail` is what this case alone knows, such as the template's own message.
    """

    def __init__(self, code: str, detail: str = "", where: str = "") -> None:
        kind = KINDS[code]
        what = f"{kind.what}: {detail}" if detail else kind.what
        super().__init__(what, where=where, fix=kind.fix)
        self.code = code
        self.detail = detail


def finding(code: str, rows: tuple[str, ...] = (), detail: str = "") -> Finding:
    """The finding of `code`, with its rows counted and named."""
    kind = KINDS[code]
    message = f"{kind.what}: {detail}" if detail else kind.what
    if rows:
        message = f"{message} ({len(rows)}: {some(list(rows))})"
    return Finding(code, kind.severity, rows, message, kind.fix)
