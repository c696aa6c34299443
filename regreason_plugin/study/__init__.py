"""`regreason study`: trains conditions x seeds on your data, from one file to a report.

A study builds the data, measures a few training steps, chooses hyperparameters on validation rows,
trains and scores every condition with every seed, and compares all label-first conditions with the
first one as `regreason compare` does. A finished stage is never run again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.stages import (
    Stage,
    console,
    run_stages,
    seconds_left,
    unfinished,
)
from regreason_plugin.core.training_extra import check_axolotl
from regreason_plugin.demo import default_jobs
from regreason_plugin.study.condition_scores import compare_label_first, read_figures
from regreason_plugin.study.cost_estimate import (
    jobs_that_fit,
    measure,
    seconds_of,
    show_estimate,
)
from regreason_plugin.study.hyperparameters import Chosen, choose
from regreason_plugin.study.kept_runs import keep_choice, keep_finished, kept_choice, restore
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.report import print_report, write_report
from regreason_plugin.study.study_file import StudyFile, read_study

OUT_OF_TIME = 3


def run_study(
    file: Path, *, jobs: int | None = None, minutes: float | None = None, dry_run: bool = False
) -> int:
    """Run a study, or continue one that was stopped.

    Args:
        file: The study file.
        jobs: Number of parallel stages; by default one per GPU, without GPUs one per core up to
            four, and fewer if memory is short.
        minutes: Time limit: no stage is started that is expected to end later. By default the
            limit of the study file.
        dry_run: Only measure a few steps and print an estimate of the remaining time.

    Returns:
        0 if the study is complete, 1 if a command failed, 3 if the time limit ended it early.

    Raises:
        UserError: The study file, or a file that it names, is wrong; Axolotl is not installed; or
            memory is too small for one training, or for ``jobs`` trainings in parallel.
    """
    began = time.monotonic()
    study = read_study(file)
    check_axolotl()
    _check_base(study.base)
    plan = Plan(study)
    console.print(_describe(study), highlight=False)
    if not run_stages(plan.out, plan.building()):
        return 1
    chosen = kept_choice(plan)
    if chosen is not None and (kept := restore(plan, chosen)):
        console.print(f"Reused {kept} finished runs from {study.kept}", highlight=False)
    gpus = _gpus()
    wanted = jobs or len(gpus) or default_jobs()
    minutes = minutes or study.limits.minutes
    if dry_run or _left(plan, chosen):
        measured = measure(plan, wanted)
        wanted = jobs_that_fit(study, measured, wanted, asked=jobs is not None)
        plan = replace(plan, seconds=seconds_of(plan, measured))
        stages = [*plan.choosing(), *plan.comparing({} if chosen is None else chosen.keys)]
        show_estimate(measured, wanted, seconds_left(plan.out, stages, wanted), minutes)
    if dry_run:
        return 0
    until = None if minutes is None else began + 60 * minutes
    return _run(plan, chosen, wanted, gpus, until)


def _run(
    plan: Plan, chosen: Chosen | None, jobs: int, gpus: tuple[int, ...], until: float | None
) -> int:
    if chosen is None:
        if not run_stages(plan.out, plan.choosing(), jobs, gpus=gpus, until=until):
            return 1
        if left := unfinished(plan.out, plan.choosing()):
            return _out_of_time(left)
        chosen = choose(plan)
        keep_choice(plan, chosen)
    if plan.study.choose is not None:
        console.print(chosen.describe(plan.study.choose.condition), highlight=False)
    stages = plan.comparing(chosen.keys)
    try:
        finished = run_stages(plan.out, stages, jobs, gpus=gpus, until=until)
    finally:  # also if the study is interrupted
        for path in keep_finished(plan, chosen):
            console.print(f"Kept: {path}", highlight=False, markup=False)
    if not finished:
        return 1
    _report(plan, chosen)
    left = unfinished(plan.out, stages)
    return _out_of_time(left) if left else 0


def _report(plan: Plan, chosen: Chosen) -> None:
    """Write the report on those seeds with which every condition is finished."""
    seeds = tuple(
        seed
        for seed in plan.study.seeds
        if not unfinished(
            plan.out,
            [s for one in plan.study.conditions for s in plan.run_stages(one, seed, chosen.keys)],
        )
    )
    if not seeds:
        return
    missing = [seed for seed in plan.study.seeds if seed not in seeds]
    plan = replace(plan, study=plan.study.model_copy(update={"seeds": seeds}))
    figures = read_figures(plan)
    compared = compare_label_first(plan, figures)
    written = write_report(plan, chosen, figures, compared, missing)
    print_report(compared.comparison)
    for path in written:
        console.print(f"Written: {path}", highlight=False, markup=False)


def _out_of_time(left: list[Stage]) -> int:
    console.print(
        f"The time limit ended the study: {len(left)} stages are left, beginning with "
        f"{left[0].name}. The same command continues from there.",
        highlight=False,
    )
    return OUT_OF_TIME


def _check_base(base: str) -> None:
    """Check that the base model is available before any stage needs it.

    Raises:
        UserError: It is neither a model folder nor in the Hub's cache.
    """
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError):
        raise UserError(
            f"there is no model {base!r}, neither as a folder (relative to the current one) nor in "
            f"the Hub's cache; `regreason base smollm2 --out {base}` writes a small model, and "
            f"`hf download {base}` fetches a model from the Hub",
            field="base",
        ) from None


def _gpus() -> tuple[int, ...]:
    import torch

    return tuple(range(torch.cuda.device_count()))


def _left(plan: Plan, chosen: Chosen | None) -> bool:
    """Whether the study still has trainings to run."""
    stages = plan.choosing() if chosen is None else plan.comparing(chosen.keys)
    return any(stage.kind in ("choose", "train") for stage in unfinished(plan.out, stages))


def _describe(study: StudyFile) -> str:
    """The size of the study in a sentence."""
    conditions, seeds = len(study.conditions), len(study.seeds)
    first = (
        f", after {len(study.choose.candidates())} trainings to choose keys" if study.choose else ""
    )
    return (
        f"{study.title}: {conditions} conditions x {seeds} seeds = {conditions * seeds} "
        f"trainings{first}; files go to {study.out}"
    )
