"""What a plan says of a batch that does not fit, of what is not known, and of hosts."""

from __future__ import annotations

import types

import jax
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.planning import aot, fitting, plan
from tests.training.common import experiment

SAID = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 23.25G of 15.75G hbm. Exceeded hbm capacity by 7.50G.\n\nTotal hbm usage >= 23.50G"
)

# libtpu 0.0.52.
NEWER = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
    "required for HLO temporaries (128.00G) exceeds available HBM (15.75G). HLO module: jit_step.\n"
)


def raising(error):
    def compile():
        raise error

    return compile


def test_what_does_not_fit_is_said_in_words():
    with pytest.raises(fitting.DoesNotFit, match=r"--per_chip=64 does not fit \(23.2 of 15.8 GiB"):
        fitting.fitting(raising(RuntimeError(SAID)), 64)
    with pytest.raises(fitting.DoesNotFit, match=r"does not fit \(128.0 of 15.8 GiB a device\)"):
        fitting.fitting(raising(RuntimeError(NEWER)), 64)
    with pytest.raises(fitting.DoesNotFit, match="--per_chip=64 does not fit; lower it"):
        fitting.fitting(raising(RuntimeError("RESOURCE_EXHAUSTED: no figures")), 64)
    with pytest.raises(UserError, match="^INTERNAL: broken$"):
        fitting.fitting(raising(RuntimeError("INTERNAL: broken\ntrace")), 64)
    with pytest.raises(UserError, match="not a multiple"):
        fitting.fitting(raising(UserError("not a multiple")), 64)


def test_a_record_says_whether_it_fits():
    memory = {"peak": 17.0, "capacity": 16.0}
    record = {"fits": False, "gib_per_device": memory, "sequences_per_chip": 8}
    assert "--per_chip=8 does not fit (17.0 of 16.0 GiB a device)" in fitting.unfit(record)
    assert fitting.unfit(record | {"fits": True}) == fitting.unfit({"step": 1.0}) == ""
    tried = [{"sequences_per_chip": 8}, {"sequences_per_chip": 4}]
    assert fitting.unfit({"best": {}, "tried": tried}).startswith("no batch fits, from 8 sequences")
    assert fitting.unfit({"best": record, "tried": tried}) == ""


@pytest.fixture(scope="module")
def built():
    return experiment("mdlm")


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """As many operations as take 2 ms at the chip's peak: counting them takes seconds."""
    count = types.SimpleNamespace(total=0.002 * 197e12)
    monkeypatch.setattr(plan.cost, "step_count", lambda *_: count)


def compiled(**fields):
    given = dict(arguments=0, temporary=0, output=0, alias=0, peak=0, seconds=1.0, text="")
    return aot.Compiled(**given | fields)


def test_what_lies_in_hosts_is_none_of_a_devices_peak():
    """The compiler counts all kinds of memory into its peak; what is an alias is there once."""
    names = ("argument", "temp", "output", "alias", "host_argument", "host_temp", "host_output")
    sizes = {f"{n}_size_in_bytes": 2**i for i, n in enumerate((*names, "host_alias"))}
    memory = types.SimpleNamespace(**sizes, peak_memory_in_bytes=1000)
    made = types.SimpleNamespace(memory_analysis=lambda: memory, as_text=lambda: "")
    lowered = types.SimpleNamespace(compile=lambda: made)
    assert aot.Compiled.of(lowered).peak == 1000 - (16 + 32 + 64 - 128)
    memory.peak_memory_in_bytes = 0  # it is not told
    assert aot.Compiled.of(lowered).peak == 1 + 2


def test_mfu_is_told_where_it_is_not_assumed(built):
    made = lambda wire, **k: plan.estimate(built, 8, "v5e:1x1", compiled(**k), wire)
    by_compute = made(0.0)
    parts = by_compute["roofline_seconds"]
    assert by_compute["bound_by"] == "operations" and by_compute["mfu"] is None
    assert parts["operations"] == by_compute["operations_per_step"] / 197e12 / plan.HALF
    assert by_compute["step_seconds"] == parts["operations"]
    by_memory = made(0.0, arguments=819 * 10**9 // 4, temporary=819 * 10**9 // 4)
    assert by_memory["bound_by"] == "memory" and by_memory["step_seconds"] == pytest.approx(1.0)
    assert 0 < by_memory["mfu"] < 0.1
    by_links = made(400e9)
    assert by_links["bound_by"] == "collectives" and by_links["step_seconds"] == pytest.approx(2.0)


def test_what_is_not_known_is_no_zero(built):
    found = plan.estimate(built, 8, "v5e:1x1", compiled(), None)
    assert found["roofline_seconds"]["collectives"] is None and found["step_seconds"] > 0
    assert "not known" in plan.table({"estimate": found})


def test_hosts_and_checkpoints(built):
    """Bytes by hand: three trees of parameters and two numbers more, once each."""
    size = sum(a.size for a in jax.tree.leaves(built.abstract().params))
    whole = aot.whole(built)
    assert whole["parameters"] == whole["average"] == 4 * size
    assert 0 <= whole["optimizer"] - 8 * size <= 16
    found = plan.hosts(built, 8)
    assert found["hosts"] == found["devices"] == 1
    assert found["gib_of_a_save"] * aot.GIB == pytest.approx(sum(whole.values()))
    each = 12 * (4 + 1 + 4) + 4  # tokens, keep and weight of 12 positions, and an index
    assert found["gib_of_batches"] * aot.GIB == pytest.approx(plan.AHEAD * 8 * each)
    assert found["gib_of_average"] == 0.0
    hosted = experiment("mdlm", training__ema_on_host=True)
    assert plan.hosts(hosted, 8) == found | {"gib_of_average": 4 * size / aot.GIB}
    own = aot.split(built) | {"average": 0}
    assert aot.split(hosted) == own and aot.whole(hosted) == whole
    twice = experiment("mdlm", devices=[jax.devices()[0]] * 2, mesh__data=2)
    assert aot.whole(twice) == whole
