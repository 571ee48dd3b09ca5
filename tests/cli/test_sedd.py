"""Score entropy and D3PM through the same commands, with and without a latent."""

from __future__ import annotations

import pytest

from tests.cli import tools


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sedd", "sedd_uniform", "lddm_sedd", "d3pm"])
def test_train_evaluate_sample(method, trained, tmp_path):
    workdir, output = trained(method), tmp_path / "out.jsonl"
    looped = method.startswith("lddm")
    tools.good("evaluate", f"--workdir={workdir}", f"--output={output}")
    (record,) = tools.json_lines(output)
    assert record["passes"] == 1 + looped and 0 < record["nelbo_nats_per_token"] < 6
    tools.good("sample", f"--workdir={workdir}", f"--output={output}")
    records = tools.json_lines(output)
    # The last step may leave a mask, which the noise removal takes; what has none always pays.
    allowed = {5} if "uniform" in method else {4, 5}
    assert all(r["calls"] in allowed and "[MASK]" not in r["text"] for r in records)
    rule = "ancestral" if method == "d3pm" else "analytic"
    assert records[0]["settings"]["step"] == {"name": rule}
    rules = ["euler", "theta_trapezoidal", "ancestral"]
    rules += [] if "uniform" in method else ["confidence", "remdm"]
    for rule in rules:
        tools.good("sample", f"--workdir={workdir}", f"--sampler={rule}", f"--output={output}")
        assert not any("[MASK]" in r["text"] for r in tools.json_lines(output))
