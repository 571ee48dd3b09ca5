"""Files are recognised by content; lists of averages find their names; nothing of a file runs."""

import pickle
import struct
import subprocess
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ldd_jax.core.checks import UserError
from ldd_jax.interop import archive, sources
from tests.interop.test_reference import rotary, weights


def test_safetensors_under_any_name(tmp_path):
    w = {f"backbone.{n}": a for n, a in weights().items()}
    save_file(w, tmp_path / "looks.ckpt")
    found = sources.read(tmp_path / "looks.ckpt")
    assert found.prefix == "backbone." and found.averaged is None
    assert found.tensors.keys() == weights().keys()


def test_a_header_that_begins_like_a_pickle(tmp_path):
    pad = {"note": "x" * 100}
    for size in range(200, 800):
        save_file(
            {"vocab_embed.embedding": np.zeros((3, 2))}, tmp_path / "a", pad | {"n": "y" * size}
        )
        if (tmp_path / "a").read_bytes()[:2] == b"\x80\x02":
            break
    assert (tmp_path / "a").read_bytes()[:2] == b"\x80\x02"
    assert sources.read(tmp_path / "a").tensors["vocab_embed.embedding"].shape == (3, 2)


def test_a_folder_with_its_config(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    said = '{"model_type": "mdlm", "n_heads": 2, "model_length": 7, "time_conditioning": false}'
    (tmp_path / "config.json").write_text(said)
    expected = {"method": "mdlm", "heads": 2, "length": 7, "time_conditioning": False}
    assert sources.read(tmp_path).said == expected


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "0 bytes"),
        (b"not a checkpoint at all", "neither a safetensors file nor"),
        (struct.pack("<Q", 2**60) + b"{" + b" " * 50, "neither a safetensors file nor"),
        (struct.pack("<Q", 20) + b"{broken" + b" " * 50, "damaged safetensors"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, text):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=text) as error:
        sources.read(tmp_path / "a.safetensors")
    assert len(str(error.value).splitlines()) == 1


def test_other_networks_are_refused(tmp_path):
    save_file({"transformer.wte.weight": np.zeros((3, 2))}, tmp_path / "gpt2.safetensors")
    with pytest.raises(UserError, match="0 of the 1 tensors are named"):
        sources.read(tmp_path / "gpt2.safetensors")


def test_averages_find_their_names_by_order():
    w = weights() | {"rotary_emb.inv_freq": rotary(6)}
    names = [n for n in w if n != "rotary_emb.inv_freq"]
    found = sources.by_order(w, [w[n] + 1 for n in names])
    assert list(found) == names and (found["layer_norm.bias"] == w["layer_norm.bias"] + 1).all()
    with pytest.raises(UserError, match="has 3 tensors, the network"):
        sources.by_order(w, [w[n] for n in names[:3]])
    with pytest.raises(UserError, match="another order: vocab_embed.embedding is"):
        sources.by_order(w, [w[n] for n in names[::-1]])


# --- PyTorch archives ------------------------------------------------------------------------


def lightning(path, config=None, **more):
    """A checkpoint as Lightning writes it: prefixed names, a list of averages, other state."""
    torch = pytest.importorskip("torch")
    w = OrderedDict()
    for name, a in weights().items():
        w[f"backbone.{name}"] = torch.from_numpy(a)
        if name == "sigma_map.mlp.2.bias":  # a buffer stands where its module was registered
            w["backbone.rotary_emb.inv_freq"] = torch.from_numpy(rotary(6))
    parameters = [a for n, a in w.items() if "inv_freq" not in n]
    content = {
        "state_dict": w,
        "ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": [a * 2 for a in parameters]},
        "hyper_parameters": {"config": config, "tokenizer": None},
        "loops": {"fit_loop": {"state_dict": {}}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        **more,
    }
    torch.save(content, path)
    return path


