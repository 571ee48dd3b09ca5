from __future__ import annotations

from ldd_jax.core.colours import OF_METHOD, colours


def test_a_method_keeps_its_colour():
    mdlm, lddm = "method=mdlm,size=tiny", "finetune,method=lddm_m,method=mdlm,size=tiny"
    assert colours([mdlm, lddm]) == colours([lddm, mdlm])[::-1]
    assert colours([lddm]) == colours(["method=ar", lddm])[1:] == [OF_METHOD["lddm_m"]]


def test_further_runs_take_colours_of_their_own():
    found = colours(["method=mdlm", "method=mdlm", "method=lddm_m", "no method", "import"])
    assert len(set(found)) == 5
    assert len(colours(["method=mdlm"] * 40)) == 40
    assert len(set(OF_METHOD.values())) == len(OF_METHOD)
