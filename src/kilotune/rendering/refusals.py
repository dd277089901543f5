"""Why a single example cannot be rendered."""

from kilotune.data.finding import finding
from kilotune.errors import KilotuneError


class RenderError(KilotuneError):
    """An example that this template or tokenizer cannot render. `code` is a finding's.

    `detail` is what this case alone knows, such as the template's own message.
    """

    def __init__(self, code: str, detail: str = "", where: str = "") -> None:
        found = finding(code, detail=detail)
        super().__init__(found.message, where=where, fix=found.fix)
        self.code = code
        self.detail = detail
