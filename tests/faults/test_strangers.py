"""A workdir from a stranger: what it makes this library read, say, publish or trip over."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ldd_jax.config import experiment as experiments
from ldd_jax.core.checks import UserError
from ldd_jax.interop import card
from ldd_jax.report import page
from ldd_jax.training.checkpoints import Checkpoints
from tests.cli import tools
from tests.cli.test_refusals import refused
from tests.interop.test_import_export import checkpoint

SECRET = "21 3 17 5 26 2 19 4 23 11 13 7"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir, by an import, and a private text that its tokenizer reads."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "private.txt").write_text(f"{SECRET}\n" * 40)
    file, _ = checkpoint(folder)
    flags = ("--method=lddm_m", "--length=12", f"--data={folder / 'private.txt'}")
    tools.good("import", file, *flags, f"--workdir={folder / 'run'}")
    return folder / "run"


@pytest.fixture
def workdir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def change(workdir, path, value):
    """Set a field of the config, written as JSON would be by hand."""
    tree = json.loads((workdir / "config.json").read_text())
    *nodes, leaf = path.split(".")
    node = tree
    for name in nodes:
        node = node[name]
    node[leaf] = value
    (workdir / "config.json").write_text(json.dumps(tree))


@pytest.mark.slow
def test_the_file_that_is_read_is_named(workdir):
    change(workdir, "data.validation_path", json.loads((workdir / "config.json").read_text())
           ["data"]["path"])  # fmt: skip
    for command in (
        ("evaluate", f"--workdir={workdir}"),
        ("gen-ppl", workdir / "s.txt", f"--workdir={workdir}"),
    ):
        (workdir / "s.txt").write_text(f"{SECRET}\n{SECRET}\n")
        found = tools.good(*command)
        assert "reading data.path=" in found.err and "data.validation_path=" in found.err
        assert found.err.count("private.txt") == 2 and SECRET not in found.out


@pytest.mark.slow
def test_a_corpus_enters_a_page_by_flag_alone(workdir, tmp_path):
    flags = ("--steps=2", "--num_samples=3", "--latents=carry", f"--workdir={workdir}")
    hidden, shown = tmp_path / "hidden", tmp_path / "shown"
    found = tools.good("bench", *flags, f"--output={hidden}")
    assert "reading data.path=" in found.err and "private.txt" in found.err
    text = "".join(p.read_text() for p in hidden.iterdir() if p.suffix != ".png")
    assert SECRET not in text and "--show_data writes it here" in text
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text
    tools.good("bench", *flags, f"--output={shown}", "--show_data")
    assert SECRET in (shown / "frontier.html").read_text()
    tools.good("bench", *flags, f"--output={shown}")  # the cells hold it, the page does not
    assert SECRET not in (shown / "frontier.html").read_text()


def test_cards_quote_what_files_say(workdir, tmp_path):
    """Nothing of it is a link, a tag, a line or a cell of its own."""
    evil = "x\n# head | <img src=x> [l](http://e) `code` \x1b[31m\u202e"
    change(workdir, "recipe", evil)
    change(workdir, "data.path", evil)
    summary = dict(step=0, exact=False, nelbo_nats_per_token=1.0, nelbo_se=0.1, passes=1, tokens=9)
    (workdir / "summary.json").write_text(json.dumps(summary))
    record = json.loads((workdir / "import.json").read_text())
    (workdir / "import.json").write_text(json.dumps(record | {"source": evil, "sha256": evil}))
    tools.good("export", f"--workdir={workdir}", f"--output={tmp_path / 'out'}")
    text = (tmp_path / "out" / "README.md").read_text()
    quoted = card.code(evil)
    assert text.count(quoted) == 5 and quoted.count("`") == 2 and "\\|" in quoted
    rest = text.replace(quoted, "")
    assert "<img" not in rest and "http" not in rest and "\x1b" not in text and "\u202e" not in text
    assert all(line.count("|") == 3 for line in rest.splitlines() if line.startswith("|"))


# field, value, words of the refusal
CONFIGS = [
    ("recipe", 5, "recipe is 5, expected text"),
    ("seed", "x", "seed is 'x', expected a number"),
    ("seed", 10**60, "--config.seed="),
    ("data.length", [12], "data.length is [12]"),
    ("data.length", 10**9, "data.length is 1000000000"),
    ("process", [], "lacks process"),
    ("model.width", [16], "expected int"),
    ("model.width", 10**30, "is 1e+30; numbers lie between"),
    ("sampling.step", 3, "expected a section with a name"),
    ("sampling.batch_size", 10**9, "a batch has more than"),
    ("evaluation.batch_size", "x", "expected int"),
    ("sampling.batch_size", [1], "expected int"),
    ("evaluation.batch_size", 0, "at least 1"),
    ("optim.lr", float("nan"), "expected a finite number"),
    ("training.num_steps", 2**31, "below 2^31"),
    ("mesh.data", 0, "-1 or at least 1 devices"),
    ("mesh.data", "many", "expected int"),
]


@pytest.mark.parametrize(("field", "value", "words"), CONFIGS, ids=[f"{c[0]}={c[1]}"[:40] for c in CONFIGS])  # fmt: skip  # noqa: E501
def test_configs_that_are_none(field, value, words, workdir):
    change(workdir, field, value)
    refused(tools.call("sample", f"--workdir={workdir}"), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds list, not a config"),
        ("1" * 5000, "5,000 digits"),
        ('{"recipe": "\\ud800"}', "half a character"),
        ('{"seed": 1, "seed": 2}', "'seed' stands there twice"),
        ("null", "holds NoneType"),
    ],
)
def test_config_files_that_are_none(text, words, workdir):
    (workdir / "config.json").write_text(text)
    refused(tools.call("sample", f"--workdir={workdir}"), words)


def test_a_mesh_that_is_not_here_is_said(workdir):
    change(workdir, "mesh.data", 10**9)
    flags = ("--num_samples=1", "--steps=1", f"--output={workdir / 'out'}")
    found = tools.good("sample", f"--workdir={workdir}", *flags)
    assert "the run's mesh (data 1000000000" in found.err and "as data shards" in found.err


@pytest.mark.parametrize("value", ["many", [1], {}, "1e5"])
def test_strings_in_summaries(value, workdir, tmp_path):
    for name, _ in page.COLUMNS:
        (workdir / "summary.json").write_text(json.dumps({"step": 0, name: value}))
        with pytest.raises(UserError, match=f"{name} is .*, expected a number"):
            page.read_run(workdir)
    (workdir / "summary.json").write_text(json.dumps({"step": 0, "nelbo_nats_per_token": value}))
    experiment = experiments.restore(workdir)
    made = card.text(experiment, workdir, step=0, ema=True, names="own")
    assert "nats a token" not in made


def test_lines_of_metrics_that_are_no_numbers(workdir):
    lines = [{"step": 1, "train_loss": "x"}, {"step": 10**400, "train_loss": 1.0},
             {"step": 2, "train_loss": [1]}, {"step": 3, "train_loss": 2.0}]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)
    run = page.read_run(workdir) | {"label": "run", "recipe": "method=mdlm"}
    assert page.training([run]).startswith("<img")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mutated_checkpoints(workdir):
    """Every file of the newest checkpoint, cut, emptied or replaced, with a digest that fits."""
    from ldd_jax.training import digests, state

    experiment = experiments.restore(workdir)
    like = state.abstract(experiment.model, experiment.update.optimizer, experiment.mesh).params
    folder = workdir / "checkpoints" / "0"
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != digests.FILE]
    before = {p: p.read_bytes() for p in files}
    assert len(files) > 5
    tried = 0
    for path, data in before.items():
        for harmed in (b"", data[: len(data) // 2], b"[1]", None):
            path.unlink() if harmed is None else path.write_bytes(harmed)
            digests.write(folder)
            try:
                Checkpoints(workdir, read_only=True).restore_params(like, ema=True)
            except UserError as error:
                assert str(error).strip()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            tried += 1
    assert tried >= 24


@pytest.mark.parametrize("harm", [os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
def test_pipes_in_a_checkpoint_without_digests(harm, workdir):
    """Format 1 has none; Orbax would wait for ever."""
    folder = workdir / "checkpoints" / "0"
    meta = folder / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 1}))
    (folder / "digests.json").unlink()
    path = next(p for p in (folder / "params").rglob("*") if p.is_file())
    path.unlink()
    harm(path)
    refused(tools.call("sample", f"--workdir={workdir}"), f"{path.name} is no regular file")


@pytest.mark.parametrize("number", ["9" * 5000, "\u00b2", "-1", "1e3", ""])
@pytest.mark.parametrize(
    "flags",
    [
        ("mechanism", "--resets=0,{}"),
        ("evaluate", "--passes={}1,{}"),
        ("train", tools.recipe("mdlm"), "--distributed=localhost:{},1,0"),
        ("train", tools.recipe("mdlm"), "--distributed=localhost:1,{},0"),
        ("plan", tools.recipe("mdlm"), "--topology=v5e:4x{}"),
        ("plan", tools.recipe("mdlm"), "--topology=v5e:4x4", "--search", "--policies=full:{}"),
    ],
    ids=lambda f: f[0] + f[-1][:12],
)
def test_numbers_that_are_none(flags, number, workdir):
    """`str.isdigit` takes what `int` does not."""
    place = [f"--workdir={workdir}"] if flags[0] != "plan" else []
    refused(tools.call(*(f.replace("{}", number) for f in flags), *place))
