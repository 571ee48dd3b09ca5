"""Bad input: exit status 2, one line on stderr that says what to do, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from tests.cli import tools

CONFIGS = {
    "syntax.py": "def get_config(:\n  pass\n",
    "raises.py": "def get_config(argument=''):\n    raise RuntimeError('boom')\n",
    "without.py": "x = 1\n",
    "three.py": "def get_config(argument=''):\n    return 3\n",
    "half.py": (
        "from ml_collections import ConfigDict\n"
        "def get_config(argument=''):\n    return ConfigDict({'seed': 0})\n"
    ),
}


def listing(folder):
    """Every file below a folder with its hash."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else 0
        for p in sorted(folder.rglob("*"))
    }


def refused(result, *fragments):
    assert result.status == 2, result
    assert result.err.startswith("ldd_jax: ") and result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for fragment in fragments:
        assert fragment in result.err


@pytest.fixture
def place(tmp_path):
    """A folder with everything that is wrong in it."""
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "binary.txt").write_bytes(b"PK\x03\x04\0\0\0\0" * 100)
    (tmp_path / "latin.txt").write_bytes("caf\xe9 au lait\n".encode("latin-1") * 400)
    (tmp_path / "short.txt").write_text("two words\nand three more\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "note").write_text("not yours")
    (tmp_path / "bare").mkdir()
    for name, source in CONFIGS.items():
        (tmp_path / name).write_text(source)
    return tmp_path


def c(**overrides):
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in overrides.items()]


