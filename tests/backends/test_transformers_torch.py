"""transformers: what it makes of a GGUF file. The rest is in the contract of all backends."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from autotune.backends.protocol import EngineError, Plans
from autotune.backends.transformers_library import import_libraries
from autotune.backends.transformers_session import TransformersSession
from autotune.backends.transformers_torch import TransformersBackend
from autotune.backends.transformers_vocab import Speaker
from autotune.domain.config import Config
from autotune.domain.request import TextRequest
from autotune.domain.run import Reason, Trial
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine
from autotune.measure.runner import LocalRunner
from tests.backends.tiny_models import N_EMBD, N_WORDS, write_tiny_model
from tests.facts.gguf_files import write_gguf

pytest.importorskip("transformers", reason="not installed: pip install -e '.[test]'")

FACTS = (
    "The capital of France is Paris. It is the largest city in France and the second largest city "
    "in the European Union. The river Seine flows through the city, and many people visit the "
    "museums there every year."
)
F32 = Config(n_ctx=256, n_batch=64, n_ubatch=64, type_k="f32", type_v="f32")


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    """The libraries, imported once."""
    return TransformersBackend()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def session(backend: TransformersBackend, tiny: Path) -> Iterator[TransformersSession]:
    """The tiny llama, loaded."""
    session = backend.load(tiny, F32)
    yield session
    session.close()


def weights_of(session: TransformersSession) -> dict[str, Any]:
    """The weights by transformers' names."""
    return dict(session._model._model.named_parameters())


def test_the_build_names_both_libraries(backend: TransformersBackend) -> None:
    """What computes is PyTorch: another one is another build."""
    build = backend.build()

    assert build.version.startswith(importlib.metadata.version("transformers"))
    assert build.version.endswith(importlib.metadata.version("torch"))
    assert build.commit is None


def test_the_newcomers_default_is_the_librarys(backend: TransformersBackend, tiny: Path) -> None:
    """Type, attention and threads of from_pretrained with nothing set, in a fresh interpreter."""
    code = f"""
import os; os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tiny.parent)!r}, gguf_file="tiny.gguf")
print(model.dtype, model.device, model.config._attn_implementation, torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    default = backend.default_config(n_ctx=1024, machine=read_machine())

    assert done.stdout.split() == ["torch.float32", "cpu", "sdpa", str(default.n_threads)]
    assert (default.type_k, default.type_v, default.n_gpu_layers) == ("f32", "f32", 0)
    assert default.flash_attn == "auto"


def test_weights_are_the_files_de_quantised(
    unpacked_smollm2: TransformersSession, smollm2_path: Path
) -> None:
    """Held against the reference: the embedding, Q4_1 in the file, float32 in memory."""
    from gguf import GGUFReader, quants

    ours = weights_of(unpacked_smollm2)["model.embed_tokens.weight"].detach().numpy()
    n_bytes = unpacked_smollm2.report().total_bytes("model")
    tensor = next(t for t in GGUFReader(smollm2_path).tensors if t.name == "token_embd.weight")

    np.testing.assert_array_equal(ours, quants.dequantize(tensor.data, tensor.tensor_type))
    model = read_model(smollm2_path)
    assert n_bytes == model.n_params * 4
    assert n_bytes > 5 * model.weight_bytes


def test_the_model_thinks_what_it_thinks_in_llama_cpp(
    unpacked_smollm2: TransformersSession, smollm2_path: Path
) -> None:
    """The same tokens of a text, the same likeliest next ones but for near ties.

    llama.cpp rounds what quantised weights are multiplied with to 8 bits. Weights in a wrong order
    agree on half of them.
    """
    llama = llama_cpp.Llama(
        str(smollm2_path), n_ctx=256, n_batch=256, logits_all=True, verbose=False
    )
    tokens = llama.tokenize(FACTS.encode(), add_bos=False)
    llama.eval(tokens)
    theirs = llama.scores[: len(tokens)].argmax(axis=1)
    llama.close()
    model = unpacked_smollm2._model._model
    with unpacked_smollm2._computing():
        logits = model(input_ids=unpacked_smollm2._torch.tensor([tokens])).logits[0]
    ours = logits.argmax(dim=1).numpy()

    assert unpacked_smollm2._text._vocabulary.tokens(FACTS, chat=False) == tokens
    assert np.mean(ours == theirs) > 0.9


@pytest.mark.parametrize(("kind", "n_bytes"), [("f32", 4), ("f16", 2), ("bf16", 2)])
def test_one_type_is_weights_and_cache(
    backend: TransformersBackend, tiny: Path, kind: str, n_bytes: int
) -> None:
    """Half as wide, half the memory; the plan says so before."""
    config = F32.replace(type_k=kind, type_v=kind)
    session = backend.load(tiny, config)
    report = session.report()
    with session._computing():
        cache = session._filled(5, random.Random(0))
    session.close()
    plan = backend.plan(tiny, config)

    assert report.total_bytes("model") == read_model(tiny).n_params * n_bytes
    assert plan.total_bytes(component="weights") == report.total_bytes("model")
    assert cache.layers[0].keys.element_size() == n_bytes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flash_attn": "on", "type_k": "q8_0"}, "has no quantised cache"),
        ({"type_v": "f16"}, "computes in one type: use type_v=f32"),
        ({"n_gpu_layers": 1}, "all layers on the GPU or none"),
        ({"n_gpu_layers": -1, "offload_kqv": False}, "keeps the cache where the layers are"),
        ({"n_parallel": 2}, "serves one sequence"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_before_anything_is_read(
    backend: TransformersBackend, tiny: Path, changes: dict[str, Any], words: str
) -> None:
    """By the plan and by the load, in the same words."""
    config = F32.replace(**changes)
    for ask in (backend.plan, backend.load):
        with pytest.raises(EngineError, match=words) as caught:
            ask(tiny, config)
        assert caught.value.reason is Reason.CONSTRAINT


def test_all_layers_go_to_the_gpus_that_there_are(backend: TransformersBackend, tiny: Path) -> None:
    """−1 without a GPU is the processor, as with llama.cpp."""
    session = backend.load(tiny, F32.replace(n_gpu_layers=-1))
    report = session.report()
    session.close()

    expected = 3 if backend.gpus() else 0
    assert (report.layers_offloaded, report.layers_total) == (expected, 3)


def test_an_architecture_that_it_does_not_know_is_unsupported(
    backend: TransformersBackend, tmp_path: Path
) -> None:
    """In transformers' own words, in one line; kept in the log."""
    path = write_gguf(tmp_path / "strange.gguf", architecture="plamo2")
    with pytest.raises(EngineError, match="architecture plamo2 is not supported") as caught:
        backend.load(path, F32)

    assert caught.value.reason is Reason.UNSUPPORTED
    assert "\n" not in str(caught.value)
    assert "plamo2" in backend.log_excerpt()


