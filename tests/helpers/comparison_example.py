"""A comparison with every field filled with random numbers, for the tests of rendering."""

from __future__ import annotations

from typing import Any

import numpy as np

from regreason_plugin.comparison import comparison as form
from regreason_plugin.comparison.disagreements import Disagreement
from regreason_plugin.core.paper import EIGHTEEN, SETTINGS, task_name
from regreason_plugin.metrics import metric_names

ARMS = ["explanation", "shuffled", "bag_of_words", "filler"]
# Without the area under the ROC curve, which exists for two labels only.
METRICS = [
    name
    for name in metric_names.METRICS
    if name not in ("auroc", *metric_names.CALIBRATED_METRICS) and "forced" not in name
]
HOSTILE = [
    "<script>alert(1)</script>",
    "</textarea></script><img src=x onerror=alert(2)>",
    "[a link](javascript:alert(3))",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    r"\input{/etc/passwd} 100 % _of_ $x$ & #1 {~^\\}",
    "=cmd|' /C calc'!A0",
    "+1 -1 @SUM(A1)",
    "Ünïcode, 中文, العربية, 🙂",
]


def example(arms: list[str] | None = None, seeds: int = 3, **changes: Any) -> form.Comparison:
    """A comparison over eighteen settings, with differences around 0.02."""
    random = np.random.default_rng(0)
    arms = ARMS if arms is None else arms
    everyone = ["label_only", *arms]
    tasks = [task_name(*setting) for setting in SETTINGS]

    def score() -> form.Score:
        values = random.uniform(0.4, 0.7, seeds)
        mean = float(values.mean())
        return form.Score(
            value=mean,
            low=mean - 0.04,
            high=mean + 0.04,
            by_seed=values.tolist(),
            seed_sd=float(values.std(ddof=1)) if seeds > 1 else None,
        )

    def difference(width: float = 0.05) -> form.Difference:
        value = float(random.normal(0.02, width / 2))
        # Drawn independently of the interval, so that a word derived from the interval is detected.
        finding: form.Finding = "unclear"
        if abs(value) > 0.4 * width:
            finding = "higher" if value > 0 else "lower"
        elif abs(value) < 0.05 * width:
            finding = "same"
        found = finding in ("higher", "lower")
        return form.Difference(
            value=value,
            low=value - width,
            high=value + width,
            se=width / 2,
            df_seeds=12.0,
            df_groups=80.0,
            p=0.002 if found else 0.2,
            p_corrected=0.02 if found else 1.0,
            finding=finding,
            effect=2 * value,
            over="seeds and groups" if seeds >= 3 else "groups",
        )

    def interval(value: float) -> form.Interval:
        return form.Interval(value=value, low=value - 0.05, high=value + 0.05)

    def layers(level: float) -> list[form.Interval]:
        return [
            form.Interval(value=v, low=v - 0.02, high=v + 0.02)
            for v in level - 0.05 * np.abs(np.arange(7) - 3) / 3
        ]

    def bins() -> list[form.Bin]:
        made = []
        for number in range(15):
            low, high = number / 15, (number + 1) / 15
            known = number >= 3
            middle = (low + high) / 2
            made.append(
                form.Bin(
                    low=low,
                    high=high,
                    count=40 * number if known else 0,
                    confidence=middle if known else None,
                    accuracy=middle * 0.9 if known else None,
                    band_low=middle * 0.95 if known else None,
                    band_high=middle * 1.02 if known else None,
                )
            )
        return made

    pooled = {arm: {name: difference(0.02) for name in METRICS} for arm in arms}
    for arm in arms[:1]:
        found = {"value": 0.034, "low": 0.011, "high": 0.057, "p": 0.004, "p_corrected": 0.004}
        same = {"p_same": 0.98, "p_same_corrected": 0.98, "finding": "higher"}
        pooled[arm]["acc"] = pooled[arm]["acc"].model_copy(update={**found, **same})
    fields: dict[str, Any] = {
        "regreason": "0.1.0",
        "versions": {"numpy": "2.3.5", "scipy": "1.17.1"},
        "command": "regreason compare runs --baseline label_only --out out",
        "data": {"origin": "generated", "sha256": "ab" * 32, "order": "label_first"},
        "protocol": "label_first",
        "baseline": "label_only",
        "arms": arms,
        "seeds": {arm: list(range(1, seeds + 1)) for arm in everyone},
        "level": form.LEVEL,
        "power": form.POWER,
        "primary": form.Primary(arm=arms[0], metric="acc", rejects=True) if arms else None,
        "margin": 0.01,
        "family": 123,
        "effective_groups": 90.0,
        "metrics": METRICS,
        "left_out": {},
        "settings": [
            form.Setting(
                task=task,
                dataset=dataset,
                axis=axis,
                title=EIGHTEEN.datasets[dataset].title,
                axis_title=EIGHTEEN.axes[axis].title,
                documents=200,
                groups=100,
                effective_groups=100.0,
                majority_acc=0.3,
                labels=[40] * 5,
                label_names=list(EIGHTEEN.labels),
                ordinal=True,
            )
            for task, (dataset, axis) in zip(tasks, SETTINGS, strict=True)
        ],
        "settings_in_paper": len(SETTINGS),
        "scores": {
            arm: {task: {name: score() for name in METRICS} for task in tasks} for arm in everyone
        },
        "differences": {
            arm: {task: {name: difference() for name in METRICS} for task in tasks} for arm in arms
        },
        "pooled_scores": {arm: {name: score() for name in METRICS} for arm in everyone},
        "pooled": pooled,
        "contrasts": [
            form.Contrast(
                arm=arm, minus=minus, differences={name: difference(0.02) for name in METRICS}
            )
            for place, minus in enumerate(arms)
            for arm in arms[place + 1 :]
        ],
        "detectable": {arm: form.Detectable(value=0.028, low=0.02, high=0.045) for arm in arms},
        "wins": {arm: form.Wins(wins=12, ties=2, losses=4, of=18) for arm in arms},
        "needed": {arm: form.Needed(difference=0.02, groups=900, seeds=None) for arm in arms},
        "gap_of": "explanation" if "explanation" in arms else None,
        "gap": {
            arm: form.Gap(value=0.6, kind=kind, low=0.2, high=1.3)
            for arm, kind in zip(
                (arm for arm in arms if arm != "explanation"),
                ("between", "outside", "everything"),
                strict=False,
            )
        },
        "generalisation": {
            arm: form.GeneralisationGap(
                train=interval(0.6 - 0.1 * place),
                test=interval(1.1),
                gap=interval(0.5 + 0.1 * place),
                difference=interval(0.1 * place) if place else None,
                train_documents=900,
                test_documents=3600,
                over="seeds and groups" if seeds >= 3 else "groups",
            )
            for place, arm in enumerate(everyone)
        },
        "layers": {
            name: {arm: layers(0.9 + 0.01 * place) for place, arm in enumerate(everyone)}
            for name in ("activation_entropy", "matrix_entropy", "logit_lens_entropy")
        },
        "reliability": {arm: bins() for arm in everyone},
        "confusion": {
            arm: {"all": [[90 if i == j else 10 * abs(i - j) for j in range(5)] for i in range(5)]}
            for arm in everyone
        },
        "classes": {
            arm: {
                task: [
                    form.Label(label=label, support=40, precision=0.6, recall=0.5, f1=0.55)
                    for label in EIGHTEEN.labels
                ]
                for task in tasks
            }
            for arm in everyone
        },
        "curves": {
            arm: [
                form.Curve(
                    seed=seed,
                    tokens=[1000 * step for step in range(1, 8)],
                    accuracy=[0.2 + 0.05 * step + 0.01 * seed for step in range(1, 8)],
                )
                for seed in range(1, seeds + 1)
            ]
            for arm in everyone
        },
        "costs": {
            arm: form.Cost(
                training_seconds=100.0 + place,
                training_tokens=1_000_000.0 * (1 + place),
                scoring_ms=1.25,
                peak_memory_mib=1536.0,
                peak_gpu_mib=None,
                machines=["Linux x86_64, 2 of 2 cores"],
            )
            for place, arm in enumerate(everyone)
        },
        "answers": [
            form.Answer(
                question="Does the explanation help?",
                short="no difference shown",
                sentences=[
                    "Accuracy differs by +0.020 (-0.010 to +0.050).",
                    "One seed proves little.",
                ],
            ),
            form.Answer(
                question="How much of it does each pseudo-explanation keep?",
                short="cannot be said",
                sentences=["`shuffled`: 0.60 of it, exploratory, 95 % interval 0.20 to 1.30."],
            ),
            form.Answer(
                question="Is the entropy of the middle layers higher, and the output sharper?",
                short="higher; not sharper",
                sentences=[
                    "It is higher by the primary definition.",
                    "The output's entropy is higher.",
                ],
            ),
        ],
        "notes": ["GENERATED data: conversations and labels were made by rules."],
        "runs": [
            form.RunRecord(
                arm=arm,
                seed=seed,
                model=f"runs/{arm}-seed{seed}",
                model_args=f"pretrained=base,peft=runs/{arm}-seed{seed}",
                results=["results_2026-01-01T00-00-00.json"],
                environment={"lm_eval_version": "0.4.11", "transformers_version": "5.16.1"},
                evaluation={"random_seed": 0, "limit": None},
                training={"arm": arm, "seed": seed, "steps": 100},
            )
            for arm in everyone
            for seed in range(1, seeds + 1)
        ],
    }
    return form.Comparison(**{**fields, **changes})


def disagreements(count: int = 40, arms: list[str] | None = None) -> list[Disagreement]:
    """Disagreements about conversations, some of which have hostile texts."""
    random = np.random.default_rng(1)
    everyone = ["label_only", *(ARMS if arms is None else arms)]
    made = []
    for number in range(count):
        dataset, axis = SETTINGS[number % len(SETTINGS)]
        probabilities = {arm: random.dirichlet(np.ones(5)).tolist() for arm in everyone}
        text = HOSTILE[number % len(HOSTILE)]
        made.append(
            Disagreement(
                task=task_name(dataset, axis),
                id=f"{dataset}-{number}",
                label=number % 5 + 1,
                prompt=f"User: {text}\nAssistant: Yes, {text}\n\nHow natural is it?\nAssessment:",
                explanation=f"Because {text}",
                predictions={arm: int(np.argmax(p)) + 1 for arm, p in probabilities.items()},
                probabilities=probabilities,
            )
        )
    return made
