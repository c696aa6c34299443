"""`regreason-hf` replaces `hf` for any task, any kind of request and any batch size."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from helpers.label_requests import requests
from helpers.model_zoo import random_model, tokenizer
from helpers.scoring import PlainScorer, evaluate
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.model import RegReasonHF
from regreason_plugin.evaluate.probe_metrics import Scored

pytestmark = pytest.mark.integration

GENERATIVE = "regreason-gen_coqa_on_topic"


def both(model: Path, **arguments: Any) -> tuple[HFLM, RegReasonHF]:
    given = {"device": "cpu", "batch_size": 4, **arguments}
    return HFLM(str(model), **given), RegReasonHF(str(model), **given)


def score(lm: HFLM, asked: list[Any]) -> list[Any]:
    return lm._loglikelihood_tokens(asked, disable_tqdm=True)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=number)  # type: ignore[arg-type]
        for number, args in enumerate(arguments)
    ]


def assert_close(found: list[Any], expected: list[Any]) -> None:
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-4)
    assert [one[1] for one in found] == [one[1] for one in expected]


# --- batches, order, neighbours -----------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 64, "auto"])
def test_scores_and_probes_know_no_batches(batch_size: Any) -> None:
    model, asked = random_model("gemma3, window shorter"), requests(3)
    alone = {}
    for one in asked:
        lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=1, probe="output+matrix")
        alone[one[0]] = score(lm, [one])[0]
    random.Random(batch_size).shuffle(asked)
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=batch_size, probe="output+matrix")
    found = score(lm, asked)
    assert_close(found, [alone[one[0]] for one in asked])
    for one, answer in zip(asked, found, strict=True):
        # (These labels differ in the first token, so the deciding position is the same alone.)
        for name in ("output_entropy", "matrix_entropy_by_layer"):
            expected = alone[one[0]].probe[name]
            assert answer.probe[name] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_nothing_asked_nothing_answered(tiny_model: Path) -> None:
    _, lm = both(tiny_model)
    assert lm.loglikelihood([]) == []
    assert score(lm, []) == []


def test_auto_holds_its_budget_of_tokens() -> None:
    model = random_model("llama")
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size="auto", max_batch_size=None)
    lm.scorer.batch_tokens = 120
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    score(lm, requests())
    widths = [rows * length for rows, length in seen if rows > 1]
    assert widths
    assert max(widths) <= 120


# --- requests of any kind -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [("", " natural"), ("", "User: x"), ("", "<s> again")],  # without context
        [("The last message", " natural"), ("The last message", " natural to me")],  # a prefix
        [("How natural", label) for label in (" very good", " very bad", " good", " bad")],
        [("a", "b"), ("c", "d"), ("e f g h i j", "k l m")],  # no shared prefix
        [("spaces at the end   ", "moved"), ("the same", " the same"), ("the same", " the same")],
        [("x" * 3000, " yes"), ("x" * 3000, " no"), ("y" * 100, " yes")],  # cut from the left
        [("z" * 2045, "word" * 5), ("z" * 2045, "word" * 3)],  # cut, each at another token
    ],
)
def test_loglikelihoods_of_any_request(
    tiny_model: Path, arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once one of our tasks is loaded, prompts that would be cut are refused. Undo that here.
    monkeypatch.setattr(logging.getLogger("lm_eval.models.huggingface"), "filters", [])
    hf, lm = both(tiny_model)
    expected = hf.loglikelihood(instances("loglikelihood", arguments), disable_tqdm=True)
    found = lm.loglikelihood(instances("loglikelihood", arguments), disable_tqdm=True)
    assert_close(found, expected)
    assert all(isinstance(one, Scored) and one.probe["output_entropy"] > 0 for one in found)


def test_rolling_likelihoods_and_generation_are_hfs(tiny_model: Path) -> None:
    hf, lm = both(tiny_model)
    texts = [("On and on it goes, " * 300,), ("Short.",), ("",)]
    rolling = [
        model.loglikelihood_rolling(instances("loglikelihood_rolling", texts)) for model in (hf, lm)
    ]
    assert rolling[1] == pytest.approx(rolling[0], rel=1e-5)
    assert abs(rolling[0][0]) > 1000
    prompts = [(text, {"max_gen_toks": 7, "until": ["\n"]}) for text in ("User:", "How natural is")]
    written = [model.generate_until(instances("generate_until", prompts)) for model in (hf, lm)]
    assert written[0] == written[1]
    assert any(written[0])


ARC = """
task: local_arc
dataset_path: json
dataset_kwargs: {data_files: {test: FILE, train: FILE}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_fewshot": 2},
        {"apply_chat_template": True},
        {"num_fewshot": 2, "apply_chat_template": True, "fewshot_as_multiturn": True},
    ],
)
def test_an_arc_style_task(tiny_model: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    words = [
        "river",
        "hill",
        "north",
        "message",
        "answer",
        "rating",
        "natural",
        "topic",
        "word",
        "sea",
    ]
    rng = random.Random(0)
    rows = [
        {
            "question": f"Where is the {rng.choice(words)} of {rng.choice(words)}?",
            "choices": {
                "label": list("ABCD"),
                "text": [" ".join(rng.choices(words, k=rng.randrange(1, 5))) for _ in range(4)],
            },
            "answerKey": rng.choice("ABCD"),
        }
        for _ in range(12)
    ]
    file = tmp_path / "arc.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "local_arc.yaml").write_text(ARC.replace("FILE", str(file)))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    expected, found = (
        simple_evaluate(model=lm, tasks=["local_arc"], task_manager=manager, **how)
        for lm in both(tiny_model)
    )
    assert found is not None
    assert expected is not None
    assert found["results"] == expected["results"]
    pairs = list(zip(found["samples"]["local_arc"], expected["samples"]["local_arc"], strict=True))
    assert len(pairs) == 12
    for ours, theirs in pairs:
        assert ours["arguments"] == theirs["arguments"]
        assert_close(ours["filtered_resps"], theirs["filtered_resps"])


