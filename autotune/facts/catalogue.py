"""Shapes of published models: what telemetry without the file leaves out.

A benchmark table says ``qwen3moe 30B.A3B Q4_K - Medium`` and two sizes. Physics needs layers, heads
and which bytes one token reads: those of the published model (:mod:`autotune.facts.shapes`). One
that is not listed gets the nearest shape of its kind, stretched to its size, and says so.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache

from autotune.domain.errors import DataError
from autotune.domain.model import ModelFacts, TensorSum
from autotune.facts.quantization import (
    TensorTypes,
    element_bits,
    find_file_type,
    tensor_types,
)
from autotune.facts.shapes import SHAPES, Shape

_ALIKE = 0.02
"""Two parameter counts this close may be the same shape: biases are counted differently."""
_SAME = 0.001
"""Two parameter counts this close are the same shape, whatever the model is called."""
_NOMINAL = 0.06
"""The size in a model's name is rounded about this much."""
_SIZE = re.compile(
    r"(?<![\w.])(?:(?P<experts>\d+)x)?(?P<size>\d+(?:\.\d+)?)\s*(?P<unit>[BM])(?!\w)",
    re.IGNORECASE,
)
_ACTIVE = re.compile(r"(?<![a-z0-9])A(?P<size>\d+(?:\.\d+)?)B(?![a-z])", re.IGNORECASE)
_SAYS_EXPERTS = re.compile(r"moe\b|\b\d+x\d", re.IGNORECASE)
_IS_DYNAMIC = re.compile(r"(?<![A-Z0-9])UD[-_]|_XL(?![A-Z0-9])", re.IGNORECASE)
"""Mixtures that keep finer what every token reads. The experts of a Qwen3-235B-A22B in UD-Q3_K_XL
leave 6.9 bits to each weight of the other tensors in the layers, those of a Qwen3-30B-A3B in
UD-Q4_K_XL 8.5."""
_FINEST = "Q8_0"
"""The finest that those are in, by which their mixture is called (ikawrakow/ik_llama.cpp, issue
1420, lists such a file's types)."""
_TABLES = ("embedding", "output")
"""Tensor groups outside the layers."""
_K_ROW = 256
"""Columns of a row that is to be in a K-quant. Experts of another width are in several types, and
what those leave over says nothing."""
_FAMILIES = {"deepseek2": "deepseek", "dots1": "dots", "qwen35moe": "qwen 3 5"}
"""What people call an architecture, where it is not the architecture's own name."""
_BETWEEN = "[-_. ]?"


def find_shape(text: str, n_params: float | None = None) -> tuple[Shape, bool]:
    """The shape of a model by llama.cpp's description or its name, and whether it is exact.

    ``n_params`` decides where it is known. A model that is not listed gets the nearest shape of
    its kind, stretched to its size. Raises DataError for a text that tells neither.
    """
    if n_params is None and (named := _named(text)):
        return named, True
    size = n_params or _named_size(text)
    if size is None:
        raise DataError(f"model {text!r} is not known, and its size is not told")
    if n_params and (alike := _alike(text, n_params)):
        of_kind = [s for s in alike if _is_called(s, text)]
        best = min(of_kind or alike, key=lambda s: abs(s.n_params / n_params - 1))
        if of_kind or abs(best.n_params / n_params - 1) < _SAME:
            return best, True
    return _nearest(text, size, is_nominal=n_params is None), False


def _alike(text: str, n_params: float) -> list[Shape]:
    """Shapes of that many weights; of one that is said to have experts, those with experts."""
    says_experts = _says_experts(text)
    return [
        s
        for s in (*SHAPES, *_untied())
        if abs(s.n_params / n_params - 1) < _ALIKE and (s.n_experts > 0 or not says_experts)
    ]


@cache
def _untied() -> tuple[Shape, ...]:
    """Exports that write a shared table twice: Qwen2.5-0.5B is published so, with 630 M weights."""
    return tuple(
        replace(s, is_tied=False, n_params=s.n_params + s.n_vocab * s.n_embd)
        for s in SHAPES
        if s.is_tied
    )


def _says_experts(text: str) -> bool:
    return bool(_ACTIVE.search(text) or _SAYS_EXPERTS.search(text))


def _is_called(shape: Shape, text: str) -> bool:
    """Whether the text names the architecture or the family of a shape."""
    words = text.lower()
    family = _family(shape)
    return shape.architecture in words.split() or bool(family and _pattern_of(family).search(words))


