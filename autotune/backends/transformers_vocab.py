"""Text into tokens and back, by the tokeniser that transformers builds from a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from autotune.backends.protocol import EngineError
from autotune.backends.transformers_library import Libraries
from autotune.domain.run import Reason

_END_NAMES = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|eom_id|>", "<EOT>", "<|return|>", "<|call|>", "<end_of_utterance>", "<turn|>"),
)
"""Words that end a text or a turn of it, whatever the file says: llama.cpp's list, shortened."""
_CONTEXT_TOKENS = 4
"""Tokens before the answer that its first piece is read with: some words begin with a space that
is not written at the beginning of a text."""
_HALF = "\ufffd"
"""What part of a character is read as."""


class Vocabulary:
    """The words of a model. Raises EngineError where transformers cannot read them."""

    def __init__(self, libraries: Libraries, path: Path) -> None:
        try:
            self._tokenizer = libraries.transformers.AutoTokenizer.from_pretrained(
                str(path.parent), gguf_file=path.name, local_files_only=True
            )
        except Exception as error:
            what = f"transformers cannot read the vocabulary of {path.name}"
            raise libraries.failure(Reason.UNSUPPORTED, what, error) from error

    @property
    def ends(self) -> set[int]:
        """The tokens that end a text."""
        words = self._tokenizer.get_vocab()
        named = {words[name] for name in _END_NAMES if name in words}
        ours = self._tokenizer.eos_token_id
        return named if ours is None else {*named, int(ours)}

    def tokens(self, text: str, *, chat: bool) -> list[int]:
        """A text in tokens, with the start of text where the model wants one.

        ``chat`` puts it into the model's template first, where it has one. Raises EngineError for
        a template that cannot be read.
        """
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no character
        if not chat or not self._tokenizer.chat_template:
            return list(self._tokenizer(text).input_ids)
        said = [{"role": "user", "content": text}]
        try:
            turn = self._tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a stranger's program
            message = "the model's chat template cannot be read: ask without chat"
            raise EngineError(Reason.UNSUPPORTED, message) from error
        return list(self._tokenizer(turn, add_special_tokens=False).input_ids)

    def speaker(self, prompt: Sequence[int]) -> Speaker:
        """What tells the text of the tokens that follow a prompt."""
        return Speaker(self._text, prompt[-_CONTEXT_TOKENS:])

    def _text(self, tokens: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


class Speaker:
    """Tokens that become text, one after the other; a character comes out when it is whole."""

    def __init__(self, text: Callable[[Sequence[int]], str], before: Sequence[int]) -> None:
        self._text, self._tokens = text, list(before)
        self._said = text(self._tokens)

    def add(self, token: int) -> bytes:
        """What can be said with this token; nothing for a control token or part of a character."""
        self._tokens.append(token)
        text = self._text(self._tokens)
        if text.endswith(_HALF) or len(text) <= len(self._said):
            return b""
        piece = text[len(self._said) :]
        self._tokens = self._tokens[-_CONTEXT_TOKENS:]
        self._said = self._text(self._tokens)
        return piece.encode()
