"""The picture of a bench: every baseline has a colour, those that are new here among them."""

import pytest

from ldd_jax.bench import baselines, plot, rows


def cell(sampler, entropy, workdir=""):
    """What the plot reads of a cell."""
    return {
        **dict(sampler=sampler, workdir=workdir, group=workdir, recipe="method=mdlm"),
        **dict(temperature=1.0, latent="none", steps=4, calls=4.0, entropy=entropy),
        "judges": {"ngram": {"nats": entropy / 2, "nats_se": 0.1}},
    }


@pytest.fixture
def greys(monkeypatch):
    """Colours of the baselines' lines, by name, as they are drawn."""
    drawn = {}
    pyplot = plot.pyplot()
    line = pyplot.Axes.axhline

    def axhline(self, y, **look):
        drawn[look["label"].split()[0]] = look["color"]
        return line(self, y, **look)

    monkeypatch.setattr(pyplot.Axes, "axhline", axhline)
    return drawn


def test_known_baselines_keep_their_colours_and_a_new_one_has_its_own(greys, monkeypatch, tmp_path):
    names = [*baselines.BASELINES, "shuffled"]
    cells = [cell(name, 2.0 + i) for i, name in enumerate(names)]
    found = rows.gathered([*cells, cell("ancestral", 2.5, "run")])
    assert [r.sampler for r in found] == [*names, "ancestral"]  # unknown: behind all
    plot.plot(found, tmp_path / "unknown.png")
    known = {"data": "black", "unigram": "grey", "frequent": "firebrick"}
    assert greys == known | {"shuffled": plot.GREYS[3]}
    monkeypatch.setitem(baselines.BASELINES, "shuffled", baselines.data)
    again = dict(greys)
    greys.clear()
    plot.plot(found, tmp_path / "known.png")
    assert greys == again
    assert (tmp_path / "unknown.png").read_bytes() == (tmp_path / "known.png").read_bytes()
