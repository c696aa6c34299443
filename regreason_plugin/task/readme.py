"""The words of the README that `regreason task new` writes."""

from __future__ import annotations

import shlex

from regreason_plugin.core import markdown
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.task.plan import NewTask


def readme_words(new: NewTask) -> dict[str, str]:
    """What the README says of this task: its data, and the commands to type next."""
    task, name, dest = new.task, new.task.name, new.dest.as_posix()

    def evaluation(results: str, adapter: dict[str, str]) -> str:
        command = LmEvalCommand(
            program=("lm_eval",),
            model="hf",
            model_args={"pretrained": new.base, **adapter},
            tasks=[name],
            include_path=dest,
            output_path=f"runs/{name}/results/{results}",
        )
        return command.line(variable="arm", width=90)

    if new.explained:
        body = evaluation("$arm", {"peft": f"runs/{name}/models/$arm"})
        scoring = f"for arm in {' '.join(new.arms)}; do\n{_indented(body, 2)}\ndone"
        results, baseline = new.arms, "label_only"
    else:  # one arm: what it gains on the untrained model
        scoring = "\n".join(
            (
                evaluation("base", {}),
                evaluation("label_only", {"peft": f"runs/{name}/models/label_only"}),
            )
        )
        results, baseline = ("base", "label_only"), "base"
    runs = " \\\n  ".join(f"{arm}=runs/{name}/results/{arm}" for arm in results)
    best = shlex.quote(f"pretrained={new.base},peft=runs/{name}/models/{new.main_arm}")
    steps = (
        (
            "Make the data folder: split, and a file an arm.",
            f"regreason build {dest}/task.yml --out runs/{name}/data",
        ),
        (
            "Train an adapter for each arm.",
            f"axolotl train {dest}/{name}.lora.yml --sweep {dest}/arms.yml",
        ),
        ("Score the test texts.", scoring),
        (
            "Compare, with confidence intervals, as a page and tables.",
            f"regreason compare {runs} \\\n  --baseline {baseline} --out runs/{name}",
        ),
        (
            "Label new rows: a file with the same text column.",
            f"regreason predict NEW.csv --task {dest}/task.yml \\\n  --model_args {best} "
            f"\\\n  --out runs/{name}/predicted.jsonl",
        ),
    )
    number = len(task.labels)
    scale = "a scale, low to high" if task.ordinal else "names without an order"
    explained = (
        f"{'All' if new.explained == new.rows else f'{new.explained} of the'} {new.rows} texts "
        "come with an explanation, from the column "
        f"{markdown.code(task.columns.explanation)}. The arm `explanation` learns to write it "
        "after the label, `shuffled` the same words in another order, `label_only` the label alone."
        if new.explained
        else "The texts have no explanations, so there is one arm, `label_only`. If somebody wrote "
        "them down, add their column to the table and name it under `columns` in `task.yml`; or "
        "let language models write them for the labels that are given, after a look at the config "
        "that the first command copies:\n\n"
        + markdown.block(
            "regreason fetch prompts --out annotation\n"
            f"regreason explain {dest}/task.yml annotation/explain.yml \\\n"
            f"  --out {dest}/explained.jsonl --task-out {dest}/explained.yml",
            "sh",
        )
        + f"\n\nThen build from `{dest}/explained.yml`, and write `regreason_arm: [label_only, "
        "explanation, shuffled]` into `arms.yml`."
    )
    table = task.data.path.name if task.data.path else task.data.hub
    return {
        "title_md": markdown.escape(task.title),
        "about": f"A task of one's own for RegReason: {new.rows} texts of {markdown.code(table)}, "
        f"{number} labels, {scale}.",
        "commands": "\n\n".join(
            f"{place}. {what}\n\n" + _indented(markdown.block(command, "sh"), 3)
            for place, (what, command) in enumerate(steps, start=1)
        ),
        "explanations": explained,
    }


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line if line else "" for line in text.split("\n"))
