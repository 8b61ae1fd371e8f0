"""An answer while it is made, without an engine: characters, stop texts, times, ends."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.backends.answering import Answering, GrowingText
from autotune.domain.request import Finish, TextCompletion, TextRequest


def said(pieces: Iterable[bytes], *stop: str) -> list[str]:
    """What comes out, piece by piece, until a stop text or the end."""
    text = GrowingText(stop)
    out = []
    for piece in pieces:
        out.append(text.add(piece))
        if text.is_stopped:
            return out
    return [*out, text.rest()]


def answered(
    pieces: Iterable[bytes], *, on_text: object = lambda _text: True, **changes: object
) -> TextCompletion:
    """An answer of those pieces, its clock one nanosecond a look."""
    moments = iter(range(10_000))
    request = TextRequest(prompt="p", **changes)  # type: ignore[arg-type]
    answering = Answering(request, on_text, clock=lambda: next(moments))  # type: ignore[arg-type]
    answering.prompt_is_computed(3, 2)
    for piece in pieces:
        if answering.goes_on:
            answering.add(piece)
    answering.end(Finish.STOP)
    return answering.completion()


def test_a_character_comes_when_it_is_whole() -> None:
    """Four bytes in four pieces; half of one at the end is left out."""
    assert said([b"a\xf0", b"\x9f", b"\x98", b"\x80b"]) == ["a", "", "", "😀b", ""]
    assert said([b"a", b"\xf0\x9f"]) == ["a", "", ""]


def test_what_is_no_character_is_replaced() -> None:
    """A byte that begins nothing, and a beginning that goes on as something else."""
    assert "".join(said([b"a\xff", b"\xf0\x9fb"])) == "a\ufffd\ufffdb"


def test_a_stop_text_is_cut_off_wherever_pieces_end() -> None:
    """Within a piece, over three of them, at the very beginning."""
    assert said([b"one END two"], "END") == ["one "]
    assert said([b"one E", b"N", b"D two"], "END") == ["one ", "", ""]
    assert said([b"END"], "END") == [""]


def test_the_first_of_several_stop_texts_counts() -> None:
    """Whichever was named first."""
    assert said([b"a b c d"], "c", "b") == ["a "]


def test_what_only_looked_like_a_stop_text_is_said_after_all() -> None:
    """At once when it goes on otherwise, at the end when it does not go on."""
    assert said([b"EN", b"ERGY", b" EN"], "END") == ["", "ENERGY", " ", "EN"]
    assert said([b"aab"], "aaab") == ["aab", ""]
    assert said([b"aa", b"aab"], "aaab") == ["", "a"]


@given(st.text("ab<", max_size=12), st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3),
       st.data())  # fmt: skip
def test_pieces_make_no_difference(text: str, stop: list[str], data: st.DataObject) -> None:
    """However a text is cut into pieces, what is said is the text before the first stop text."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b].encode() for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ends = [at for word in stop if (at := text.find(word)) >= 0]

    assert "".join(said(pieces, *stop)).startswith(text[: min(ends, default=len(text))])
    assert not any(word in "".join(said(pieces, *stop)) for word in stop)


def test_times_are_between_tokens() -> None:
    """A token without text is a token all the same."""
    answer = answered([b"a", b"", b"b"])

    assert (answer.text, answer.finish, answer.n_tokens) == ("ab", Finish.STOP, 3)
    assert (answer.n_prompt, answer.n_cached, answer.prefill_ns) == (3, 2, 1)
    assert answer.ttft_ns == 2
    assert answer.token_ns == (1, 1)


def test_an_answer_of_no_tokens_is_one() -> None:
    """The model ended it at once; it took until then."""
    answer = answered([])

    assert (answer.text, answer.finish, answer.n_tokens) == ("", Finish.STOP, 0)
    assert answer.token_ns == ()
    assert answer.ttft_ns > 0


def test_the_last_token_asked_for_is_the_last() -> None:
    """With what was held back for a stop text that never came."""
    answer = answered([b"a", b"<", b"b"], max_tokens=2, stop=("<end>",))

    assert (answer.text, answer.finish, answer.n_tokens) == ("a<", Finish.LENGTH, 2)


def test_whoever_listens_may_end_it() -> None:
    """The piece that was refused was heard; nothing follows it."""
    heard: list[str] = []

    def listen(text: str) -> bool:
        heard.append(text)
        return False

    answer = answered([b"a", b"b"], on_text=listen)

    assert (answer.text, answer.finish, answer.n_tokens) == ("a", Finish.CANCELLED, 1)
    assert heard == ["a"]


@pytest.mark.parametrize("wanted", [True, False])
def test_an_answer_may_be_ended_before_it_begins(wanted: bool) -> None:
    """While the prompt is computed, by refusing nothing at all."""
    answering = Answering(TextRequest(prompt="p"), lambda text: wanted or bool(text))

    assert answering.asks_on() is wanted
    assert answering.goes_on is wanted
    if not wanted:
        assert answering.completion().finish is Finish.CANCELLED
