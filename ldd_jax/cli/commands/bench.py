"""The `bench` and `gen-ppl` commands; what they run is imported when they run."""

from __future__ import annotations

import functools
import math

from absl import flags

from ldd_jax.cli.command_line import Command
from ldd_jax.cli.commands.shared import distributed_flags, start
from ldd_jax.core.checks import require
from ldd_jax.core.console import OUT, say
from ldd_jax.core.storage import at


def _bench_flags(values: flags.FlagValues) -> None:
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_multi_string, "workdir", [], "Trained runs: A,B,... or the flag repeated.")
    d(
        flags.DEFINE_string,
        "samplers",
        "default",
        "NAME[:field=value]...,...; default: each run's own; all: every registered step.",
    )
    d(flags.DEFINE_string, "steps", "4,8,16,32,64", "Numbers of steps.")
    d(flags.DEFINE_string, "temperatures", "1", "Temperatures of p(x0 | z_t); 0 = greedy.")
    d(flags.DEFINE_string, "latents", "carry,off", "carry, off, frozen; for runs with a latent.")
    d(flags.DEFINE_string, "seeds", "0", "Seeds of the samples.")
    d(flags.DEFINE_integer, "num_samples", 64, "Samples of a cell.")
    d(flags.DEFINE_integer, "length", None, "Tokens of a sample; default: the training length.")
    d(
        flags.DEFINE_string,
        "judge",
        "ngram",
        "Workdirs of autoregressive runs, GPT-2 folders, or ngram (fitted to the training split); "
        "the first one is plotted.",
    )
    d(
        flags.DEFINE_boolean,
        "mauve",
        False,
        "Also a MAUVE-style distance of every cell to validation texts, as the first judge sees "
        "them.",
    )
    text = "Validation rows of each sampler's own bound (docs/carried.md), a column; 0: none."
    d(flags.DEFINE_integer, "bound_sequences", 0, text)
    d(
        flags.DEFINE_boolean,
        "show_data",
        False,
        "Write a validation text of the corpus into the page and the cells as well.",
    )
    d(flags.DEFINE_string, "output", "", "Folder; the same command again goes on in it.")
    distributed_flags(values)


def _bench(values: flags.FlagValues) -> None:
    require(bool(values.workdir), "--workdir is missing; give --workdir=A,B,...")
    require(bool(values.output), "--output is missing; give --output=FOLDER")
    require(values.num_samples >= 2, f"--num_samples={values.num_samples}; it must be at least 2")
    length = values.length
    require(length is None or length >= 1, f"--length={length}; it must be at least 1")
    require(
        values.bound_sequences >= 0,
        f"--bound_sequences={values.bound_sequences}; it must be 0 (none) or more",
    )
    start(values)
    from ldd_jax.bench import cells, report, run
    from ldd_jax.inference.settings import LATENTS
    from ldd_jax.training import distributed

    OUT.silent = bool(values.distributed) and not distributed.leader()
    seeds = cells.numbers("seeds", values.seeds, least=0)
    require(max(seeds) < 2**32, f"--seeds={values.seeds}; they must be below {2**32}")
    temperatures = cells.numbers("temperatures", values.temperatures, float, 0)
    require(
        max(temperatures) < math.inf, f"--temperatures={values.temperatures}; they must be finite"
    )
    settings = run.Settings(
        workdirs=[at(w) for w in dict.fromkeys(",".join(values.workdir).split(","))],
        output=at(values.output),
        samplers=run.sampler_names(values.samplers),
        steps=cells.numbers("steps", values.steps),
        temperatures=temperatures,
        latents=cells.choices("latents", values.latents, LATENTS),
        seeds=seeds,
        judges=list(dict.fromkeys(values.judge.split(","))),
        num_samples=values.num_samples,
        length=length or 0,
        every=values.samplers == "all",
        mauve=values.mauve,
        show_data=values.show_data,
        bound_sequences=values.bound_sequences,
    )
    bench = run.Bench(settings)
    found = bench.execute()
    if not distributed.leader():
        return
    say(report.write(found, settings.output, settings.show_data))
    say(f"{len(found)} cells; table.md, frontier.png and frontier.html in {settings.output}")


