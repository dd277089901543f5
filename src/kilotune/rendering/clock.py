"""Chat templates that print today's date: one date instead, today and on every other day."""

# What Llama's own templates say where they are told no date. With another one each day a resumed
# run would train on other tokens, and a model be asked behind a date it was never trained behind.
DATE = "26 Jul 2024"

# What the directives of `strftime` make of it.
DIRECTIVES = {
    "%Y": "2024",
    "%y": "24",
    "%m": "07",
    "%-m": "7",
    "%d": "26",
    "%-d": "26",
    "%e": "26",
    "%b": "Jul",
    "%h": "Jul",
    "%B": "July",
    "%a": "Fri",
    "%A": "Friday",
    "%j": "208",
    "%u": "5",
    "%w": "5",
    "%F": "2024-07-26",
    "%D": "07/26/24",
    "%x": "07/26/24",
    "%H": "00",
    "%I": "12",
    "%M": "00",
    "%S": "00",
    "%p": "AM",
    "%T": "00:00:00",
    "%X": "00:00:00",
    "%c": "Fri Jul 26 00:00:00 2024",
    "%Z": "",
    "%z": "",
    "%%": "%",
}

CLOCK = "strftime_now"
STOPPED = (
    f"{{%- macro {CLOCK}(format) -%}}{{{{- format"
    + "".join(f" | replace('{sign}', '{said}')" for sign, said in DIRECTIVES.items())
    + " -}}{%- endmacro %}\n"
)


def asks_for_the_date(source: str) -> bool:
    """Whether a template's text depends on the day it is used on."""
    return CLOCK in source and not source.startswith(STOPPED)


def with_stopped_clock(source: str) -> str:
    """The template with DATE for today, wherever else it may be used."""
    return STOPPED + source if asks_for_the_date(source) else source