# --- our own tasks ---------------------------------------------------------------------------


def test_our_tasks_have_hfs_figures_and_the_probes(
    tiny_model: Path, data_folder: DataFolder
) -> None:
    tasks = ["regreason-coqa", "regreason_cornell_naturalness"]
    hf, lm = both(tiny_model)
    expected, found = (evaluate(one, tasks, data_folder.path, limit=6) for one in (hf, lm))
    for task, values in expected["results"].items():
        for key, value in values.items():
            close = pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
            assert found["results"][task][key] == close, (task, key)
    results = found["results"]["regreason_coqa_on_topic"]
    assert results["documents_without_probe,none"] == 0
    assert results["probe_values_undefined,none"] == 0
    samples = found["samples"]["regreason_coqa_on_topic"]
    layers = [sample["logit_lens_entropy_by_layer"] for sample in samples]
    assert list(results["logit_lens_entropy_by_layer,none"]) == pytest.approx(
        [sum(column) / 6 for column in zip(*layers, strict=True)]
    )
    assert results["output_entropy,none"] == pytest.approx(
        results["logit_lens_entropy_by_layer,none"][-1], rel=1e-5
    )
    assert "matrix_entropy_mid,none" not in results  # this probe must be requested by name
    # The model read each conversation only once for its three axes.
    assert lm.scorer.packs
    prompts = [
        len(lm.tok_encode(sample["arguments"][0][0]))
        for name in found["samples"]
        if "coqa" in name
        for sample in found["samples"][name]
    ]
    assert lm.scorer.tokens_read < 0.7 * sum(prompts) + 6 * max(prompts)


def test_without_probes_results_are_those_of_hf(tiny_model: Path, data_folder: DataFolder) -> None:
    hf, lm = both(tiny_model)[0], RegReasonHF(str(tiny_model), device="cpu", probe="none")
    expected, found = (
        evaluate(one, ["regreason_coqa_on_topic"], data_folder.path, limit=4) for one in (hf, lm)
    )
    task = "regreason_coqa_on_topic"
    assert found["results"][task].keys() == expected["results"][task].keys()
    assert found["samples"][task][0].keys() == expected["samples"][task][0].keys()