def _gen_ppl_flags(values: flags.FlagValues) -> None:
    d = lambda f, name, default, text: f(name, default, text, flag_values=values)
    d(flags.DEFINE_string, "file", "", "Samples: lines of JSON with `text`, or of plain text.")
    d(
        flags.DEFINE_string,
        "judge",
        "",
        "Workdir of an autoregressive run, a GPT-2 folder, or ngram.",
    )
    d(flags.DEFINE_string, "workdir", "", "A run whose corpus the ngram judge is fitted to.")
    d(
        flags.DEFINE_string,
        "reference",
        "",
        "MAUVE-style distance to these texts: a file like FILE, or validation (of --workdir).",
    )
    d(flags.DEFINE_string, "output", "", "JSON file to write as well.")


def _gen_ppl(values: flags.FlagValues) -> None:
    require(bool(values.file), "which samples? give gen-ppl FILE")
    path, workdir = at(values.file), values.workdir
    require(path.is_file(), f"{path}: no such file")
    if not workdir and (path.parent / "config.json").is_file():
        workdir = str(path.parent)
    judge = values.judge or "ngram"
    require(
        judge != "ngram" or bool(workdir),
        "--workdir is missing; the ngram judge is fitted to the corpus of a run (or give "
        "--judge=WORKDIR of an autoregressive one)",
    )
    from ldd_jax.bench import judging
    from ldd_jax.config import experiment
    from ldd_jax.core import outputs
    from ldd_jax.evaluation import mauve, quality
    from ldd_jax.evaluation.judges import bootstrap, rows_for
    from ldd_jax.inference import json_lines

    reference, validation = values.reference, values.reference == "validation"
    require(
        not reference or validation or at(reference).is_file(),
        f"--reference={reference}: no such file",
    )
    require(
        bool(workdir) or not validation,
        "--workdir is missing; --reference=validation is the split of a run",
    )
    output = outputs.place(values.output) if values.output else None
    texts, tokens, digest = judging.read_samples(path)
    corpus = functools.cache(lambda: judging.corpus_of(experiment.restore(at(workdir))))
    found = judging.make_judge(judge, corpus)
    rows = rows_for(found, texts, tokens, digest)
    verdict = bootstrap(*found.nats(rows))
    by_id = tokens is not None and digest == found.tokenizer.digest
    measures = quality.describe(rows)
    if reference:
        if validation:
            others = judging.validation_samples(corpus(), len(rows))
        else:
            others = judging.read_samples(at(reference))
        compared = mauve.mauve(found.features(rows), found.features(rows_for(found, *others)))
        measures |= compared.record()
    what = "their own ids" if by_id else "the text in the judge's tokens"
    say(f"gen_ppl[{found.name}] of {len(texts)} samples, by {what}: {verdict}")
    shown = {k: v for k, v in measures.items() if v is not None and not k.startswith("mauve")}
    say("  ".join(f"{k} {_show(v)}" for k, v in shown.items()))
    if reference:
        say(f"{compared}, features of {found.name}")
    if output:
        record = {"file": str(path), "samples": len(texts), "judge": found.name}
        record |= {"fingerprint": found.fingerprint, **verdict.record(), **measures}
        json_lines.write(output, [record])


def _show(value: object) -> str:
    if isinstance(value, list):
        return "/".join(f"{v:.3f}" for v in value)
    return f"{value:.4f}"


BENCH = Command(
    "compare samplers and runs: quality against network calls",
    _bench_flags,
    _bench,
    buckets=("workdir", "judge"),
)
GEN_PPL = Command(
    "perplexity and diversity of a sample file under a judge",
    _gen_ppl_flags,
    _gen_ppl,
    argument="file",
    buckets=("file", "judge", "workdir", "reference", "output"),
)