# id: (extra flags, replaced config or "", fragments); @ is the folder above
TRAIN = {
    "unknown flag": (["--wrkdir=x"], "", ["--wrkdir", "did you mean 'workdir'"]),
    "field": (c(optim__lrr=1), "", ["config.optim has no field 'lrr'", "did you mean 'lr'"]),
    "section": (c(optm__lr=1), "", ["config has no field 'optm'", "did you mean 'optim'"]),
    "leaf as section": (c(seed__x=1), "", ["config.seed is a single value"]),
    "float": (c(optim__lr="abc"), "", ["--config.optim.lr=abc"]),
    "int": (c(training__num_steps="1e3"), "", ["--config.training.num_steps=1e3"]),
    "bool": (c(model__latent="maybe"), "", ["--config.model.latent=maybe"]),
    "structural": (c(process__name="uniform"), "", ["chosen in the config's argument"]),
    "whole section": (c(process="uniform"), "", ["is a section"]),
    "positional": (["extra"], "", ["takes flags only", "extra"]),
    "no such config": ([], "--config=@/nowhere.py", ["nowhere.py", "no such file"]),
    "config folder": ([], "--config=@/bare", ["bare", "no such file"]),
    "config syntax": ([], "--config=@/syntax.py", ["SyntaxError", "syntax.py line 1"]),
    "config raises": ([], "--config=@/raises.py", ["RuntimeError: boom", "raises.py line 2"]),
    "no ConfigDict": ([], "--config=@/three.py", ["returned 3, not a config"]),
    "half a config": ([], "--config=@/half.py", ["lacks data, process"]),
    "method": ([], tools.recipe("lddm_n"), ["'lddm_n'", "mdlm", "did you mean 'lddm_"]),
    "size": ([], tools.recipe("mdlm,size=tinny"), ["'tinny'", "did you mean 'tiny'"]),
    "argument": ([], tools.recipe("mdlm,sise=tiny"), ["'sise'", "did you mean 'size'"]),
    "no name=value": ([], tools.recipe("mdlm,tiny"), ["'tiny' is not name=value"]),
    "twice": ([], tools.recipe("mdlm,method=mdlm"), ["given twice"]),
    "tokenizer": ([], tools.recipe("mdlm,tokenizer=bpe"), ["'bpe'", "characters"]),
    "missing file": (c(data__path="@/no.txt"), "", ["no.txt does not exist"]),
    "no match": (c(data__path="@/*.nope"), "", ["matches no file"]),
    "no path": (c(data__path=""), "", ["path is empty"]),
    "empty file": (c(data__path="@/empty.txt"), "", ["empty.txt holds no text"]),
    "blank file": (c(data__path="@/blank.txt"), "", ["blank.txt holds no text"]),
    "binary": (c(data__path="@/binary.txt"), "", ["not a text file"]),
    "latin-1": (c(data__path="@/latin.txt"), "", ["not UTF-8"]),
    "folder": (c(data__path="@/bare"), "", ["is a folder"]),
    "web": (c(data__path="https://host/x.txt"), "", ["only local files"]),
    "tfds": (c(data__path="tfds:lm1bb"), "", ["did you mean 'lm1b'"]),
    "long rows": (c(data__length=100000), "", ["fewer than one row", "data.length"]),
    "short text": (c(data__path="@/short.txt"), "", ["fewer than one row"]),
    "no length": (c(data__length=0), "", ["length=0"]),
    "big batch": (c(training__batch_size=100000), "", ["larger than the training split"]),
    "no batch": (c(training__batch_size=0), "", ["batch_size is 0"]),
    "accumulate": (c(training__accumulate=3), "", ["not a multiple of accumulate 3"]),
    "steps": (c(training__num_steps=0), "", ["num_steps is 0"]),
    "interval": (c(training__eval_every=-1), "", ["eval_every is -1"]),
    "ema": (c(training__ema_decay=2.0), "", ["ema_decay is 2.0"]),
    "heads": (c(model__heads=3), "", ["width 16", "3 heads"]),
    "latent width": (c(model__latent_width=17), "", ["latent_width is 17", "between 1 and"]),
    "dtype": (c(model__dtype="fp16"), "", ["'fp16'", "bfloat16"]),
    "p above 1": (c(objective__context__p=1.5), "", ["p = 1.5"]),
    "p below 0": (c(objective__context__p=-0.5), "", ["p = -0.5"]),
    "passes": (c(evaluation__passes=2), tools.recipe("mdlm"), ["passes is 2", "one pass"]),
    "p of mdlm": (c(objective__context__p=0.5), tools.recipe("mdlm"), ["no field 'p'"]),
    "no latent": (c(model__latent=False), "", ["model.latent is False"]),
    "evaluation batch": (c(evaluation__batch_size=0), "", ["batch_size is 0"]),
    "sequences": (c(evaluation__max_sequences=-1), "", ["max_sequences is -1"]),
    "rate": (c(optim__lr=-1.0), "", ["lr is -1.0"]),
    "nan": (c(optim__lr="nan"), "", ["lr is nan"]),
    "b1": (c(optim__b1=1.5), "", ["b1 is 1.5"]),
    "warm-up": (c(optim__warmup_steps=-3), "", ["warmup_steps is -3"]),
    "clip": (c(optim__clip_norm=-1.0), "", ["clip_norm is -1.0"]),
    "decay": (c(optim__decay="cosin"), "", ["did you mean 'cosine'"]),
    "seed": (c(seed=-1), "", ["--config.seed=-1"]),
    "mesh": (c(mesh__data=3), "", ["does not divide 1 devices"]),
    "temperature": (c(sampling__readout__temperature=-1.0), "", ["temperature is -1.0"]),
    "tail": (c(sampling__tail="gredy"), "", ["did you mean 'greedy'"]),
}


EVALUATE = {
    "passes": (["--passes=0"], "positive whole numbers"),
    "passes of what": (["--passes=two"], "positive whole numbers"),
    "split": (["--split=test"], "train, validation"),
    "estimator": (["--estimator=nelbo,k_from"], "did you mean 'k_form'"),
    "draws": (["--draws=-1"], "--draws=-1"),
    "no draws": (["--draws=0"], "--draws=0"),
    "step": (["--step=7"], "no checkpoint 7"),
    "output": (["--output=@/no/x.jsonl"], "does not exist"),
    "output folder": (["--output=@/bare"], "is a folder"),
}


@pytest.mark.parametrize("name", TRAIN)
def test_train(name, place, text):
    extra, config, fragments = TRAIN[name]
    at = lambda given: given.replace("@", str(place))
    flags = [at(config or tools.recipe("lddm_m")), f"--workdir={place / 'new'}"]
    before = listing(place)
    # A config file that fails must fail by itself, not by its overrides.
    base = [] if config.startswith("--config=@") else [*tools.corpus(text), *tools.SIZES]
    refused(tools.call("train", *flags, *base, *map(at, extra)), *fragments)
    assert listing(place) == before


# What only the text can tell.
OF_THE_DATA = ("empty file", "blank file", "binary", "latin-1", "long rows", "short text")
OF_THE_DATA += ("big batch",)


