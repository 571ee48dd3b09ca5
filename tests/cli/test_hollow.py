"""A hollow network and its corrector, from the command line."""

import pytest

from tests.cli import tools


@pytest.mark.slow
def test_it_trains_and_is_corrected_from_the_command_line(tmp_path):
    text = tmp_path / "text"
    text.write_text(tools.sentences(200))
    work = f"--workdir={tmp_path / 'run'}"
    given = (*tools.SIZES, *tools.OPTIM, *tools.corpus(text), "--config.training.num_steps=6")
    tools.good("train", tools.recipe("hollow_sic"), work, *given)
    said = tools.good("evaluate", work).out
    assert "an upper bound for the sampler that runs one pass per step" in said, said
    rule = "--sampler=predictor_corrector:corrector=informed"
    tools.good("sample", work, rule, "--num_samples=2", f"--output={tmp_path / 's.jsonl'}")
    rows = tools.json_lines(tmp_path / "s.jsonl")
    assert [r["calls"] for r in rows] == [2 * 4] * 2