def test_a_model_with_holes_is_not_run(backend: TransformersBackend, tmp_path: Path) -> None:
    """transformers would fill the place of a missing weight with random numbers."""
    path = write_tiny_model(tmp_path / "holes.gguf", without={"blk.1.ffn_up"})
    with pytest.raises(EngineError, match=r"finds no model\.layers\.1\.mlp\.up_proj") as caught:
        backend.load(path, F32)

    assert caught.value.reason is Reason.UNSUPPORTED


def test_a_missing_library_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the four it is; nothing else is needed to plan."""
    for name in ("accelerate", "gguf", "torch", "transformers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=rf"{name}.*pip install 'gguf-autotune\[transf"):
                import_libraries({})


def test_nothing_is_looked_up_on_a_network(tiny: Path) -> None:
    """A fresh interpreter in which every connection fails loads, samples and answers."""
    code = f"""
import os, socket, pathlib
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from autotune.backends.transformers_torch import TransformersBackend
from autotune.domain.config import Config
from autotune.domain.request import TextRequest
from autotune.domain.workload import Workload
session = TransformersBackend().load(
    pathlib.Path({str(tiny)!r}), Config(n_ctx=64, n_batch=64, n_ubatch=64)
)
session.sample(Workload(n_prompt=4, n_gen=2), seed=1)
session.generate(TextRequest(prompt="the", max_tokens=2), on_text=lambda _: True)
print(os.environ["HF_HUB_OFFLINE"], os.environ["HF_HUB_DISABLE_TELEMETRY"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_pieces_of_a_prompt_are_the_prompt(backend: TransformersBackend, tiny: Path) -> None:
    """Computed at once or in pieces of seven: the same logits."""
    tokens = list(range(40))
    logits = []
    for n_ubatch in (64, 7):
        session = backend.load(tiny, F32.replace(n_ubatch=n_ubatch))
        with session._computing():
            logits.append(session._prefill(tokens, session._model.new_cache()).numpy())
        session.close()

    assert logits[0].shape == (N_WORDS,)
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-3, atol=1e-4)


def test_depth_is_computed_once_and_each_sample_has_its_own(session: TransformersSession) -> None:
    """What a sample adds to the cache is not in the next one's."""
    deep = Workload(n_prompt=4, n_gen=3, n_depth=20)
    session.sample(deep, seed=1)
    state = session._depth_state
    session.sample(deep, seed=2)

    assert state is session._depth_state
    assert state is not None
    assert state[1].get_seq_length() == 20


def test_attention_is_what_was_asked_for(backend: TransformersBackend, tiny: Path) -> None:
    """Step by step and fused agree; auto is fused."""
    fused, logits = [], []
    for flash_attn in ("off", "on", "auto"):
        session = backend.load(tiny, F32.replace(flash_attn=flash_attn))
        fused.append(session.report().flash_attn)
        with session._computing():
            logits.append(session._prefill(range(30), session._model.new_cache()).numpy())
        session.close()

    assert fused == [False, True, True]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-3, atol=1e-4)