@pytest.fixture
def unread(monkeypatch, trained):
    """Reading a document is an error, once there is a run to begin with."""
    trained("lddm_m")

    def read(*args, **options):
        raise AssertionError("data were read before the refusal")

    for place in ("ldd_jax.data.text.divide", "ldd_jax.data.problems.ProblemData._pairs"):
        monkeypatch.setattr(place, read)


@pytest.mark.parametrize("name", [n for n in TRAIN if n not in OF_THE_DATA])
def test_what_needs_no_data_is_refused_before_they_are_read(name, place, text, unread):
    extra, config, fragments = TRAIN[name]
    at = lambda given: given.replace("@", str(place))
    flags = [at(config or tools.recipe("lddm_m")), f"--workdir={place / 'new'}"]
    base = [] if config.startswith("--config=@") else [*tools.corpus(text), *tools.SIZES]
    refused(tools.call("train", *flags, *base, *map(at, extra)), *fragments)


@pytest.mark.parametrize(
    ("recipe", "flags", "fragment"),
    [
        ("mdlm", c(data__validation_path="no.txt"), "no.txt does not exist"),
        ("mdlm,tokenizer=sentencepiece", c(data__tokenizer__model="no.model"), "no.model"),
        ("mdlm,tokenizer=bytes", c(process__states=100), "100 states"),
        ("mdlm", ["--workdir=@/empty.txt/below"], "cannot write"),
        ("lddm_m", [*c(training__num_steps=3), "--workdir=RUN"], "at step 12 already"),
        ("mdlm", c(training__initial="RUN", model__width=32), "another network"),
        ("mdlm", c(training__initial="@/bare"), "is not a workdir"),
    ],
)
def test_so_is_what_files_beside_them_say(
    recipe, flags, fragment, place, text, train_flags, trained, unread
):
    at = lambda given: given.replace("@", str(place)).replace("RUN", str(trained("lddm_m")))
    base = (tools.recipe(recipe), f"--workdir={place / 'new'}", *train_flags)
    refused(tools.call("train", *base, *map(at, flags)), fragment)
    assert not (place / "new").exists()


@pytest.mark.parametrize("name", [n for n in EVALUATE if n != "type"])
def test_evaluate_refuses_before_it_reads(name, place, trained, unread):
    flags, fragment = EVALUATE[name]
    flags = [f.replace("@", str(place)) for f in flags]
    refused(tools.call("evaluate", f"--workdir={trained('lddm_m')}", *flags), fragment)


@pytest.mark.parametrize(
    ("where", "fragment"),
    [
        ("empty.txt", "is no workdir"),
        ("foreign", "is no workdir"),
        ("empty.txt/below", "cannot write"),
        ("", "--workdir is missing"),
    ],
)
def test_train_elsewhere(where, fragment, place, text):
    before = listing(place)
    workdir = place / where if where else ""
    given = (tools.recipe("mdlm"), f"--workdir={workdir}", *tools.corpus(text), *tools.SIZES)
    refused(tools.call("train", *given), fragment)
    assert listing(place) == before


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_no_config(command, tmp_path):
    name = {"train": "workdir", "prepare": "output"}[command]
    refused(tools.call(command, f"--{name}={tmp_path / 'new'}"), "--config is missing")
    assert not (tmp_path / "new").exists()
    refused(tools.call(command, tools.recipe("mdlm")), f"--{name} is missing")


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_no_workdir(command, place):
    refused(tools.call(command), "--workdir is missing")
    for name in ("nowhere", "foreign", "empty.txt"):
        refused(tools.call(command, f"--workdir={place / name}"), "is not a workdir")
    refused(tools.call(command, "--config=x"), "unknown flag --config")
    refused(tools.call(command, "--config.mesh.data=1"), "takes no config")
    assert not (place / "nowhere").exists()


@pytest.mark.slow
def test_the_process_itself(place, text):
    """What the shell sees, with the interpreter's own handlers in place."""
    for argv, fragment in (
        (["trian"], "did you mean 'train'"),
        (["train", f"--config={place / 'raises.py'}", f"--workdir={place / 'new'}"], "boom"),
        (["train", f"--config={place / 'without.py'}", "--workdir=x"], "get_config"),
        (["train", tools.recipe("mdlm"), "--workdir=x", "--config.optim.lrr=1"], "'lrr'"),
    ):
        result = tools.process(*argv)
        refused(result, fragment)
        assert result.out == ""
    assert not (place / "new").exists()


