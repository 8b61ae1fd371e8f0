"""Text from the llama.cpp library: what the cache keeps, windows that slide, batches that end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.backends.llama_cpp import LlamaCppBackend, LlamaCppSession
from autotune.backends.llama_vocab import Vocabulary
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason
from tests.facts.shapes import dense, jamba

GREEDY = TextRequest(prompt="Once upon a time", max_tokens=8, temperature=0.0)
WORDS = "one two three four five six seven eight nine ten " * 80
"""About 800 words: more than gemma's window of 512."""


@contextmanager
def loaded(path: Path, config: Config) -> Iterator[LlamaCppSession]:
    """A session that is closed whatever happens."""
    session = LlamaCppBackend().load(path, config)
    try:
        yield session
    finally:
        session.close()


def answer(session: LlamaCppSession, prompt: str, **changes: object) -> TextCompletion:
    """A greedy answer, heard to its end."""
    request = dataclasses.replace(GREEDY, prompt=prompt, **changes)  # type: ignore[arg-type]
    return session.generate(request, on_text=lambda _text: True)


@pytest.mark.parametrize("swa_full", [True, False])
def test_a_window_that_slid_too_far_is_computed_again(gemma3_path: Path, swa_full: bool) -> None:
    """What is left of the prompt in the cache is used exactly where all of it can be seen."""
    config = Config(n_ctx=2048, n_batch=256, n_ubatch=256, swa_full=swa_full)
    begin, other = WORDS[:400], WORDS[:400] + "but " * 20
    with loaded(gemma3_path, config) as session:
        fresh = answer(session, other)
        session._text.forget()
        answer(session, WORDS)
        back = answer(session, other)
        onward = answer(session, other + back.text)

    assert back.text == fresh.text
    assert (back.n_cached > 0) is swa_full
    assert onward.n_cached > 60
    assert len(begin) > 100


def test_a_batch_can_be_ended_in_the_middle(smollm2_path: Path) -> None:
    """Long before the prompt is computed; what the cache holds then is not trusted."""
    config = Config(n_ctx=2048, n_batch=2048, n_ubatch=2048)
    looks = iter([True, False])
    with loaded(smollm2_path, config) as session:
        request = dataclasses.replace(GREEDY, prompt=WORDS * 2)
        ended = session.generate(request, on_text=lambda _text: next(looks, False))
        whole = answer(session, WORDS[:500])
        again = answer(session, WORDS[:500])

    assert (ended.finish, ended.n_tokens, ended.n_prompt) == (Finish.CANCELLED, 0, 0)
    assert whole.n_cached == 0
    assert again.text == whole.text


def test_what_a_listener_raises_ends_a_batch_as_well(smollm2_path: Path) -> None:
    """And passes through; the session goes on."""
    heard: list[str] = []

    def refuse(text: str) -> bool:
        heard.append(text)
        if len(heard) > 1:
            raise KeyError("listener")
        return True

    with loaded(smollm2_path, Config(n_ctx=2048, n_batch=2048, n_ubatch=2048)) as session:
        with pytest.raises(KeyError, match="listener"):
            session.generate(dataclasses.replace(GREEDY, prompt=WORDS * 2), on_text=refuse)
        assert answer(session, "Once upon").n_tokens == 8


def test_a_model_without_a_template_is_asked_plainly(gemma3_path: Path) -> None:
    """The prompt itself is what it reads."""
    with loaded(gemma3_path, Config(n_ctx=256, n_batch=128, n_ubatch=128)) as session:
        plain = answer(session, "The sky is")
        chat = answer(session, "The sky is", chat=True)

    assert chat.text == plain.text
    assert chat.n_prompt + chat.n_cached == plain.n_prompt + plain.n_cached


def test_a_model_that_cannot_read_is_unsupported(tmp_path: Path) -> None:
    """Shapes without words."""
    path = dense(
        tmp_path / "wordless.gguf", n_layers=1, n_embd=256, n_heads=4, n_heads_kv=2, head=64,
        n_ff=512, n_vocab=1024,
    )  # fmt: skip
    with (
        loaded(path, Config(n_ctx=256, n_batch=64, n_ubatch=64)) as session,
        pytest.raises(EngineError, match="no vocabulary") as caught,
    ):
        answer(session, "Hello")

    assert caught.value.reason is Reason.UNSUPPORTED


def test_a_state_that_cannot_go_back_is_computed_again(tmp_path: Path) -> None:
    """A recurrent model goes on from where it is, and from nowhere before."""
    with loaded(
        jamba(tmp_path / "jamba.gguf"), Config(n_ctx=256, n_batch=64, n_ubatch=64)
    ) as session:
        text = session._text
        assert text._keep_prefix(range(10)) == 0
        text._compute(range(10))
        assert text._keep_prefix([*range(10), 50, 51]) == 10
        text._compute([50, 51])
        assert text._keep_prefix([*range(10), 60, 61]) == 0
        text._compute([*range(10), 60, 61])


def test_slots_share_the_context(smollm2_path: Path) -> None:
    """Of two sequences each has half of the cells: a request fills its own and no more."""
    config = Config(n_ctx=512, n_batch=128, n_ubatch=128, n_parallel=2)
    with loaded(smollm2_path, config) as session:
        done = answer(session, "a b c d e f g h " * 25, max_tokens=400)

    assert done.n_prompt + done.n_tokens <= 257
    assert done.finish in {Finish.LENGTH, Finish.STOP}


