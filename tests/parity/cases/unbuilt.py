"""Kinds of files whose code does not exist yet; every array is named, none is passed over."""

from __future__ import annotations

from tests.parity.golden import Golden
from tests.parity.runner import kind


@kind("sedd_absorb", "sedd_uniform")
def score_network(golden: Golden) -> None:
    """Log-score read-out."""
    golden.gap("log_score", "SEDD's log-score read-out is not built yet", inputs="x|sigma")
    golden.folder.used_weights.add(str(golden.weight_file()))


@kind("sampler_sedd")
def score_sampler(golden: Golden) -> None:
    """Tweedie sampler."""
    reason = "SEDD's analytic sampler is not built yet"
    golden.gap(r"tokens|latents|table_\w+", reason, inputs="u")
    golden.folder.used_weights.add(str(golden.weight_file()))


@kind("gpt2_judge")
def judge(golden: Golden) -> None:
    """GPT-2 as judge of samples."""
    golden.gap(
        "logits|nll|valid|gen_ppl|logits_masked|long_nll_sum|long_count|unigram_entropy",
        "the GPT-2 judge is not built yet",
        inputs="ids|attention_mask|long_ids",
    )
