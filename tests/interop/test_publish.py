"""`publish`: a folder for a hub that is read back whole and tells nothing of the machine."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
import yaml
from ml_collections import ConfigDict

from ldd_jax.cli.main import COMMANDS, parse
from ldd_jax.config import experiment as experiments
from ldd_jax.config import packaged
from ldd_jax.interop import card, exporting, hub, publishing, retyped
from tests.cli import tools
from tests.cli.test_refusals import refused


@pytest.mark.parametrize(
    "field, given, shown",
    [
        ("path", "/home/me/secret place/my_text.txt", "my_text.txt"),
        ("path", "data/*.txt", "*.txt"),
        ("path", "C:\\me\\text.txt", "text.txt"),
        ("path", "/data/folder/", "folder"),
        ("path", "python-docs", "python-docs"),
        ("path", "tfds:lm1b/subwords8k:1.0.0", "tfds:lm1b/subwords8k:1.0.0"),
        ("path", "tfds:/home/me/lm1b/1.0.0", "tfds:1.0.0"),
        ("anything", "~/x/y", "y"),
        ("anything", "a/b", "a/b"),
        ("recipe", "from=/home/me/run,method=mdlm", "from=run,method=mdlm"),
        ("length", 64, 64),
    ],
)
def test_no_path_of_a_machine(field, given, shown):
    inner = {field: given}
    found = publishing.without_folders(ConfigDict({"data": inner, **inner}))
    assert found.to_dict() == {"data": {field: shown}, field: shown}


@pytest.mark.parametrize(
    "argv",
    [
        ("--config=quickstart:method=udlm,size=tiny",),
        (
            "--config=text:method=lddm_m,size=tiny,tokenizer=bytes",
            "--config.data.path=my text.txt",
            "--config.optim.lr=0.0125",
            "--config.optim.trainable=('*latent*',)",
            "--config.training.accumulate=2",
            "--config.model.adaln=False",
        ),
        ("--config=sudoku:method=mgdm,size=tiny", "--config.training.num_steps=7"),
    ],
)
def test_the_command_makes_the_same_config(argv):
    config = lambda words: parse("train", COMMANDS["train"], packaged.spelled_out(words)).config
    made = config([*argv, "--workdir=x"])
    again = retyped.arguments(made)
    assert config([*again, "--workdir=x"]).to_dict() == made.to_dict()
    assert len(again) == len(argv)
    assert retyped.command(made).startswith("python -m ldd_jax train --workdir=DIR")


def test_a_config_that_no_command_makes():
    made = parse(
        "train", COMMANDS["train"], packaged.spelled_out(["--config=quickstart", "--workdir=x"])
    ).config
    other = ConfigDict(made.to_dict())
    other.process.name = "of_my_own"
    assert retyped.arguments(other) == [] and retyped.command(other) == ""
    evil = ConfigDict(made.to_dict())
    evil.data.path = "x\n```\n# evil"
    assert retyped.arguments(evil) and retyped.command(evil) == ""


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def outcome(workdir, output):
    """Tokens of two samples, and the bound."""
    texts, bound = output / "s.jsonl", output / "e.jsonl"
    where = f"--workdir={workdir}"
    tools.good("sample", where, f"--output={texts}", "--num_samples=2", "--steps=3")
    tools.good("evaluate", where, f"--output={bound}")
    (record,) = tools.json_lines(bound)
    return [r["tokens"] for r in tools.json_lines(texts)], record["nelbo_nats_per_token"]


@pytest.mark.slow
def test_what_is_published_is_read_back(trained, text, tmp_path, monkeypatch):
    run, out, back = trained("lddm_m"), tmp_path / "out", tmp_path / "back"
    sent = []
    monkeypatch.setattr(hub, "push", lambda *a, **k: sent.append((a, k)) or "https://hub/me/m")
    flags = ("--license=apache-2.0", "--push=me/m", "--private")
    said = tools.good("publish", f"--workdir={run}", f"--output={out}", *flags).out
    assert sent == [((out, "me/m"), {"private": True})] and "pushed: https://hub/me/m" in said

    files = contents(out)
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer/tokenizer.json",
    }
    for name, data in files.items():
        for place in (text.parent, run.parent, tmp_path, os.path.expanduser("~")):
            assert str(place).encode() + b"/" not in data, (name, place)
    page = files["README.md"].decode()
    lines = {x for x in text.read_text().splitlines() if len(x) > 12}
    samples = tools.json_lines(run / "training_samples.jsonl")
    assert not any(x in page for x in lines) and "## Samples" not in page
    assert not any(r["text"].strip() in page for r in samples)

    head = yaml.safe_load(page.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["library_name"] == "ldd_jax"
    (result,) = head["model-index"][0]["results"]
    summary = json.loads((run / "summary.json").read_text())
    assert result["metrics"][0]["value"] == round(summary["nelbo_nats_per_token"], 6)
    assert result["dataset"]["name"] == text.name
    assert "two passes per step" in result["metrics"][0]["name"]
    assert "and no other sampler" in page and f"--config.data.path={text.name}" in page
    assert "| updates | 12 |" in page and f"| tokens trained on | {12 * 8 * 16:,} |" in page
    assert "training, model FLOPs" in page

    tools.good("import", out, f"--workdir={back}", f"--data={text}")
    assert outcome(back, tmp_path) == outcome(run, tmp_path)

    experiment = experiments.restore(run)
    monkeypatch.setattr(exporting, "has_reference", lambda run: "as of a network of its own")
    own = tmp_path / "own"  # the config stands in the tensors' file as well
    tools.good("publish", f"--workdir={run}", f"--output={own}")
    assert str(text.parent).encode() not in b"".join(contents(own).values())
    tools.good("import", own, f"--workdir={tmp_path / 'back_own'}")
    config = json.loads((tmp_path / "back_own" / "config.json").read_text())
    assert config["data"]["path"] == text.name and config["recipe"] == experiment.config.recipe

    choices = publishing.Choices(samples=1, title="A name")
    page = publishing.page(experiment, run, choices, step=12, names="own")
    (sample, *_) = (r["text"] for r in samples if r["step"] == 12)
    assert page.count("## Samples") == 1 and card.code(sample) in page
    assert "# `A name`" in page and "license: unknown" in page


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for."""

    def _answer(self, found, status=200):
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        self._answer({"error": "not yours"}, 403)

    def do_PUT(self):
        self.server.stored[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self):
        base, body, place = self.server.base, self._body(), self.path.partition("?")[0]
        self.server.users.add(self.headers.get("Authorization"))
        if self.server.closed:
            return self._answer({"error": "not yours"}, 403)
        if place == "/api/repos/create":
            self.server.made.append(json.loads(body))
            there = 409 if self.server.made[1:] else 200
            return self._answer({"url": f"{base}/me/m"}, there)
        if place == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self._answer({})
        if place == "/api/models/me/m/preupload/main":
            mode = lambda path: "lfs" if path.endswith(".safetensors") else "regular"
            return self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]
                }
            )
        if place == "/me/m.git/info/lfs/objects/batch":
            objects = [
                o | {"actions": {"upload": {"href": f"{base}/store/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if place == "/api/models/me/m/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    data = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = data
                if line["key"] == "lfsFile":
                    kept = self.server.stored[line["value"]["oid"]]
                    self.server.files[line["value"]["path"]] = kept
            return self._answer(
                {"commitUrl": f"{base}/me/m/commit/{'0' * 40}", "commitOid": "0" * 40}
            )
        return self._answer({"error": place}, 404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    made.base = f"http://127.0.0.1:{made.server_port}"
    made.files, made.stored, made.made, made.users, made.closed = {}, {}, [], set(), False
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def folder(tmp_path):
    """What could be published."""
    made = tmp_path / "folder"
    (made / "tokenizer").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    (made / "README.md").write_text("---\nlicense: unknown\n---\n# x\n")
    (made / "tokenizer" / "tokenizer.json").write_text("{}")
    return made


def push(folder, server, home):
    """In a process of its own: the library reads its settings when it is imported."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom ldd_jax.core.checks import RunError\n"
        "from ldd_jax.interop import hub\n"
        "hub.check('me/m')\n"
        f"try:\n    print(hub.push(Path({str(folder)!r}), 'me/m', private=True))\n"
        "except RunError as error:\n    sys.exit(str(error))\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env |= {
        "HF_ENDPOINT": server.base,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_stub",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env, cwd=tools.ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_push(folder, server, tmp_path):
    done = push(folder, server, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{server.base}/me/m"
    assert server.files == contents(folder) and len(server.stored) == 1
    assert server.users == {"Bearer hf_stub"} and server.made[0]["name"] == "m"
    assert server.made[0].get("visibility", "private") == "private"

    server.files.clear()  # once more, into what is there
    assert push(folder, server, tmp_path / "home").returncode == 0
    assert server.files == contents(folder)


def test_a_push_that_is_refused(folder, server, tmp_path):
    server.closed = True
    done = push(folder, server, tmp_path / "home")
    assert done.returncode == 1 and "cannot push to me/m" in done.stderr, done.stderr
    assert f"{folder} is whole: hf upload me/m {folder}" in done.stderr
    assert not server.files


@pytest.mark.parametrize(
    "flags, why",
    [
        (("--push=model",), "--push=model; give OWNER/NAME"),
        (("--push=me/../m",), "give OWNER/NAME"),
        (("--private",), "--private belongs to --push"),
        (("--license=Apache 2",), "the hub's word for it, such as apache-2.0"),
        (("--samples=-1",), "--samples=-1; it must be at least 0"),
        ((), "is not a workdir"),
    ],
)
def test_refusals(tmp_path, flags, why):
    given = (f"--workdir={tmp_path / 'none'}", f"--output={tmp_path / 'out'}")
    refused(tools.call("publish", *given, *flags), why)
    assert not (tmp_path / "out").exists()


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    given = (f"--workdir={tmp_path / 'none'}", f"--output={tmp_path / 'out'}")
    result = tools.call("publish", *given, "--push=me/m")
    refused(result, "--push needs huggingface_hub: pip install 'ldd-jax[hub]'")
