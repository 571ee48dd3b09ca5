"""Bytes in patches (BLT, arXiv 2412.09871) with masked diffusion (2406.07524), latent by patch.

Command:   python -m ldd_jax train --config=configs/patches.py:method=patch_lddm,patch=4 \
               --config.data.path=FILE --workdir=DIR
           (method=patch_mdlm|patch_lddm|patch_ar|patch_whole|patch_whole_lddm;
           patches=static|space|entropy, the last with from=WORKDIR of a run with
           method=patch_ar,by=byte, and data that `prepare` has written;
           by=byte: a DiT by byte with as many operations a byte, no patches)
Hardware:  any; minutes at size=tiny on a laptop CPU.
Expected:  docs/evidence/systems.md says what was measured here.
"""

from ldd_jax.config.recipes import SHORT, arguments, make, sized, tokenizer
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import build, section
from ldd_jax.data import EntropyPatches, PatchedText, SpacePatches, TextData
from ldd_jax.denoisers.blt import Blt, equal_size
from ldd_jax.samplers import PatchAncestral

BYTES = {"patch_mdlm": "mdlm", "patch_lddm": "lddm_m", "patch_ar": "ar"}
WHOLE = ("patch_whole", "patch_whole_lddm")
RULES, ROWS = ("static", "space", "entropy"), ("patch", "byte")
LENGTH = 64


def get_config(argument=""):
    """The recipe; structural choices in the argument."""
    usual = {"tokenizer": "bytes", "tokenizer_path": "", "from": "", "patch": "4"}
    usual |= {"patches": "static", "by": "patch"}
    chosen = arguments(argument, method="patch_mdlm", size="tiny", **usual)
    workdir, name, patch = chosen.pop("from"), chosen["method"], chosen["patch"]
    for what, allowed in (("method", (*BYTES, *WHOLE)), ("patches", RULES), ("by", ROWS)):
        require(
            chosen[what] in allowed,
            f"{what}={chosen[what]} is not for patches; {nearest(chosen[what], allowed)}",
        )
    require(patch.isdigit() and 0 < int(patch) <= LENGTH, f"patch={patch}; 1 to {LENGTH} bytes")
    most = -(-LENGTH // int(patch))  # rows of the DiT: a patch has so many bytes on average
    static = chosen["patches"] == "static"
    model = dict(patch=int(patch)) if static else dict(patch=0, patches=most)
    source, data = TextData, dict(path="python-docs", length=LENGTH, tokenizer=tokenizer(chosen))
    if chosen["by"] == "byte":
        require(name in BYTES, f"method={name} masks patches; bytes have none (by=patch)")
        blt = Blt(**sized(Blt, chosen["size"]), **model, causal=name == "patch_ar")
        ids = build("data", section(TextData, **data)).most_ids() + 1
        model, chosen["method"] = equal_size(blt, LENGTH, ids), BYTES[name]
    elif not static:
        entropy = chosen["patches"] == "entropy"
        rule = EntropyPatches(most=most, model=workdir) if entropy else SpacePatches(most=most)
        source, data = PatchedText, data | dict(patches=section(rule))
    size = dict(size=int(patch))  # where the data say nothing of patches
    steps = dict(step=section(PatchAncestral, **size)) if name in WHOLE else {}
    scored = size if name in WHOLE else {}
    parts = dict(data=data, model=model, objective=scored, sampling=steps)
    return make(chosen, source=source, **parts, **SHORT)
