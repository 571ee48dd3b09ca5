"""`mechanism` and `report`, and the page in a real browser."""

from __future__ import annotations

import json
import re

import pytest

from ldd_jax.report import page
from tests.cli import tools
from tests.cli.browser import Browser, found

FEW = ("--steps=5", "--num_samples=3")
EVIL = "</script><img src=x onerror=\"document.title='owned'\"><!--"


@pytest.mark.slow
def test_mechanism(trained, tmp_path):
    output = tmp_path / "m.jsonl"
    flags = (*FEW, "--resets=0,1", "--every=2", f"--output={output}")
    run = tools.good("mechanism", f"--workdir={trained('lddm_m')}", *flags)
    carried, off = tools.json_lines(output)
    assert carried["curves"]["entropy"][0] == pytest.approx(off["curves"]["entropy"][0])
    assert carried["curves"]["entropy"][3] != off["curves"]["entropy"][3]
    assert set(carried["curves"]) >= {"temporal", "norm", "turn", "shift", "likeness", "ratio"}
    assert "turn" not in off["curves"] and off["reset_every"] == 1
    assert carried["counts"]["busy_expected"] > 0 and "closed form" in run.out
    path = carried["paths"][0]
    assert len(path["tokens"]) == 7 and len(path["entropy"]) == len(path["norm"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, flags, why",
    [
        ("mdlm", ("--resets=4",), "no latent"),
        ("mdlm", ("--resets=-1",), "whole numbers"),
        ("mdlm", ("--steps=0",), "at least 1"),
    ],
)
def test_mechanism_refuses(trained, method, flags, why):
    run = tools.call("mechanism", f"--workdir={trained(method)}", *flags)
    assert run.status == 2 and re.search(why, run.err) and len(run.err.splitlines()) == 1, run
    assert not (trained(method) / "mechanism.jsonl").exists()


@pytest.mark.slow
def test_a_rule_without_a_grid_has_paths_and_no_mechanism(trained, tmp_path):
    """Left to right: one token a call, in a report beside a diffusion, in play and mechanism."""
    ar, output = f"--workdir={trained('ar')}", tmp_path / "m.jsonl"
    run = tools.good("mechanism", ar, *FEW, f"--output={output}")
    (record,) = tools.json_lines(output)
    assert "no grid" in run.out and record["no_grid"]
    assert record["curves"] == record["counts"] == {}
    tokens = record["paths"][0]["tokens"]
    changed = [
        [i for i, (a, b) in enumerate(zip(*two)) if a != b] for two in zip(tokens, tokens[1:])
    ]
    assert changed == [[i] for i in range(16)] and record["steps"] == 16
    page = tmp_path / "report.html"
    tools.good("report", f"--workdir={trained('mdlm')}", ar, *FEW, f"--output={page}")
    text = page.read_text()
    assert "ar: no grid" in text and "<td>no grid</td>" in text
    assert text.count("data:image/png") == 2  # training of both, mechanism of the one
    assert text.count("<h3>ar</h3>") == 2 and "3 samples, 5 steps" in text  # samples, over training
    alone = tmp_path / "alone.html"
    tools.good("report", ar, *FEW, f"--output={alone}")
    assert alone.read_text().count("data:image/png") == 1
    shown = tools.good("play", ar).out.splitlines()
    assert "step 0 of 16" in shown[0] and shown[-1].split()[0] == "17"


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    """A report of two runs."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    both = [f"--workdir={trained(m)}" for m in ("mdlm", "lddm_m")]
    tools.good("report", *both, *FEW, f"--output={path}")
    return path


@pytest.mark.slow
def test_the_page_needs_nothing_else(written):
    text = written.read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "default-src 'none'" in text and text.count("data:image/png") >= 2
    assert [p.name for p in written.parent.iterdir()] == [written.name]
    data = re.search(r'<script type="application/json" id="runs">(.*?)</script>', text, re.S)
    runs = json.loads(data[1])
    assert [r["label"] for r in runs] == ["mdlm", "lddm_m"]
    assert runs[0]["paths"][0]["tokens"][0] == ["[MASK]"] * 16
    over = text.partition("<h2>Samples over training</h2>")[2]
    assert re.findall(r"<h3>(\w+)</h3>", over) == ["mdlm", "lddm_m"]
    assert over.count("<tr><td>12</td><td>") == 2  # one sampling in training, at its end


def test_refusals(trained, tmp_path):
    given = f"--workdir={trained('mdlm')}"
    for flags, why in (
        (("--bench=/nowhere",), "--bench=/nowhere"),
        (("--num_samples=0",), "at least 1"),
        ((f"--output={tmp_path / 'no' / 'r.html'}",), "r.html"),
    ):
        run = tools.call("report", given, *FEW, *flags)
        assert run.status == 2 and why in run.err and len(run.err.splitlines()) == 1, run
    run = tools.call("report")
    assert run.status == 2 and "--workdir is missing" in run.err


def hostile(text):
    """A run whose every string is an attack."""
    steps = [[text, "[MASK]", "b"], [text, text, "b"], [text, text, text]]
    path = {"tokens": steps, "entropy": [[0.5, None, 9.0]] * 2, "norm": [[1, 2, 0]] * 2}
    counts = {f"{n}{s}": 1.0 for n in ("busy", "oscillations", "returns") for s in ("", "_se")}
    return {
        "label": text,
        "recipe": text,
        "no_grid": False,
        "summary": {"nelbo_nats_per_token": 2.0, "exact": False},
        "metrics": [{"step": 1, "train_loss": 2.0}],
        "curves": {"entropy": [1.0, 0.5], "entropy_se": [0.1, None]},
        "counts": counts,
        "paths": [path | {"text": text}],
        "history": [(1, [text, text])],
        "samples": 1,
        "steps": 2,
        "seed": 0,
        "every": 1,
    }


@pytest.fixture
def browser(tmp_path):
    if found() is None:
        pytest.skip("no chromium here; install one to test the report in a browser")
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def move(browser, step):
    """Drag the slider."""
    browser.run(
        f"(s => {{ s.value = {step}; s.dispatchEvent(new Event('input')); }})"
        "(document.getElementById('step'))"
    )


SIDES = "['panel0', 'panel1'].map(i => document.getElementById(i)).map(p => "


@pytest.mark.slow
def test_slider_and_comparison_in_a_browser(browser, written):
    browser.open(written)
    data = json.loads(browser.run("document.getElementById('runs').textContent"))
    assert browser.run("document.getElementById('step').max") == "6"
    for step in (0, 3, 6):
        move(browser, step)
        shown = browser.run(
            SIDES + "[...p.querySelectorAll('.tokens span')].map(s=>s.textContent))"
        )
        for side, run in zip(shown, data):
            tokens = run["paths"][0]["tokens"][step]
            assert side == [
                "\u00b7" if t == "[MASK]" else t.replace("\n", "\u21b5") for t in tokens
            ]
        changed = browser.run(SIDES + "Number(p.dataset.changed))")
        before = [run["paths"][0]["tokens"][max(step - 1, 0)] for run in data]
        now = [run["paths"][0]["tokens"][step] for run in data]
        assert changed == [sum(a != b for a, b in zip(*pair)) for pair in zip(before, now)]
    assert "\u00b7" not in browser.run(SIDES + "p.querySelector('.tokens').textContent).join('')")
    # The left side shows the other model, another sample, and the latent's bars are drawn.
    browser.run(
        "(s => { s.value = '1'; s.dispatchEvent(new Event('change')); })"
        "(document.querySelector('#panel0 select'))"
    )
    both = browser.run(SIDES + "p.querySelector('.tokens').textContent)")
    assert both[0] == both[1]
    move(browser, 2)
    ink = "p.querySelector('canvas').getContext('2d').getImageData(0,0,520,70).data.some(v => v))"
    assert browser.run(SIDES + ink) == [True, True]
    browser.run("document.getElementById('play').click()")
    assert browser.run("document.getElementById('play').textContent") == "stop"
    assert browser.errors == []


def test_model_output_is_never_markup(browser, tmp_path):
    path = tmp_path / "evil.html"
    path.write_text(page.page([hostile(EVIL), hostile(EVIL)], None))
    browser.open(path)
    move(browser, 2)
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.title") != "owned"
    assert browser.run("document.querySelector('.tokens span').textContent") == EVIL
    assert browser.run("document.querySelector('h1').textContent").count(EVIL) == 2
    assert browser.errors == []
