import pytest

from kilotune.errors import KilotuneError
from kilotune.rendering.wording import wording


def test_labels_are_listed_in_the_system_message() -> None:
    assert wording("One of {labels}.", None, ["bad", "good"]).system == "One of bad, good."
    assert wording(None, None, ["bad", "good"]).system.endswith(": bad, good.")


@pytest.mark.parametrize("system", [None, "", "Be brief.", "Braces {} stay."])
def test_without_labels_the_message_is_as_written(system: str | None) -> None:
    said = wording(system, None, [])
    assert (said.system, said.question) == (system or "", "{text}")


def test_labels_that_there_are_not_are_never_put_to_a_model() -> None:
    with pytest.raises(KilotuneError) as caught:
        wording("One of {labels}.", None, [])
    assert caught.value.where == "data.system"
    assert "--task classify" in caught.value.fix
