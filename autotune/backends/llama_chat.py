"""What a user says, put into the chat template that a GGUF model brings along.

The template is a program in Jinja's language; llama-cpp-python runs it in a sandbox, as
llama.cpp's server runs it in its own. llama.cpp's C interface only recognises well-known templates
and imitates them, without their system prompt, so it is asked only where the program fails.
"""

from __future__ import annotations

import ctypes
from typing import Any

from autotune.backends.llama_vocab import Vocabulary
from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason


def chat_prompt(llama: Any, model: Any, vocabulary: Vocabulary, said: str) -> str:
    """The prompt of a chat of one turn; what is said itself for a model without a template.

    Raises EngineError (UNSUPPORTED) for a template that nobody can read.
    """
    template = llama.llama_model_chat_template(model, None)
    if not template:
        return said
    text = _render(template.decode("utf-8", "replace"), vocabulary, said)
    if text is None:
        text = _imitate(llama, template, said)
    if text is None:
        message = "the model's chat template cannot be read: ask without chat"
        raise EngineError(Reason.UNSUPPORTED, message)
    # The start of text is put there when the text is read.
    return text.removeprefix(vocabulary.bos) if vocabulary.adds_bos else text


def _render(template: str, vocabulary: Vocabulary, said: str) -> str | None:
    """The template as a program; None where it fails, in whatever way."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    try:
        formatter = Jinja2ChatFormatter(template, vocabulary.eos, vocabulary.bos)
        return str(formatter(messages=[{"role": "user", "content": said}]).prompt)
    except Exception:  # a stranger's program
        return None


def _imitate(llama: Any, template: bytes, said: str) -> str | None:
    """The template as llama.cpp recognises it; None where it does not."""
    message = llama.llama_chat_message(role=b"user", content=said.encode("utf-8", "replace"))
    size = 2 * len(message.content) + 1024
    text = ctypes.create_string_buffer(size)
    n = llama.llama_chat_apply_template(template, (type(message) * 1)(message), 1, True, text, size)  # noqa: FBT003
    return text.raw[:n].decode("utf-8", "replace") if 0 <= n <= size else None