SAMPLE = {
    "temperature": (["--temperature=-1"], "temperature is -1"),
    "top_p": (["--top_p=2"], "top_p is 2"),
    "top_k": (["--top_k=-1"], "top_k is -1"),
    "steps": (["--steps=0"], "num_steps is 0"),
    "num_samples": (["--num_samples=0"], "num_samples is 0"),
    "batch_size": (["--batch_size=0"], "batch_size is 0"),
    "length": (["--length=0"], "--length=0"),
    "seed": (["--seed=-1"], "--seed=-1"),
    "type": (["--steps=many"], "--steps=many"),
    "step": (["--step=7"], "no checkpoint 7; there are: 10, 12"),
    "tail": (["--tail=gredy"], "did you mean 'greedy'"),
    "latent": (["--latent=on"], "carry|off|frozen"),
    "reset": (["--reset_every=-2"], "reset_every is -2"),
    "sampler": (["--sampler=ancestrl"], "did you mean 'ancestral'"),
    "sampler field": (["--sampler=remdm:etta=1"], "did you mean 'eta'"),
    "sampler value": (["--sampler=theta_rk2:theta=2"], "theta is 2.0"),
    "grid": (["--grid=cosin"], "did you mean 'cosine'"),
    "blocks": (["--blocks=slid:size=3"], "did you mean 'slide'"),
    "block size": (["--blocks=slide:size=99", "--length=200"], "size is 99; the window has"),
    "own clock": (["--sampler=first_hitting", "--steps=3"], "--steps and --grid do not apply"),
    "skipped latent": (["--sampler=skipping"], "cannot carry a latent"),
    "no gap": (["--fill=the house"], "no [MASK] to fill"),
    "both": (["--fill=a [MASK]", "--prompt=a"], "--prompt or --fill, not both"),
    "empty fill": (["--fill="], "--fill is missing its value"),
    "empty prompt": (["--prompt="], "--prompt is missing its value"),
    "empty sampler": (["--sampler="], "--sampler is missing its value"),
    "long fill": (["--fill=" + "[MASK]" * 20], "--fill has 20 tokens, but a row has 16"),
    "other length": (["--fill=a [MASK]", "--length=7"], "--length=7, but --fill"),
    "long prompt": (["--prompt=" + "the house " * 3], "--prompt has 30 tokens"),
    "output": (["--output=@/no/x.jsonl"], "does not exist"),
    "output folder": (["--output=@/bare"], "is a folder"),
    "unknown flag": (["--temprature=1"], "did you mean 'temperature'"),
}
FLAGS = [("sample", n) for n in SAMPLE] + [("evaluate", n) for n in EVALUATE]


@pytest.mark.parametrize(("command", "name"), FLAGS)
def test_flags_out_of_range(command, name, trained, place):
    flags, fragment = {"sample": SAMPLE, "evaluate": EVALUATE}[command][name]
    before, there = listing(trained("lddm_m")), listing(place)
    flags = [f.replace("@", str(place)) for f in flags]
    refused(tools.call(command, f"--workdir={trained('lddm_m')}", *flags), fragment)
    assert listing(trained("lddm_m")) == before and listing(place) == there


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("sample", "--latent=off"),
        ("sample", "--latent=frozen"),
        ("sample", "--reset_every=3"),
        ("sample", "--reset_on_remask"),
        ("evaluate", "--passes=1,2"),
    ],
)
def test_latent_flags_without_latent(command, flag, trained):
    refused(tools.call(command, f"--workdir={trained('mdlm')}", flag), "takes no latent")


@pytest.fixture
def copy(trained, tmp_path):
    """A workdir that the test may break."""
    return shutil.copytree(trained("lddm_m"), tmp_path / "copy")


