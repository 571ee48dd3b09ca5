"""A model of answers: trained, prompted, scored, and another tuned to answer."""

import json

import pytest

from tests.cli import tools

CONFIG = f"--config={tools.ROOT / 'configs' / 'instructions.py'}:method=mdlm"
TEMPLATE = "--config.data.template=<{prompt}>"


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    file = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    rows = [(f"{a}+{b}", str(a + b)) for a in range(10) for b in range(10)] * 2
    lines = (json.dumps({"prompt": p, "response": r}) for p, r in rows)
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.slow
def test_answers_end_where_their_eos_stands(sums, text, tmp_path):
    """What is printed and judged ends there; a prompt is read through the template."""
    given = (*tools.SIZES, *tools.OPTIM, "--config.training.num_steps=60",
             f"--config.data.path={sums}", "--config.optim.lr=2e-2",
             "--config.training.ema_decay=0.9", TEMPLATE)  # fmt: skip
    run = f"--workdir={tmp_path / 'run'}"
    tools.good("train", CONFIG, run, *given)
    output = tmp_path / "s.jsonl"
    tools.good("sample", run, "--prompt=3+4", f"--output={output}")
    for record in tools.json_lines(output):
        assert record["text"].startswith("<3+4>") and len(record["tokens"]) == 16
        end = record["tokens"].index(
            record["tokens"][-1]
        )  # EOS fills a row that has learned to end
        assert len(record["text"]) == end < 16
    assert "nats/token" in tools.good("evaluate", run).out
    plain = f"--workdir={tmp_path / 'plain'}"
    first = ("--config.training.num_steps=2", *tools.SIZES, *tools.OPTIM, *tools.corpus(text))
    tools.good("train", tools.recipe("mdlm", "text") + ",tokenizer=bytes", plain, *first)
    begin = f"--config={tools.ROOT / 'configs' / 'finetune.py'}:from={tmp_path / 'plain'}"
    tuned = f"--workdir={tmp_path / 'tuned'}"
    more = (f"--config.data.path={sums}", "--config.training.num_steps=2", TEMPLATE)
    tools.good("train", f"{begin},data=instructions", tuned, *more)
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert config["data"]["name"] == "instructions" and config["data"]["length"] == 16
    refused = tools.call("train", f"{begin},data=problems", f"--workdir={tmp_path / 'no'}", *more)
    assert refused.status == 2 and "unknown data 'problems'" in refused.err
