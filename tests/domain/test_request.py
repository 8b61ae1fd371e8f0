"""A request of ordinary use: what of it an engine gets to read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.request import TextRequest


def test_half_a_character_is_replaced() -> None:
    """In the prompt and in stop texts; two halves that belong together are one character."""
    request = TextRequest(prompt="x \ud800", stop=("\udfff.", "END"))

    assert (request.prompt, request.stop) == ("x \ufffd", ("\ufffd.", "END"))
    assert TextRequest(prompt="\ud83d\ude00").prompt == "\N{GRINNING FACE}"


@given(st.lists(st.characters() | st.sampled_from("\ud800\udbff\udc00"), min_size=1).map("".join))
def test_every_prompt_can_be_read(text: str) -> None:
    """What could be before is as it was."""
    prompt = TextRequest(prompt=text).prompt

    assert prompt.encode().decode() == prompt
    if text.encode(errors="ignore").decode() == text:
        assert prompt == text