def test_characters_come_out_whole() -> None:
    """Three tokens that are one character, one that is two, one that stands for nothing."""
    bytes_of = {1: b"a", 2: b"\xe2", 3: b"\x82", 4: b"\xac", 5: b"bc", 6: b""}

    def text(tokens: Any) -> str:
        return b"".join(bytes_of[token] for token in tokens).decode("utf-8", "replace")

    speaker = Speaker(text, [1])
    assert [speaker.add(token) for token in (2, 3, 4, 6, 5, 1)] == [
        *(b"", b"", "€".encode()),
        *(b"", b"bc", b"a"),
    ]


def test_the_seed_decides_and_the_request_limits(session: TransformersSession) -> None:
    """The only word that is left is taken, however hot it is."""
    request = TextRequest(prompt="the thing", max_tokens=12, temperature=50.0, top_k=0, seed=4)

    def told(request: TextRequest) -> str:
        return session.generate(request, on_text=lambda _: True).text

    greedy = told(dataclasses.replace(request, temperature=0.0))
    assert told(request) == told(request)
    assert told(request) != greedy
    for limit in ({"top_k": 1}, {"top_p": 1e-9, "min_p": 0.0}, {"min_p": 1.0}):
        assert told(dataclasses.replace(request, **limit)) == greedy


def test_a_plan_is_made_without_the_libraries(tiny: Path) -> None:
    """And nothing but the header is read."""
    code = f"""
import sys, pathlib
from autotune.backends.registry import get_backend
from autotune.domain.config import Config
backend = get_backend("transformers", {{}})
print(backend.plan(pathlib.Path({str(tiny)!r}), Config()).total_bytes(component="weights"))
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert isinstance(TransformersBackend(), Plans)
    assert done.stdout.split() == [str(read_model(tiny).n_params * 2), "[]"]
    assert read_model(tiny).n_params > N_WORDS * N_EMBD


def peak_bytes(path: Path, config: Config) -> int:
    """The most that a run held, in a process of its own."""
    workload = Workload(n_prompt=64, n_gen=4)
    trial = Trial(
        model_path=path, config=config, workload=workload, n_reps=1, max_reps=1, sampling_s=1.0
    )
    run = LocalRunner("transformers").run(trial)
    assert run.ok, run.message
    assert run.peak_rss_bytes is not None
    return run.peak_rss_bytes


def test_the_plan_is_what_a_run_takes(
    backend: TransformersBackend, tiny: Path, smollm2_path: Path
) -> None:
    """What SmolLM2 takes more than a model of nothing: weights, and reading the vocabulary."""
    nothing, peak = peak_bytes(tiny, F32), peak_bytes(smollm2_path, F32)
    planned = backend.plan(smollm2_path, F32).host_bytes - backend.plan(tiny, F32).host_bytes

    assert planned > 700 * MIB
    assert peak == pytest.approx(nothing + planned, rel=0.08)


def test_a_plan_knows_where_things_are(backend: TransformersBackend, gemma3_path: Path) -> None:
    """Windows shrink the cache; a GPU's model is put together in the machine's memory."""
    config = F32.replace(n_ctx=4096)
    full = backend.plan(gemma3_path, config)
    windows = backend.plan(gemma3_path, config.replace(swa_full=False))
    gpu = backend.plan(gemma3_path, config.replace(n_gpu_layers=-1))

    token = 2 * 256 * 4
    assert full.total_bytes(component="kv") == 18 * 4096 * token
    assert windows.total_bytes(component="kv") == (3 * 4096 + 15 * 511) * token
    assert gpu.total_bytes(component="weights", device="CUDA0") == full.total_bytes(
        component="weights"
    )
    assert gpu.host_bytes > full.total_bytes(component="weights")
