"""How far one distribution over the vocabulary lies from another.

The definition is that of llama.cpp's ``tools/perplexity/perplexity.cpp`` (``--kl-divergence``),
without its two approximations: it keeps the reference's log-probabilities in 16 bits, and leaves
out words below exp(−16). On SmolLM2-135M with a q8_0 and a q4_0 cache, in windows of 256 tokens,
that tool prints 0.003816 and 0.045819 nats; this gives 0.003814 and 0.045751.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


def divergence(reference: Logits, candidate: Logits) -> float:
    """KL(P‖Q) = Σ p·ln(p/q) in nats, of logits of shape (n_vocab,) each; computed in float64.

    With x and y the logits less their maxima, ln p = x − ln Σ eˣ and ln q = y − ln Σ eʸ. Not
    finite where a logit is NaN, or where Q rules out a word that P does not.
    """
    x, y = reference - np.float64(reference.max()), candidate - np.float64(candidate.max())
    weights = np.exp(x)
    total = weights.sum()
    difference = np.subtract(x, y, where=weights > 0, out=np.zeros_like(x))  # 0·ln 0 is 0
    nats = weights @ difference / total + np.log(np.exp(y).sum()) - np.log(total)
    # A divergence cannot be negative, its rounding can. max() would hide a NaN.
    return 0.0 if nats < 0 else float(nats)
