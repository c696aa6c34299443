"""`regreason study`: the paper's question at small scale, with several seeds, on a CPU.

The mini benchmark, the tiny base, a LoRA a condition and seed. Learning rate and number of epochs
are chosen once, on validation, for ``label_only`` with a seed of its own, and then used for all.
"""

from __future__ import annotations

from pathlib import Path

from regreason_plugin.core.stages import console, run_stages
from regreason_plugin.demo import check_surroundings, default_jobs
from regreason_plugin.study.condition_scores import compare_label_first, read_figures
from regreason_plugin.study.hyperparameters import choose
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.report import print_report, write_report


def run_study(out: Path, seeds: int = 5, per_dataset: int = 200, jobs: int | None = None) -> int:
    """Run or finish the study.

    Args:
        out: Everything is written below it.
        seeds: Trainings a condition.
        per_dataset: Conversations a dataset.
        jobs: Stages at once; default one a core, at most four.

    Returns:
        0, or 1 when a command failed.

    Raises:
        UserError: Not in a checkout, or Axolotl is not installed.
    """
    check_surroundings("study")
    plan = Plan(out, tuple(range(1, seeds + 1)), per_dataset)
    return run_plan(plan, jobs or default_jobs())


def run_plan(plan: Plan, jobs: int) -> int:
    """Run or finish a plan, so many stages at once; the code is that of `run_study`."""
    console.print(plan.describe(), highlight=False)
    if not run_stages(plan.out, plan.choosing(), jobs):
        return 1
    choice = choose(plan)
    console.print(choice.describe(), highlight=False)
    if not run_stages(plan.out, plan.choosing() + plan.training(choice), jobs):
        return 1
    figures = read_figures(plan)
    compared = compare_label_first(plan, figures)
    written = write_report(plan, choice, figures, compared)
    print_report(compared.comparison)
    for path in written:
        console.print(f"Written: {path}", highlight=False, markup=False)
    return 0
