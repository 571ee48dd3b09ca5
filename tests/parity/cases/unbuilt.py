"""Kinds of files whose code does not exist yet; every array is named, none is passed over."""

from __future__ import annotations

from tests.parity.golden import Golden
from tests.parity.runner import kind


@kind("gpt2_judge")
def judge(golden: Golden) -> None:
    """GPT-2 as judge of samples."""
    golden.gap(
        "logits|nll|valid|gen_ppl|logits_masked|long_nll_sum|long_count|unigram_entropy",
        "the GPT-2 judge is not built yet",
        inputs="ids|attention_mask|long_ids",
    )
