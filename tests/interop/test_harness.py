"""Real tasks of lm-evaluation-harness from local files: multiple choice and generation."""

import json
import os
import subprocess
import sys

import pytest

from ldd_jax.core.checks import UserError
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
def test_known_flags_and_what_the_file_keeps(trained, tasks, tmp_path):
    flags = ("--limit=0.5", "--log_samples", f"--output_path={tmp_path / 'kept'}")
    flags += ("--gen_kwargs=max_new_tokens=2,temperature=0", "--system_instruction=be short")
    found = run(trained("ar"), tasks, tmp_path, *flags, names="local_*")
    assert set(found["results"]) == set(found["configs"]) == {"local_choice", "local_generate"}
    assert [len(v) for v in found["samples"].values()] == [2, 2]
    assert found["configs"]["local_generate"]["generation_kwargs"]["max_new_tokens"] == 2
    (answer,) = found["samples"]["local_generate"][0]["resps"][0]
    assert len(answer) <= 2
    asked = found["samples"]["local_generate"][0]["arguments"][0][0]
    assert asked.startswith("be short") and asked.endswith("the red")
    files = sorted(p.name.split("_2")[0] for p in (tmp_path / "kept").rglob("*.json*"))
    assert files == ["results", "samples_local_choice", "samples_local_generate"]
    plain = run(trained("ar"), tasks, tmp_path, "--limit=1", names="local_choice")
    assert "samples" not in plain and plain["configs"]["local_choice"]["doc_to_text"]


@pytest.mark.slow
def test_chat_templates(trained, tasks, tmp_path):
    from ldd_jax.interop.harness import Harness

    own = tmp_path / "chat.jinja"
    own.write_text("{% for m in messages %}by {{ m.content }} and{% endfor %}")
    flags = (f"--apply_chat_template={own}", "--log_samples", "--limit=1")
    found = run(trained("ar"), tasks, tmp_path, *flags, names="local_generate")
    assert found["samples"]["local_generate"][0]["arguments"][0][0] == "by the red and"
    assert found["chat_template"] == own.read_text()
    history = [{"role": "user", "content": "the red"}]
    plain = Harness(str(trained("ar"))).apply_chat_template(history)
    assert plain == "user: the red\nassistant: "
    (tmp_path / "bad.jinja").write_text("{{ messages[0].content.__class__.__mro__ }}")
    flags = (f"--workdir={trained('ar')}", "--tasks=local_generate", f"--include={tasks}")
    result = tools.call("lm-eval", *flags, f"--apply_chat_template={tmp_path / 'bad.jinja'}")
    assert result.status == 2 and "the chat template fails" in result.err


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--tasks=local_x*",), "unknown tasks ['local_x*']"),
        (("--tasks=local_choice", "--limit=1.5"), "limit is 1.5"),
        (("--tasks=local_choice", "--limit=0"), "limit is 0"),
        (("--tasks=local_choice", '--gen_kwargs={"a"'), "--gen_kwargs="),
        (("--tasks=local_choice", "--apply_chat_template=/nowhere"), "cannot read the chat"),
        (("--tasks=local_choice", "--output_path=/dev/null/a"), "--output_path=/dev/null/a: Not a"),
    ],
)
def test_bad_flags(trained, tasks, flags, said):
    result = tools.call("lm-eval", f"--workdir={trained('ar')}", f"--include={tasks}", *flags)
    assert result.status == 2 and said in result.err, result


@pytest.mark.slow
def test_the_harness_s_own_command_line(trained, tasks, tmp_path):
    args = f"workdir={trained('lddm_m')},draws=5"
    command = ["-m", "ldd_jax.interop.lm_eval", "--model", "ldd_jax", "--model_args", args]
    command += ["--tasks", "local_choice,local_generate", "--include_path", str(tasks)]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples", "--limit", "2"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    ours = run(trained("lddm_m"), tasks, tmp_path, "--limit=2")["results"]
    for name in ours:
        scores = {k: v for k, v in ours[name].items() if isinstance(v, float)}
        assert scores and all(theirs[name][k] == v for k, v in scores.items())
    command[5] = f"workdir={tmp_path / 'nowhere'}"
    bad = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=600)
    assert bad.returncode == 2 and "Traceback" not in bad.stderr
    assert "is not a workdir" in bad.stderr.splitlines()[-1]


@pytest.mark.slow
def test_rows_are_batched_whatever_the_harness_says(trained):
    from ldd_jax.interop.harness import Harness

    args = {"workdir": str(trained("ar"))}
    size = lambda said: Harness.create_from_arg_obj(args, said).scorer.batch_size
    assert size({"batch_size": 1, "device": "cuda:0", "max_batch_size": None}) == 64
    assert size({"batch_size": "auto:4"}) == 64 and size({"batch_size": "8"}) == 8
    text = Harness.create_from_arg_string(
        f"workdir={trained('ar')},batch_size=4", {"batch_size": 8}
    )
    assert text.scorer.batch_size == 4


@pytest.mark.slow
def test_both_likelihoods_of_requests(trained, monkeypatch):
    from lm_eval.api.instance import Instance

    from ldd_jax.interop import harness

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
def test_the_sampler_s_own_likelihood(trained):
    from lm_eval.api.instance import Instance

    from ldd_jax.interop import harness

    how = dict(likelihood="carried", steps=3, trajectories=2)
    own = harness.Harness(str(trained("lddm_m")), **how)
    ask = Instance("loglikelihood", {}, ("the old", " house"), 0)
    ((found, _),) = own.loglikelihood([ask])
    how = dict(bound="carried", sampling=dict(steps=3), trajectories=2)
    (score,) = own.pipeline.nll(" house", context="the old", **how)
    assert found == pytest.approx(-score.nats, rel=1e-5)
    assert "carries h for 3 steps" in own.report()["sampler"]
    with pytest.raises(UserError, match="passes does not go with"):
        harness.Harness(pipeline=own.pipeline, likelihood="carried", passes=2)


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