def test_explanations_first_at_both_protocols(
    tiny_model: Path, explanation_first_folder: DataFolder
) -> None:
    hf = HFLM(str(tiny_model), device="cpu", batch_size=4)
    lm = RegReasonHF(str(tiny_model), device="cpu", batch_size=4, probe="all")
    arguments = {"limit": 4, "gen_kwargs": "max_gen_toks=12"}
    expected, found = (
        evaluate(one, [GENERATIVE], explanation_first_folder.path, **arguments) for one in (hf, lm)
    )
    theirs, ours = (one["results"][GENERATIVE] for one in (expected, found))
    for key in ("acc", "nll", "forced_nll", "reached_cue"):
        assert ours[f"{key},none"] == pytest.approx(theirs[f"{key},none"], abs=1e-4)
    for prefix in ("", "forced_"):
        assert ours[f"{prefix}documents_without_probe,none"] == 0
        assert len(ours[f"{prefix}matrix_entropy_by_layer,none"]) == 3
    # The positions differ, after an explanation and without one, and so do the entropies.
    assert ours["output_entropy,none"] != pytest.approx(
        ours["forced_output_entropy,none"], abs=1e-3
    )
    scorer = PlainScorer(tiny_model)
    sample = found["samples"][GENERATIVE][0]
    for prefix, place in (("", 1), ("forced_", 6)):
        context, label = sample["arguments"][place]
        assert sample[f"{prefix}output_entropy"] == pytest.approx(
            entropy_before(scorer, context + label), rel=1e-4
        )


def entropy_before(scorer: PlainScorer, text: str) -> float:
    """Entropy of the model's next-token distribution before the last token of a text."""
    import torch
    from scipy.stats import entropy

    ids = scorer.tokenizer(text).input_ids
    with torch.no_grad():
        logits = scorer.model(torch.tensor([ids[:-1]])).logits[0, -1].double()
    return float(entropy(torch.softmax(logits, dim=-1).numpy()))


def test_a_prompt_that_does_not_fit_ends_the_run(
    tiny_model: Path, data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = RegReasonHF(str(tiny_model), device="cpu", max_length=64)
    with pytest.raises(SystemExit) as end:
        evaluate(lm, ["regreason_coqa_on_topic"], data_folder.path, limit=2)
    assert end.value.code == 2
    assert "do not fit the model's window of 64" in capsys.readouterr().err


def test_a_cache_keeps_the_probes(
    tiny_model: Path, data_folder: DataFolder, tmp_path: Path
) -> None:
    task = "regreason_coqa_on_topic"
    found = []
    for _ in range(2):
        lm = RegReasonHF(str(tiny_model), device="cpu", batch_size=4)
        found.append(
            evaluate(lm, [task], data_folder.path, limit=3, use_cache=str(tmp_path / "cache"))
        )
    assert lm.scorer.tokens_read == 0  # all answers come from the cache
    assert found[0]["results"][task] == found[1]["results"][task]
    assert found[1]["results"][task]["documents_without_probe,none"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"probe": "activations"}, "'activation'"),
        ({"renyi_alpha": 0}, "renyi_alpha=0 is not a number above 0"),
        ({"renyi_alpha": "two"}, "renyi_alpha=two is not a number above 0"),
    ],
)
def test_a_mistake_in_the_arguments(
    tiny_model: Path, arguments: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        RegReasonHF(str(tiny_model), device="cpu", **arguments)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_renyi_alpha_is_a_switch(tiny_model: Path) -> None:
    asked = instances("loglikelihood", [("User: Where does the river rise?", " 3")])
    values = {}
    for alpha in (1, 2, 1.02):
        lm = RegReasonHF(str(tiny_model), device="cpu", probe="matrix", renyi_alpha=alpha)
        values[alpha] = lm.loglikelihood(asked)[0].probe["matrix_entropy_by_layer"]
    assert values[1] == pytest.approx(values[1.02], rel=1e-2)
    assert all(two < one for one, two in zip(values[1], values[2], strict=True))


def test_auto_generates_in_batches_that_fit_a_cpu(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = RegReasonHF(str(tiny_model), device="cpu", batch_size="auto", probe="none")
    rows: list[int] = []
    forward = lm.model.forward

    def counted(*args: Any, **given: Any) -> Any:
        rows.append(len(given["input_ids"]))
        return forward(*args, **given)

    monkeypatch.setattr(lm.model, "forward", counted)
    asked = [
        Instance("generate_until", {}, (f"prompt {number}", {"max_gen_toks": 2, "until": []}), 0)
        for number in range(20)
    ]
    assert len(lm.generate_until(asked, disable_tqdm=True)) == 20
    assert max(rows) == 16
