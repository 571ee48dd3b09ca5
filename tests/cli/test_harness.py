"""Real tasks of lm-evaluation-harness from local files: multiple choice and generation."""

import json
import os

import pytest

from tests.cli import tools

pytest.importorskip("lm_eval")

CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
GENERATE = """
task: local_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "house"
generation_kwargs: {{until: ["."], max_gen_toks: 6, do_sample: true, temperature: 0.9}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No hub, and a cache of its own."""
    names = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    names["HF_HOME"] = str(tmp_path_factory.mktemp("hf"))
    before = {n: os.environ.get(n) for n in names}
    os.environ.update(names)
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    options = ["house", "river bank", "zzzzqq"]
    docs = [{"question": f"{q} red", "options": options, "answer": 0} for q in ("the", "a", "by")]
    docs += [{"question": "the old house stands by the old river and", "options": ["we"] * 2}]
    docs[-1]["answer"] = 0
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs))
    for name, text in (("choice", CHOICE), ("generate", GENERATE)):
        (folder / f"{name}.yaml").write_text(text.format(file=folder / "docs.jsonl"))
    return folder


def run(workdir, tasks, tmp_path, *flags, names="local_choice,local_generate"):
    out = tmp_path / "out.json"
    tools.good(
        *("lm-eval", f"--workdir={workdir}", f"--tasks={names}", f"--include={tasks}"),
        *(f"--output={out}", "--draws=5", *flags),
    )
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lddm_m", "ar"])
def test_choice_and_generation(trained, tasks, tmp_path, method):
    workdir = trained(method)
    found = run(workdir, tasks, tmp_path)
    assert 0 <= found["results"]["local_choice"]["acc,none"] <= 1
    assert "exact_match,none" in found["results"]["local_generate"]
    report = found["ldd_jax"]
    assert report["requests"] == 4 * 2 + 3 and report["cut_context"] == 4
    assert report["cut_prompt"] == 1 and report["cut_target"] == 0
    assert (report["scored_exactly"] == report["requests"]) == (method == "ar")
    again = run(workdir, tasks, tmp_path, "--batch_size=3")
    assert again["results"] == found["results"]


@pytest.mark.slow
def test_both_likelihoods_of_requests(trained, monkeypatch):
    from lm_eval.api.instance import Instance

    from ldd_jax import harness

    ask = lambda *args: Instance("loglikelihood", {}, args, 0)
    pair = [ask("the old", " house"), ask("", "river")]
    usual = harness.Harness(str(trained("mdlm")), draws=31)
    joint = harness.Harness(pipeline=usual.pipeline, likelihood="joint", draws=31)
    for one, (a, _), (b, _) in zip(pair, usual.loglikelihood(pair), joint.loglikelihood(pair)):
        tokens = len("".join(one.args))
        whole = usual.pipeline.nll("".join(one.args), draws=31)[0]
        assert b == pytest.approx(-whole.nats / tokens)
        assert a == pytest.approx(
            -usual.pipeline.nll(one.args[1], context=one.args[0], draws=31)[0].nats
        )
    text = "the old house by the river " * 3
    pieces = [text[i : i + 16] for i in range(0, len(text), 16)]
    rolling = usual.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    parts = usual.pipeline.nll(pieces, draws=31)
    assert rolling == pytest.approx([-sum(p.nats for p in parts)])


@pytest.mark.slow
def test_two_processes_give_the_same(trained, tasks, tmp_path):
    from tests.training.test_distributed import free_port

    workdir, port = trained("lddm_m"), free_port()
    alone = run(workdir, tasks, tmp_path)
    flags = ("lm-eval", f"--workdir={workdir}", "--tasks=local_choice,local_generate")
    flags += (f"--include={tasks}", f"--output={tmp_path / 'two.json'}", "--draws=5")
    both = [tools.start(*flags, f"--distributed=127.0.0.1:{port},2,{rank}") for rank in (0, 1)]
    ends = [p.communicate(timeout=400) for p in both]
    assert [p.returncode for p in both] == [0, 0], ends
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["results"] == alone["results"]
    mine, theirs = alone["ldd_jax"], two["ldd_jax"]
    assert mine.pop("mean_standard_error") == pytest.approx(theirs.pop("mean_standard_error"))
    assert mine.pop("largest_standard_error") == pytest.approx(theirs.pop("largest_standard_error"))
    assert mine == theirs
