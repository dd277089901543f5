"""Libraries' own bars and notices, kept from where kilotune shows its own."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no bars and libraries say nothing but errors; restored behind.

    For notebooks and scripts, whose process is the user's: nothing of it is changed for good.
    """
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