def test_words_and_tokens_of_a_vocabulary(smollm2_path: Path) -> None:
    """Names of control tokens are read as them on request, and written on request."""
    with loaded(smollm2_path, Config(n_ctx=256, n_batch=64, n_ubatch=64)) as session:
        vocabulary: Vocabulary = session._vocabulary
        (end,) = vocabulary.tokens("<|im_end|>", parse_special=True)
        text = "Grüße, 世界 😀"
        pieces = [vocabulary.piece(t) for t in vocabulary.tokens(text, parse_special=True)]

        assert vocabulary.is_end(end)
        assert vocabulary.piece(end) == b""
        assert vocabulary.piece(end, special=True) == b"<|im_end|>"
        assert len(vocabulary.tokens("<|im_end|>", parse_special=False)) > 1
        assert b"".join(pieces).decode() == text
        assert vocabulary.tokens("half \ud83d", parse_special=True)
        assert end in vocabulary.ends


CODE = """Repeat this code exactly:
def add_numbers(first, second):
    total = first + second
    return total

def subtract_numbers(first, second):
    difference = first - second
    return difference

The same code again:
def add_numbers(first, second):
"""


@pytest.mark.parametrize("model", ["smollm2_path", "gemma3_path"])
def test_guesses_change_no_answer(model: str, request: pytest.FixtureRequest) -> None:
    """Greedy text is the same with and without; some guesses come true, some are taken back.

    Also from a window that slides.
    """
    config = Config(n_ctx=1024, n_batch=256, n_ubatch=256, n_threads=2, swa_full=False)
    with loaded(request.getfixturevalue(model), config) as session:
        plain = answer(session, CODE, max_tokens=64)
        session._text.forget()
        ahead = answer(session, CODE, max_tokens=64, n_draft=10)
        onward = answer(session, CODE + ahead.text, max_tokens=4)
        session._text.forget()
        again = answer(session, CODE + ahead.text, max_tokens=4)

    assert ahead.text == plain.text
    assert 0 < ahead.n_accepted < ahead.n_drafted
    assert (plain.n_drafted, plain.n_accepted) == (0, 0)
    assert (ahead.n_tokens, len(ahead.token_ns)) == (plain.n_tokens, plain.n_tokens - 1)
    assert onward.n_cached > plain.n_prompt
    assert onward.text == again.text, "what was taken back is really gone"


def test_guesses_end_where_the_answer_ends(smollm2_path: Path) -> None:
    """At a stop text, at the context's end and at the last token wanted; none outgrows a batch."""
    with loaded(smollm2_path, Config(n_ctx=128, n_batch=8, n_ubatch=8)) as session:
        prompt = "one two three one two three one two three one two"
        stopped = answer(session, prompt, max_tokens=64, n_draft=16, stop=("two",))
        short = answer(session, prompt, max_tokens=3, n_draft=16)
        session._text.forget()
        full = answer(session, prompt, max_tokens=500, n_draft=16)
        session._text.forget()
        plain = answer(session, prompt, max_tokens=500)

    assert stopped.finish is Finish.STOP
    assert (short.n_tokens, short.finish) == (3, Finish.LENGTH)
    assert (full.text, full.n_tokens, full.finish) == (plain.text, plain.n_tokens, Finish.LENGTH)


def test_guesses_are_repeatable_with_a_seed(smollm2_path: Path) -> None:
    """Also where tokens are drawn, and some are penalised."""
    drawn = {"temperature": 0.7, "repeat_penalty": 1.1, "seed": 7}
    with loaded(smollm2_path, Config(n_ctx=512, n_batch=256, n_ubatch=256)) as session:
        first = answer(session, CODE, max_tokens=48, n_draft=8, **drawn)
        session._text.forget()
        second = answer(session, CODE, max_tokens=48, n_draft=8, **drawn)

    assert first.n_drafted > 0
    assert (second.text, second.n_accepted) == (first.text, first.n_accepted)


def test_an_answer_ended_among_guesses_leaves_no_trace(smollm2_path: Path) -> None:
    """Whenever it ends: what was guessed on is taken back, and the next answer is as ever."""
    with loaded(smollm2_path, Config(n_ctx=512, n_batch=256, n_ubatch=256)) as session:
        request = dataclasses.replace(GREEDY, prompt=CODE, max_tokens=48, n_draft=8)
        whole = answer(session, CODE, max_tokens=48)
        for n_pieces in range(1, 24):
            pieces = iter(range(n_pieces))
            ended = session.generate(request, on_text=lambda _, p=pieces: next(p, None) is not None)
            assert ended.finish is Finish.CANCELLED
            assert whole.text.startswith(ended.text)
        again = answer(session, CODE, max_tokens=48)

    assert again.text == whole.text


class Numbers:
    """Words of a model that has none: the numbers of its tokens."""

    can_read, first, n_words = True, 1, 65_536

    def tokens(self, text: str, *, parse_special: bool) -> list[int]:
        return [int(word) for word in text.split()]

    def is_end(self, token: int) -> bool:
        return False

    def piece(self, token: int) -> bytes:
        return b"%d " % token


def test_a_state_that_cannot_go_back_is_not_guessed_on(tmp_path: Path) -> None:
    """Wrong guesses could not be taken back."""

    def guess(tokens: object) -> None:
        raise AssertionError(f"guessed {tokens}")

    path = jamba(tmp_path / "jamba.gguf")
    with loaded(path, Config(n_ctx=256, n_batch=64, n_ubatch=64)) as session:
        session._text._handles = dataclasses.replace(
            session._text._handles, vocabulary=Numbers(), decode_each=guess
        )
        told = answer(session, "1 2 3 1 2 3 1 2", max_tokens=6, n_draft=8)

    assert (told.n_tokens, told.n_drafted) == (6, 0)


def test_there_is_a_most_of_guesses() -> None:
    """More would not fit into a window's reserve."""
    with pytest.raises(UserError, match="n_draft=65 is not valid: give 0"):
        dataclasses.replace(GREEDY, n_draft=65)
