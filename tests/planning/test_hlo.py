"""What the compiled programs hold: no [B, L, V] array, no collective that could deadlock."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldd_jax.planning import hlo
from tests import children

ROOT = Path(__file__).parents[2]
TEXT = """HloModule step

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %g = f32[2,4]{1,0} all-gather(%a), channel_id=1, dimensions={0}
  %g2 = f32[2,4]{1,0} all-gather(%a), channel_id=1, dimensions={0}
}

%more (p: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%rows (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %y = (f32[8]{0}, f32[2,2]{1,0}) all-reduce-start(%b, %c), channel_id=2
}

%rows_more (p: (s32[], f32[4])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%some (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%t), condition=%more, body=%body
}

%none (p: f32[4]) -> f32[4] {
  ROOT %c = f32[4]{0} copy(%p)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %b = f32[4] conditional(%on, %p, %p), branch_computations={%none, %some}, op_name="gate/cond"
  %w = (s32[], f32[4]) while(%t), condition=%rows_more, body=%rows, op_name="scored/while"
  %k = (s32[], f32[4]) while(%t), condition=%rows_more, body=%body, {"known_trip_count":{"n":"3"}}
  %s = bf16[2,4]{1,0} all-gather-start(%a), dimensions={0}
  %z = f32[16,3]{1,0} add(%d, %e)
}
"""


def test_collectives_count_as_often_as_they_run():
    program = hlo.Program.read(TEXT, {"gate": 0.5, "scored": 7.0})
    # The channel's gather: 5 trips in a branch taken half the time, and 3 trips outside.
    assert program.collectives() == {
        "all-gather": {"sites": 2, "runs": 5.5 + 1, "bytes": 5.5 * 32 + 16},
        "all-reduce": {"sites": 1, "runs": 7.0, "bytes": 7.0 * 48},
    }
    assert [s[0] for s in program.sites() if s[3]] == ["all-reduce"]
    assert hlo.largest_float32(TEXT) == 48 and hlo.largest_float32(TEXT, 5) == 0


@pytest.fixture(scope="module", params=[4, 8])
def found(request, tmp_path_factory):
    """What `tests.planning.compiled` says of programs for so many devices."""
    folder = tmp_path_factory.mktemp("compiled")
    return children.found("tests.planning.compiled", folder, devices=request.param)


@pytest.mark.slow
def test_no_collective_in_a_loop_whose_length_depends_on_the_data(found):
    for name in ("train", "sample"):
        assert found[name]["loops"] >= 1 and found[name]["in_loops"] == []
    assert found["control"]["in_loops"] != []


@pytest.mark.slow
def test_no_array_of_all_logits(found):
    for name in ("train", "sample"):
        assert found[name]["largest"] < found["logits_of_a_device"]
    assert found["control"]["largest"] >= found["logits_of_a_device"]


@pytest.mark.slow
def test_the_paying_part_of_a_batch_is_not_replicated(found):
    assert found["paying_own"] and not found["paying_whole"]
    assert found["control"]["paying_whole"]


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """What `tests.planning.cut` says of networks on eight devices."""
    return children.found("tests.planning.cut", tmp_path_factory.mktemp("cut"))


@pytest.mark.slow
def test_heads_that_are_cut_are_not_moved(cut):
    """Queries, keys and values lie on one device each: sums over devices are all that is sent."""
    assert {"dit tensor8", "gpt2 tensor4"} < set(cut["tensor"])
    for collectives in cut["tensor"].values():
        assert set(collectives) == {"all-reduce"}


@pytest.mark.slow
def test_positions_that_are_cut_are_scored_once(cut):
    """By splash forward and backward: the same numbers, a share of the blocks on each device."""
    whole = cut["blocks"]["1"]
    assert len(whole) == 3 and min(whole) == 16
    for pieces in (2, 4):
        assert cut["blocks"][str(pieces)] == [n // pieces for n in whole]
    for differences in cut["apart"].values():
        assert max(differences) < 2e-5


@pytest.mark.slow
def test_the_heads_gradient_waits_in_pieces(cut):
    """Summed before the backward pass, each device keeps its share of D and V."""
    assert cut["between"] == [[[8 // 4, 16 // 2]], 1]


@pytest.mark.slow
def test_positions_that_are_cut_keep_their_rows_of_the_head(cut):
    """Only sums of gradients are sent; a layer gathers keys and values, nothing else."""
    assert set(cut["head"]) == {"all-reduce"}
    for collectives in cut["trunk"].values():
        assert set(collectives) <= {"all-gather", "all-reduce"}
        keys = 8 * 16 * 32 * 4  # bytes of those of the batch, in each of two layers
        assert collectives["all-gather"]["bytes"] == 2 * 2 * keys