def _named(text: str) -> Shape | None:
    """The shape whose family and size a name states, such as ``Qwen3-30B-A3B``."""
    words = text.lower()
    found = [
        s
        for s in SHAPES
        if (not _family(s) or _is_called(s, text))
        and _pattern_of(s.label.split()[-1].lower().replace("bx", "b")).search(words)
    ]
    # "8b" is inside "8b.a1b": the longer name is meant.
    return max(found, key=lambda s: len(_family(s) + s.label.split()[-1]), default=None)


def _family(shape: Shape) -> str:
    """What the models of a shape are called, such as ``llama-3``; empty where the size tells."""
    if shape.architecture == "llama":
        return " ".join(shape.label.split()[:-1]).lower()
    plain = re.sub(r"[-_]?moe$", "", shape.architecture)
    return _FAMILIES.get(shape.architecture, plain)


@cache
def _pattern_of(words: str) -> re.Pattern[str]:
    """Finds the words, however they are joined, where nothing longer is meant."""
    parts = re.findall(r"[a-z]+|\d+", words)
    return re.compile(rf"(?<![a-z0-9.]){_BETWEEN.join(parts)}(?![a-z0-9])")


def _named_size(text: str) -> float | None:
    """The number of weights that a name states, such as ``7B``; of ``8x7B`` eight times seven."""
    match = _SIZE.search(text.replace("-", " ").replace("_", " "))
    if match is None:
        return None
    unit = 1e9 if match["unit"].upper() == "B" else 1e6
    return float(match["size"]) * unit * int(match["experts"] or 1)


def _kin(text: str) -> Sequence[Shape]:
    """Shapes of the same kind: of the architecture that the text names, if there are any."""
    called = [s for s in SHAPES if s.architecture in text.lower()]
    has_experts = _says_experts(text) or bool(called and all(s.n_experts for s in called))
    return [s for s in called if (s.n_experts > 0) == has_experts] or [
        s for s in SHAPES if (s.n_experts > 0) == has_experts
    ]


def _nearest(text: str, n_params: float, *, is_nominal: bool) -> Shape:
    """The nearest shape of the same kind, stretched unless the size is a round number near it."""
    active = _ACTIVE.search(text)
    n_active = float(active["size"]) * 1e9 if active else None

    def distance(shape: Shape) -> float:
        of_all = abs(math.log(shape.n_params / n_params))
        return of_all + (abs(math.log(shape.n_active / n_active)) if n_active else 0.0)

    near = min(_kin(text), key=distance)
    if is_nominal and abs(near.n_params / n_params - 1) < _NOMINAL:
        return near
    shape = _stretched(near, text, n_params)
    return shape if n_active is None else _with_active(shape, n_active)


def _stretched(near: Shape, text: str, n_params: float) -> Shape:
    """A shape with its widths scaled to a number of weights."""
    # Published families grow about alike in depth and in width.
    ratio = n_params / near.n_params
    depth = max(round(near.n_layers * ratio**0.3), 1)
    width = math.sqrt(ratio * near.n_layers / depth)
    heads = max(round(near.n_heads * width), 1)
    return replace(
        near,
        label=text,
        n_params=n_params,
        n_layers=depth,
        n_embd=max(round(near.n_embd * width / 64), 1) * 64,
        n_ff=round(near.n_ff * width),
        n_heads=heads,
        n_heads_kv=max(round(heads * near.n_heads_kv / near.n_heads), 1),
        n_ff_expert=round(near.n_ff_expert * width),
        n_ff_shared=round(near.n_ff_shared * width),
        attention_params=round(near.attention_params * width**2),
    )


def _with_active(shape: Shape, n_active: float) -> Shape:
    """The shape with so many experts used that a token multiplies ``n_active`` weights."""
    if not shape.n_experts:
        return shape
    weights = shape.weights()
    always = replace(shape, n_experts_used=0).n_active
    share = (n_active - always) / weights["experts"]
    used = min(max(round(share * shape.n_experts), 1), shape.n_experts)
    return replace(shape, n_experts_used=used)


