"""Text into a llama.cpp model's tokens, and back."""

from __future__ import annotations

import ctypes
from typing import Any

_PIECE_BYTES = 128
"""Longer than nearly every token."""


class Vocabulary:
    """The words of a loaded model."""

    def __init__(self, llama: Any, model: Any) -> None:
        self._llama = llama
        self._vocab = llama.llama_model_get_vocab(model)
        self.n_words = int(llama.llama_vocab_n_tokens(self._vocab))
        self._piece = ctypes.create_string_buffer(_PIECE_BYTES)

    @property
    def can_read(self) -> bool:
        """Whether it has words at all: a model made of nothing but shapes has not."""
        kind: int = self._llama.llama_vocab_type(self._vocab)
        return kind != int(self._llama.LLAMA_VOCAB_TYPE_NONE)

    def tokens(self, text: str, *, parse_special: bool) -> list[int]:
        """A text in tokens, with the start (and end) of text where the model wants one.

        ``parse_special`` reads the names of control tokens, such as ``<|im_end|>``, as them.
        """
        raw = text.encode("utf-8", "replace")  # half a surrogate pair is no character
        n_most = len(raw) + 4  # at most one a byte, a space before them, and two ends
        tokens = (self._llama.llama_token * n_most)()
        n = self._llama.llama_tokenize(
            self._vocab, raw, len(raw), tokens, n_most, True, parse_special  # noqa: FBT003
        )  # fmt: skip
        return list(tokens[: max(n, 0)])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token stands for; none for a control token, unless asked for."""
        n = self._write(token, special=special)
        if n < 0:
            self._piece = ctypes.create_string_buffer(-n)
            n = self._write(token, special=special)
        return self._piece.raw[:n]

    def _write(self, token: int, *, special: bool) -> int:
        size = len(self._piece)
        return int(
            self._llama.llama_token_to_piece(self._vocab, token, self._piece, size, 0, special)
        )

    @property
    def first(self) -> int:
        """The start of text, or word 0 in a vocabulary without one (−1)."""
        return max(int(self._llama.llama_vocab_bos(self._vocab)), 0)

    @property
    def ends(self) -> list[int]:
        """The tokens that end a text."""
        return [token for token in range(self.n_words) if self.is_end(token)]

    def is_end(self, token: int) -> bool:
        """Whether a token ends a text."""
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    @property
    def bos(self) -> str:
        """The start of text, as templates write it; empty where there is none."""
        return self._name(self._llama.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str:
        """The end of text, as templates write it; empty where there is none."""
        return self._name(self._llama.llama_vocab_eos(self._vocab))

    def _name(self, token: int) -> str:
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def adds_bos(self) -> bool:
        """Whether :meth:`tokens` puts the start of text before every text."""
        return bool(self._llama.llama_vocab_get_add_bos(self._vocab))