def test_lightning_with_its_list_of_averages(tmp_path):
    found = sources.read(lightning(tmp_path / "last.ckpt"))
    w = weights()
    assert found.prefix == "backbone." and set(found.tensors) == set(w) | {"rotary_emb.inv_freq"}
    assert found.averaged is not None and set(found.averaged) == set(w)
    for name, a in w.items():
        np.testing.assert_array_equal(found.tensors[name], a)
        np.testing.assert_array_equal(found.averaged[name], a * 2)


def test_what_a_config_says(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create(
        {
            "algo": {"name": "lddm_m", "time_conditioning": False, "loophole": True},
            "model": {"n_heads": 2, "length": 32, "type": "${algo.name}"},
        }
    )
    found = sources.read(lightning(tmp_path / "last.ckpt", config))
    expected = {"method": "lddm_m", "heads": 2, "length": 32, "time_conditioning": False}
    assert found.said == expected
    old = {"parameterization": "subs", "diffusion": "absorbing_state", "time_conditioning": False}
    found = sources.read(lightning(tmp_path / "old.ckpt", old))
    assert found.said == {"method": "mdlm", "time_conditioning": False}


@pytest.fixture(scope="module")
def hydra_checkpoint(tmp_path_factory):
    """What Hydra and Lightning write themselves, in a process of their own."""
    for name in ("torch", "hydra", "lightning"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("hydra")
    command = [sys.executable, "-m", "tests.interop.hydra_run", f"hydra.run.dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "checkpoints" / "last.ckpt"


def test_checkpoints_as_hydra_and_lightning_write_them(hydra_checkpoint):
    import torch

    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(hydra_checkpoint))
    assert "collections.defaultdict" in names  # the cache of ${now:}
    found = sources.read(hydra_checkpoint)
    assert found.said["method"] == "mdlm" and found.said["length"] == 32
    assert found.said["time_conditioning"] is False and found.averaged is not None
    w = weights(loop=False)
    assert set(found.averaged) == set(w)
    for name in w:
        np.testing.assert_array_equal(found.averaged[name], found.tensors[name] * 2)


class Kind(dict):
    """A mapping of a class of its own."""


def test_which_classes_get_items():
    table = defaultdict(dict, now={"a": 1})
    pickled = pickle.dumps([table, Kind(x=[1]), {"plain": Touch(Path("x"))}, (1, 2)], 2)
    assert archive.filled(pickled) == {"collections.defaultdict", f"{__name__}.Kind"}


def test_mappings_of_any_class_are_read(tmp_path):
    config = defaultdict(dict, algo=Kind(name="mdlm"), model=Kind(length=7))
    assert sources.read(lightning(tmp_path / "a.ckpt", config)).said == {
        "method": "mdlm",
        "length": 7,
    }


class Listed(list):
    """What the weights-only reader does not know."""


def test_no_message_tells_to_read_unsafely(tmp_path):
    with pytest.raises(UserError) as error:
        sources.read(lightning(tmp_path / "a.ckpt", surprise=Listed([1])))
    text = str(error.value)
    assert "weights-only reader: Can only" in text
    for advice in ("weights_only", "False", "add_safe_globals", "trust"):
        assert advice not in text


class Touch:
    """Runs when it is unpickled the ordinary way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Shell(Touch):
    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", [Touch, Shell])
def test_nothing_of_a_file_is_run(tmp_path, kind):
    path = lightning(tmp_path / "evil.ckpt", surprise=kind(tmp_path / "ran"))
    try:
        sources.read(path)
    except UserError as error:
        assert "weights-only" in str(error)
    assert not (tmp_path / "ran").exists()


def test_half_precision_keeps_its_bytes(tmp_path):
    torch = pytest.importorskip("torch")
    w = {n: torch.from_numpy(a).to(torch.bfloat16) for n, a in weights().items()}
    torch.save({"model": w, "step": 4}, tmp_path / "sedd.pth")
    found = sources.read(tmp_path / "sedd.pth").tensors
    assert all(
        found[n].tobytes() == a.astype(ml_dtypes.bfloat16).tobytes() for n, a in weights().items()
    )


def test_damaged_archives(tmp_path):
    path = lightning(tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError) as error:
        sources.read(path)
    assert len(str(error.value).splitlines()) == 1
