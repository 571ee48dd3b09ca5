"""Tasks of lm-evaluation-harness with a model of ours, and what is kept of their results."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from ldd_jax.core.checks import UserError, parse_json, require
from ldd_jax.interop.harness import Harness
from ldd_jax.training import distributed

KEPT = (
    *("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better"),
    *("n-samples", "config", "chat_template", "system_instruction", "samples"),
)


def evaluate(
    harness: Harness,
    tasks: list[str],
    include: str = "",
    *,
    output_path: str = "",
    log_samples: bool = False,
    gen_kwargs: str = "",
    apply_chat_template: bool | str = False,
    system_instruction: str | None = None,
    num_fewshot: int | None = None,
    limit: float | None = None,
) -> dict[str, Any]:
    """Run tasks; the harness's results with what `Harness.report` adds under "ldd_jax".

    Args:
      harness: the model.
      tasks: names, which may have wildcards; those of `include` among them.
      include: a folder of task files; empty = the harness's own tasks only.
      output_path: folder (or .json file) for results and samples in the harness's own layout.
      log_samples: keep every document with its requests and answers.
      gen_kwargs: name=value,... or JSON, over the tasks' own settings of generation.
      apply_chat_template: a Jinja file, or True for a plain one.
      system_instruction: text before every prompt.
      num_fewshot: examples before each question.
      limit: documents of each task; below 1, their share.

    Raises:
      UserError: for an unknown task, or settings that cannot be met.
    """
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    require(
        limit is None or 0 < limit < 1 or (limit >= 1 and limit == int(limit)),
        f"limit is {limit}; give a whole number of documents, or a share below 1",
    )
    template = harness.chat_template(apply_chat_template) if apply_chat_template else None
    manager = TaskManager(include_path=include or None)
    unknown = [t for t in tasks if not manager.match_tasks([t])]
    require(not unknown, f"unknown tasks {unknown}; give --include=FOLDER for your own")
    if output_path:
        _usable(output_path)
    tracker = EvaluationTracker(output_path=output_path or None)
    found = lm_eval.simple_evaluate(
        model=harness,
        tasks=manager.match_tasks(tasks),
        task_manager=manager,
        log_samples=log_samples,
        evaluation_tracker=tracker,
        gen_kwargs=_settings(gen_kwargs),
        apply_chat_template=apply_chat_template,
        system_instruction=system_instruction,
        fewshot_as_multiturn=bool(apply_chat_template),
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=harness.scorer.batch_size,
    )
    assert found is not None  # every process is rank 0
    found |= {"chat_template": template, "system_instruction": system_instruction}
    kept = {k: found[k] for k in KEPT if found.get(k) is not None} | {"ldd_jax": harness.report()}
    if output_path and distributed.leader():
        # The tracker adds to what it is given and empties the samples as it writes them.
        told = {k: v for k, v in found.items() if k != "samples"} | {"ldd_jax": kept["ldd_jax"]}
        samples = copy.deepcopy(found["samples"]) if log_samples else None
        tracker.save_results_aggregated(results=told, samples=samples)
        for name, answers in (samples or {}).items():
            tracker.save_results_samples(task_name=name, samples=answers)
    return kept


def _usable(output_path: str) -> None:
    """Make the folder of results; the harness would only warn of it, and at the end."""
    place = Path(output_path)
    folder = place.parent if place.suffix == ".json" else place
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_path={output_path}: {error.strerror}") from error
    require(os.access(folder, os.W_OK), f"--output_path={output_path}: {folder} is read-only")


def _settings(text: str) -> dict[str, Any]:
    """Settings of generation from `name=value,...` or JSON."""
    from lm_eval.utils import simple_parse_args_string

    if not text.startswith("{"):
        return simple_parse_args_string(text)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"--gen_kwargs={text}: {error}") from error
