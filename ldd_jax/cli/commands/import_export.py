"""The `import`, `export` and `publish` commands."""

from __future__ import annotations

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import need, workdir_flag
from ldd_jax.core.checks import is_whole, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at, local


def _import_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "New folder to write.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "checkpoint", "", "safetensors file, .ckpt, or folder; also bare.")
    d(flags.DEFINE_string, "method", "", "mdlm, lddm_m, udlm, ...; default: as the file says.")
    d(flags.DEFINE_string, "tokenizer", "", "File or folder; default: ids are numbers.")
    d(flags.DEFINE_integer, "heads", 0, "Heads, where no rotary buffer tells them.")
    d(flags.DEFINE_string, "mask", "", "Mask, a token or an id; default: as said, or one more.")
    d(flags.DEFINE_string, "schedule", "", "As NAME:field=value,...; default: log_linear.")
    d(flags.DEFINE_integer, "length", 0, "Tokens of a row; default: the file's, else 1024.")
    d(flags.DEFINE_string, "data", "", "Text for `evaluate`; default: python-docs.")
    d(flags.DEFINE_string, "recording", "", "Recorded inputs and outputs (.npz) to compare with.")
    flags.DEFINE_enum(
        "time",
        "",
        ["", "on", "off"],
        "Whether the network is told the time; default: as the file says, else by the method.",
        flag_values=values,
    )


def _import(values: flags.FlagValues) -> None:
    checkpoint, workdir = need(values, "checkpoint"), need(values, "workdir")
    for name, least in (("heads", 0), ("length", 0)):
        value = getattr(values, name)
        require(value >= least, f"--{name}={value}; it must be at least {max(least, 0)}")
    from ldd_jax.interop import importing
    from ldd_jax.interop.choices import Choices

    choices = Choices(
        method=values.method,
        tokenizer=values.tokenizer,
        heads=values.heads,
        mask=int(values.mask) if is_whole(values.mask) else -1,
        mask_token="" if is_whole(values.mask) or values.mask == "-1" else values.mask,
        time=values.time,
        schedule=values.schedule,
        length=values.length,
        data=values.data,
        recording=values.recording,
    )
    record = importing.load(at(checkpoint), at(workdir), choices)
    same, parity = record["round_trip"], record.get("recorded")
    say(
        f"{record['tensors']} tensors, {record['parameters']:,} parameters, moving average "
        f"{'used' if record['averaged'] else 'not in the file'}; "
        f"{same['identical_tensors']} of {same['tensors']} tensors come back byte for byte"
    )
    if parity:
        say(
            f"recorded outputs: {len(parity['arrays'])} arrays, largest difference "
            f"{parity['worst']:.1e} of the largest entry"
        )
        if "note" in parity:
            say(f"note: {parity['note']}")
    say(f"workdir {workdir}: sample or evaluate it")


def _export_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a run or an import.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "output", "", "New folder for model.safetensors and its card.")
    flags.DEFINE_enum(
        "names", "reference", ["reference", "own"], "Whose names.", flag_values=values
    )
    flags.DEFINE_enum(
        "format",
        "",
        ["", "transformers"],
        "transformers: a folder that AutoModelForCausalLM loads, with its names.",
        flag_values=values,
    )
    d(flags.DEFINE_string, "prefix", "", "Before the reference's names, such as backbone.")
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")
    d(flags.DEFINE_bool, "ema", True, "Averaged parameters.")


def _export(values: flags.FlagValues) -> None:
    workdir, output = need(values, "workdir"), need(values, "output")
    from ldd_jax.interop import exporting

    found = exporting.save(
        at(workdir),
        at(output),
        names=values.format or values.names,
        prefix=values.prefix,
        ema=values.ema,
        step=values.step,
    )
    say(f"{found['tensors']} tensors, {found['parameters']:,} parameters: {output}")


def _publish_flags(values: flags.FlagValues) -> None:
    workdir_flag(values, "Folder of a run or an import.")
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "output", "", "New folder, as the Hugging Face hub expects it.")
    d(flags.DEFINE_string, "push", "", "OWNER/NAME: send it to the hub (needs huggingface_hub).")
    d(flags.DEFINE_bool, "private", False, "A repository that --push makes is seen by you alone.")
    d(flags.DEFINE_string, "license", "", "The hub's word for it, such as apache-2.0.")
    d(flags.DEFINE_string, "title", "", "Of the card; default: the recipe.")
    d(flags.DEFINE_integer, "samples", 0, "Samples of training that the card shows; may repeat it.")
    d(flags.DEFINE_integer, "step", None, "Checkpoint; default: the newest.")


def _publish(values: flags.FlagValues) -> None:
    workdir, output = need(values, "workdir"), need(values, "output")
    require(not values.private or bool(values.push), "--private belongs to --push=OWNER/NAME")
    from ldd_jax.interop import hub, publishing

    if values.push:
        hub.check(values.push)
    choices = publishing.Choices(license=values.license, samples=values.samples, title=values.title)
    folder = publishing.save(at(workdir), at(output), choices, step=values.step)
    say(f"published: {folder}")
    if not values.license:
        say("its licence is unknown to the card; --license=apache-2.0, or another, says it")
    if values.push:
        say(f"pushed: {hub.push(local(folder), values.push, private=values.private)}")


IMPORT = Command(
    "read a PyTorch or safetensors checkpoint into a workdir",
    _import_flags,
    _import,
    argument="checkpoint",
    buckets=("checkpoint", "workdir", "tokenizer", "data"),
)
EXPORT = Command(
    "write a workdir's parameters as safetensors",
    _export_flags,
    _export,
    buckets=("workdir", "output"),
)
PUBLISH = Command(
    "write a workdir as a model hub expects it, and send it",
    _publish_flags,
    _publish,
    buckets=("workdir", "output"),
)