def edit(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def break_json(workdir):
    (workdir / "config.json").write_text('{"data": ')


def break_bytes(workdir):
    (workdir / "config.json").write_bytes(b"\xff\xfe\0")


def break_list(workdir):
    (workdir / "config.json").write_text("[1, 2]")


def break_sections(workdir):
    edit(workdir / "config.json", lambda t: t.pop("model"))


def break_width(workdir):
    edit(workdir / "config.json", lambda t: t["model"].update(width=32))


def break_depth(workdir):
    edit(workdir / "config.json", lambda t: t["model"].update(depth=2))


def break_latent(workdir):
    def change(tree):
        tree["model"]["latent"] = False
        tree["objective"]["context"] = {"name": "none"}
        tree["evaluation"]["passes"] = 1

    edit(workdir / "config.json", change)


def break_field(workdir):
    edit(workdir / "config.json", lambda t: t["model"].update(widht=3))


def break_type(workdir):
    edit(workdir / "config.json", lambda t: t["model"].update(width="16"))


def break_vocabulary(workdir):
    def change(tree):
        tree["state"]["alphabet"] += "\xe9\xe8"
        tree["size"] += 2

    edit(workdir / "tokenizer" / "tokenizer.json", change)


def break_alphabet(workdir):
    """As many characters, but others."""

    def change(tree):
        tree["state"]["alphabet"] = tree["state"]["alphabet"][::-1]

    edit(workdir / "tokenizer" / "tokenizer.json", change)


def no_tokenizer(workdir):
    shutil.rmtree(workdir / "tokenizer")


def no_checkpoints(workdir):
    shutil.rmtree(workdir / "checkpoints")


def empty_checkpoints(workdir):
    for path in (workdir / "checkpoints").iterdir():
        shutil.rmtree(path)


def torn_checkpoints(workdir):
    for step in ("10", "12"):
        for item in ("ema", "params"):
            shutil.rmtree(workdir / "checkpoints" / step / item)


BROKEN = {
    break_json: "not valid JSON",
    break_bytes: "not valid JSON",
    break_list: "holds list, not a config",
    break_sections: "lacks model",
    break_width: "does not fit the config",
    break_depth: "does not fit the config",
    break_latent: "does not fit the config",
    break_field: "did you mean 'width'",
    break_type: "expected int",
    break_vocabulary: "does not fit the config",
    break_alphabet: "not the one its checkpoint was trained with",
    no_tokenizer: "holds no tokenizer",
    no_checkpoints: "holds no checkpoints",
    empty_checkpoints: "there are: none",
    torn_checkpoints: "is missing); checkpoint 10",
}


@pytest.mark.parametrize("harm", BROKEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_broken_workdir(command, harm, copy):
    harm(copy)
    before = listing(copy)
    refused(tools.call(command, f"--workdir={copy}"), BROKEN[harm])
    assert listing(copy) == before


def test_resuming_another_run(copy, train_flags):
    before = listing(copy)
    again = lambda *flags, method="lddm_m": tools.call(
        "train", tools.recipe(method), f"--workdir={copy}", *train_flags, *flags
    )
    refused(again("--config.optim.lr=0.5"), "optim.lr: 0.003 there, 0.5 given", "another --workdir")
    refused(again("--config.model.depth=2", "--config.seed=3"), "model.depth: 1", "seed: 0 there")
    refused(again(method="mdlm"), "recipe: ", "method=lddm_m", "method=mdlm")
    refused(again("--config.training.num_steps=11"), "at step 12 already")
    assert listing(copy) == before


@pytest.mark.slow
def test_resuming_on_a_changed_text(tmp_path):
    path, workdir = tmp_path / "text.txt", tmp_path / "run"
    path.write_text(tools.sentences(400))
    given = (tools.recipe("mdlm"), f"--workdir={workdir}", *tools.corpus(path), *tools.SIZES)
    given = (*given, *tools.OPTIM, *tools.STEPS)
    tools.good("train", *given)
    path.write_text(tools.sentences(401))
    before = listing(workdir)
    refused(tools.call("train", *given), "text.txt has changed")
    assert listing(workdir) == before


def test_prepare(place, text):
    given = (tools.recipe("mdlm"), *tools.corpus(text), *tools.SIZES)
    before = listing(place)
    for flags, fragment in (
        ([f"--output={place / 'foreign'}"], "not an empty folder"),
        ([f"--output={place / 'empty.txt'}"], "not an empty folder"),
        ([f"--output={place / 'empty.txt' / 'below'}"], "cannot write"),
        ([f"--output={place / 'new'}", "--shards=0"], "shards=0"),
        ([f"--output={place / 'new'}", "--config.data.path=no.txt"], "no.txt does not exist"),
        ([f"--output={place / 'new'}", "--config.data.length=100000"], "fewer than one row"),
    ):
        refused(tools.call("prepare", *given, *flags), fragment)
        assert listing(place) == before
