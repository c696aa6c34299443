"""Time, memory and page size of `regreason compare` on any tasks of lm_eval.

    python tests/bench/bench_compare_any.py [--tasks N] [--arms N] [--documents N]

By default 60 multiple-choice tasks x 4 arms x 5,000 documents: 1.2 million samples, 4 GB. The
results are random numbers in lm_eval's format; the time to write them is not measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from pathlib import Path

from bench_compare import print_figures

TEXT = "A conversation of some length in which two people talk about this and that. " * 25


def write_arm(folder: Path, tasks: int, documents: int, seed: int) -> None:
    """Write the results of one model: each document has four choices."""
    draw, date = random.Random(seed), "2026-01-31T10-20-30.123456"
    folder.mkdir(parents=True)
    results, configs = {}, {}
    for number in range(tasks):
        task, right = f"task_{number:02d}", 0
        with (folder / f"samples_{task}_{date}.jsonl").open("w", encoding="utf-8") as stream:
            for document in range(documents):
                scores = [draw.gauss(-5, 1) for _ in range(4)]
                gold = document % 4
                acc = float(scores[gold] == max(scores))
                right += acc
                answers = [[str(score), "False"] for score in scores]
                prompt = f"{TEXT}{document}"
                requests = {
                    f"gen_args_{at}": {"arg_0": prompt if at == 0 else "", "arg_1": f" {letter}"}
                    for at, letter in enumerate("ABCD")
                }
                row = {
                    "doc_id": document,
                    "doc": {"question": prompt, "answer": gold},
                    "target": str(gold),
                    "arguments": requests,
                    "resps": [[one] for one in answers],
                    "filtered_resps": answers,
                    "filter": "none",
                    "metrics": ["acc", "acc_norm"],
                    "doc_hash": hashlib.sha256(f"{number} {document}".encode()).hexdigest(),
                    "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
                    "target_hash": hashlib.sha256(str(gold).encode()).hexdigest(),
                    "acc": acc,
                    "acc_norm": acc,
                }
                stream.write(json.dumps(row) + "\n")
        share = right / documents
        results[task] = {"alias": task, "acc,none": share, "acc_norm,none": share}
        configs[task] = {
            "output_type": "multiple_choice",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    count = {"original": documents, "effective": documents}
    content = {
        "results": results,
        "configs": configs,
        "n-samples": dict.fromkeys(results, count),
        "config": {"model_args": {"pretrained": folder.name}, "fewshot_seed": 1234},
        "lm_eval_version": "0.4.13",
    }
    (folder / f"results_{date}.json").write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """Write the results, compare them, and print a line of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--arms", type=int, default=4)
    parser.add_argument("--documents", type=int, default=5_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        arms = [f"arm{seed}" for seed in range(args.arms)]
        for seed, arm in enumerate(arms):
            write_arm(root / arm, args.tasks, args.documents, seed)
        samples = args.tasks * args.arms * args.documents
        print_figures(root, arms, samples, "--primary", arms[1])


if __name__ == "__main__":
    main()