@lru_cache(maxsize=1024)
def described_model(
    *,
    name: str,
    model_type: str | None = None,
    n_params: int | None = None,
    model_bytes: int | None = None,
    quantization: str | None = None,
) -> ModelFacts:
    """Facts of a model whose file is not here, from what a benchmark table says of it.

    Raises DataError where that tells neither which model it is nor how large.
    """
    described = " ".join(filter(None, (model_type, name)))
    named = map(find_file_type, (quantization or "", name, model_type or ""))
    file_type = next(filter(None, named), None)
    types = tensor_types(file_type or "Q4_K_M")
    shape, _ = find_shape(described, n_params or _weighed(described, types, model_bytes))
    is_dynamic = bool(_IS_DYNAMIC.search(" ".join(filter(None, (name, quantization)))))
    sums = tuple(_sums(shape, types, n_params, model_bytes, is_dynamic=is_dynamic))
    n_bytes = sum(item.n_bytes for item in sums)
    identity = f"{name}|{model_type}|{n_params}|{model_bytes}|{quantization}"
    sliding = _pattern(shape) if shape.window else ()
    recurrent = _pattern(shape) if shape.is_recurrent else ()
    return ModelFacts(
        model_id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        name=name,
        architecture=shape.architecture,
        quantization=file_type or "",
        file_bytes=n_bytes,
        header_bytes=0,
        n_layers=shape.n_layers,
        n_embd=shape.n_embd,
        n_ff=shape.n_ff or shape.n_ff_shared or shape.n_ff_expert,
        n_heads=(shape.n_heads,) * shape.n_layers,
        n_heads_kv=tuple(
            0 if recurrent and recurrent[layer] else shape.n_heads_kv
            for layer in range(shape.n_layers)
        ),
        key_length=shape.key_length,
        value_length=shape.key_length,
        n_ctx_train=0,
        n_vocab=shape.n_vocab,
        n_experts=shape.n_experts,
        n_experts_used=shape.n_experts_used,
        n_ff_expert=shape.n_ff_expert,
        sliding_window=shape.window,
        is_sliding=sliding,
        is_recurrent=recurrent,
        state_elements=shape.state_elements,
        kv_lora_rank=shape.kv_lora_rank,
        tensors=sums,
    )


def _weighed(text: str, types: TensorTypes, model_bytes: int | None) -> int | None:
    """Number of weights by what they weigh, where the text does not tell it."""
    if model_bytes is None or _named(text) or _named_size(text):
        return None
    return round(model_bytes * 8 / types.bits_per_weight)


def _pattern(shape: Shape) -> tuple[bool, ...]:
    """Which layers do not see the whole context; shape (n_layers,)."""
    return tuple((layer + 1) % shape.full_period != 0 for layer in range(shape.n_layers))


def _sums(
    shape: Shape,
    types: TensorTypes,
    n_params: int | None,
    model_bytes: int | None,
    *,
    is_dynamic: bool,
) -> Iterator[TensorSum]:
    """One sum per tensor group; together they weigh what the table says."""
    weights = shape.weights()
    scale = (n_params or shape.n_params) / sum(weights.values())
    elements = {group: n * scale for group, n in weights.items() if n}
    total = model_bytes or sum(elements.values()) * types.bits_per_weight / 8
    kinds = _kinds(shape, types, elements, total)
    n_bytes = {group: n * element_bits(kinds[group]) / 8 for group, n in elements.items()}
    # Mixtures vary inside the layers: what the tables do not take is theirs.
    body = [group for group in elements if group not in _TABLES]
    rest = total - sum(n_bytes[group] for group in elements if group not in body)
    if is_dynamic and "experts" in body and shape.n_ff_expert % _K_ROW == 0:
        always = [group for group in body if group != "experts"]
        n_always = sum(elements[group] for group in always)
        spare = rest - n_bytes["experts"]
        least, most = element_bits(types.main), element_bits(_FINEST)
        bits = min(max(8 * spare / n_always, least), max(least, most))
        for group in always:
            kinds[group], n_bytes[group] = _FINEST, elements[group] * bits / 8
        body, rest = ["experts"], rest - n_always * bits / 8
    stretch = max(rest / sum(n_bytes[group] for group in body), 0.1)
    for group, n in elements.items():
        yield TensorSum(
            group=group,
            type=kinds[group],
            n_tensors=1 if group in _TABLES else shape.n_layers,
            n_elements=round(n),
            n_bytes=round(n_bytes[group] * (stretch if group in body else 1.0)),
        )


def _kinds(
    shape: Shape, types: TensorTypes, elements: Mapping[str, float], total: float
) -> dict[str, str]:
    """The element type of each tensor group (``llama_tensor_get_type`` in ``llama-quant.cpp``)."""
    if types.main == "MXFP4" and "experts" in elements:
        return dict.fromkeys(elements, "Q8_0") | {"experts": "MXFP4"}
    last = "embedding" if shape.is_tied else "output"
    kinds = dict.fromkeys(elements, types.main) | {last: types.output}
    if types.is_float and total < 1.5 * sum(elements.values()) and "experts" in elements:
        kinds["experts"] = "MXFP4"  # as gpt-oss is published: only the experts are quantised
    return kinds
