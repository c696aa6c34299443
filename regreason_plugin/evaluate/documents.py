"""The rows of a data folder as lm-eval documents, and the functions that task files name.

Every ``doc_to_...`` is a function, so no text of a document is ever rendered as a template.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.samplers import ContextSampler

from regreason_plugin.core.declaration import Declaration, Setting
from regreason_plugin.core.errors import UserError, say_once, stop_on_user_error
from regreason_plugin.core.model_use import prompt_hashes
from regreason_plugin.core.prompt import Order, render_target
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.data_folder.folder import (
    TEST,
    DataFolder,
    open_data_folder,
)
from regreason_plugin.data_folder.mini import mini_data_folder
from regreason_plugin.data_folder.split import group_sort_key
from regreason_plugin.metrics.label_metrics import comparable, document_metrics

Document = dict[str, Any]

ENVIRONMENT = "REGREASON_DATA"
# Few-shot examples come from a train file whose rows have what the examples show.
FEWSHOT_FILES: dict[Order, str] = {
    "label_first": "train/label_only.jsonl",
    "explanation_first": "train/explanation.jsonl",
}
# Metadata keys that a user may have typed instead of data_dir; misspellings of data_dir are
# recognised by similarity. Model arguments arrive among the same keys and must pass.
_MISNAMED = {"data", "dataset", "datadirectory", "datafolder", "datapath", "folder", "dir"}


@dataclass(frozen=True)
class TrainDocuments:
    """The source of a setting's few-shot examples; it is read only when examples are drawn."""

    folder: DataFolder
    order: Order
    setting: Setting

    def read(self) -> list[Document]:
        """All train documents of the setting."""
        return _documents(self.folder, FEWSHOT_FILES[self.order]).get(self.setting, [])


class TrainSampler(ContextSampler):  # type: ignore[misc]
    """lm-eval's default sampler, except that a zero-shot run never reads the train file.

    Attributes:
        scored_group: The group of the scored document, if that is a train document; no example is
            drawn from this group. None for a document of another split, which shares no group
            with the train rows.
    """

    scored_group: str | None = None

    @stop_on_user_error()
    def sample(self, n: int, eval_doc: Document | None = None, **_: Any) -> list[Document]:
        """Draw n examples, with the seed that --seed sets."""
        (source,) = self.df
        documents = source.read()
        if self.scored_group is not None:
            documents = [one for one in documents if one["group"] != self.scored_group]
        if n > len(documents):
            raise UserError(
                f"--num_fewshot {n} asks for more examples than the {len(documents)} that "
                f"{FEWSHOT_FILES[source.order]} has for {' '.join(source.setting)}",
                path=source.folder.path,
            )
        return list(self.rnd.sample(documents, n))


@stop_on_user_error()
def label_first_documents(**kwargs: Any) -> dict[str, Any]:
    """The ``custom_dataset`` of the 18 tasks; see `_load`."""
    return _load("label_first", **kwargs)


@stop_on_user_error()
def explanation_first_documents(**kwargs: Any) -> dict[str, Any]:
    """The ``custom_dataset`` of the generative twins; see `_load`."""
    return _load("explanation_first", **kwargs)


def _load(
    order: Order,
    *,
    setting: list[str],
    data: dict[str, Any],
    data_dir: object = None,
    default_data_dir: str | None = None,
    split: object = "test",
    **others: Any,
) -> dict[str, Any]:
    """Load the documents of one setting, and describe the task in its metadata.

    The data folder's own order of label and explanation is recorded but not checked: the test
    prompts are the same in both orders, and only the user knows which order suits the model.

    Args:
        order: Whether the model writes the label or the explanation first.
        setting: Dataset and axis, from the task file.
        data: The dict under the key ``data`` in the task's metadata. lm-eval writes the metadata
            into the results, so the description put in here accompanies every number.
        data_dir: The data folder, from --metadata.
        default_data_dir: The data folder that a user's own task file names.
        split: The split whose rows are scored, from --metadata.
        others: The rest of the metadata and all model arguments.

    Raises:
        UserError: The folder is missing, broken, misnamed, or lacks the setting; the split is
            unknown; or a generative twin is to score another split than the test rows.
    """
    scored = _split(split, order)
    if data != {}:
        raise UserError(
            f"the tasks know no key 'data' in --metadata; name the data folder {data_dir_example()}"
        )
    for key in others:
        _check_key(key)
    if others.get("truncation") in (True, "True"):
        raise UserError("truncation=True in --model_args cuts prompts silently; leave it out")
    folder = _folder(default_data_dir if data_dir is None else data_dir)
    for note in folder.absence_notes(scored):
        say_once(f"{folder.path}: {note}")
    dataset, axis = setting
    if (dataset, axis) not in folder.settings():
        has = folder.declaration.task_names(
            folder.settings(), generative=order == "explanation_first"
        )
        raise UserError(
            f"has no test rows for {dataset} {axis}; it has test rows for --tasks {','.join(has)}",
            path=folder.path,
        )
    data.update(
        folder=folder.path.resolve().name,
        origin=folder.origin,
        sha256=folder.sha256,
        order=folder.order,
        raters=folder.manifest.raters,
        regreason=version("regreason"),
        split=scored,
        **_about(folder.declaration, dataset, axis),
    )
    return {
        "test": datasets.Dataset.from_list(_scored_documents(folder, scored, (dataset, axis))),
        "train": [TrainDocuments(folder, order, (dataset, axis))],
    }


def _split(split: object, order: Order) -> Split:
    """The split whose rows are scored.

    Raises:
        UserError: There is no such split, or a generative twin is to score another split than
            the test rows.
    """
    scored = next((name for name in SPLITS if name == split), None)
    if scored is None:
        raise UserError(f"split in --metadata is {split!r}; write one of {', '.join(SPLITS)}")
    if scored != "test" and order == "explanation_first":
        raise UserError(
            f"split in --metadata is {scored!r}, but the tasks for models that explain first "
            "score test rows only; leave split out"
        )
    return scored


def _scored_documents(folder: DataFolder, split: Split, setting: Setting) -> list[Document]:
    """The rows of a setting that are scored.

    Test rows keep the order of their file: by id. Rows of another split are sorted group by
    group, in an order that depends only on the groups' names and the data folder's seed. So
    ``--limit N`` takes whole groups at random, of which the last may be cut. A row has the same
    prompt and label in the files of all arms, so any arm's file will do.

    Raises:
        UserError: The split has no row of the setting.
    """
    if split == "test":
        return _documents(folder, TEST)[setting]
    arms = folder.manifest.arms
    name = f"{split}/{'label_only' if 'label_only' in arms else arms[0]}.jsonl"
    documents = _documents(folder, name).get(setting)
    if not documents:
        raise UserError(f"has no {split} rows for {' '.join(setting)}", path=folder.path / name)
    # (The sort is stable: rows of one group keep their order.)
    return sorted(documents, key=lambda row: group_sort_key(row["group"], folder.manifest.seed))


def _about(declared: Declaration, dataset: str, axis: str) -> dict[str, Any]:
    """The description of a task that goes into its results."""
    return {
        "setting": [dataset, axis],
        "title": declared.datasets[dataset].title,
        "axis_title": declared.axes[axis].title,
        "labels": list(declared.labels),
        "label_end": declared.label_end,
        "ordinal": declared.ordinal,
        "normalise": declared.normalise,
        "prompt_sha256": prompt_hashes(declared)[axis],
    }


def data_dir_example() -> str:
    """The flag that names a data folder, for messages."""
    return """with --metadata '{"data_dir": "DATA"}'"""


def _check_key(key: str) -> None:
    plain = "".join(filter(str.isalnum, key.lower()))
    if plain in _MISNAMED or SequenceMatcher(None, plain, "datadir").ratio() >= 0.75:
        raise UserError(
            f"the tasks know no key {key!r} in --metadata; name the data folder "
            f"{data_dir_example()}"
        )


def _folder(data_dir: object) -> DataFolder:
    source = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT)
    if source is None:
        say_once(
            f"no data folder is named ({data_dir_example()}), so these numbers come from the "
            "built-in mini benchmark of generated conversations"
        )
        return mini_data_folder()
    # An empty name comes from a variable that a script forgot to set; it does not ask for the
    # mini benchmark. (lm-eval turns a folder name such as 3 into a number, hence str.)
    if not str(source).strip():
        where = ENVIRONMENT if data_dir is None else "data_dir"
        raise UserError(f"{where} is {source!r}; write the name of a data folder")
    folder = open_data_folder(Path(str(source)))
    if folder.origin == "generated":
        say_once(f"the conversations in {folder.path} are generated")
    return folder


def _documents(folder: DataFolder, name: str) -> dict[Setting, list[Document]]:
    return documents_by_setting(folder.path.resolve(), folder.sha256, name)


@lru_cache(maxsize=3)
def documents_by_setting(path: Path, sha256: str, name: str) -> dict[Setting, list[Document]]:
    """A file's documents by setting, parsed once for all tasks of a run.

    Args:
        path: The data folder.
        sha256: The data folder's hash. It is part of the cache key, so a folder that was rebuilt
            at the same path is read again.
        name: The file's path inside the data folder.
    """
    documents = defaultdict(list)
    folder = open_data_folder(path)
    declared = folder.declaration
    # The labels to choose from and how to score them: the same in every document.
    label_fields: Document = {
        "labels": list(declared.written),
        "ordinal": declared.ordinal,
        "normalise": declared.normalise,
    }
    for row in folder.rows(name):
        documents[row.dataset, row.axis].append(
            {
                "id": row.id,
                "group": row.group,
                "dataset": row.dataset,
                "axis": row.axis,
                "label": row.label,
                "score": row.score,
                "explanation": row.explanation,
                "prompt": row.messages[0].content,
                **label_fields,
            }
        )
    return dict(documents)


def prompt(document: Document) -> str:
    """``doc_to_text``: the prompt."""
    return str(document["prompt"])


def label_index(document: Document) -> int:
    """``doc_to_target`` of the 18 tasks: the label's index among the choices, from 0."""
    return int(document["label"]) - 1


def labels(document: Document) -> list[str]:
    """``doc_to_choice``: the labels' texts."""
    return list(document["labels"])


def explanation_then_label(document: Document) -> str:
    """``doc_to_target`` of the twins: explanation and label, as a few-shot example shows them."""
    label = labels(document)[document["label"] - 1]
    return render_target(label, document["explanation"], "explanation_first")


@stop_on_user_error(of_one_rank=True)
def score_labels(document: Document, results: list[tuple[float, bool]]) -> dict[str, Any]:
    """``process_results`` of the 18 tasks: a document's item for each metric."""
    return label_metrics(document, [score for score, _ in results])


def label_metrics(document: Document, scores: list[float], prefix: str = "") -> dict[str, Any]:
    """A document's item for each metric.

    Args:
        document: The document.
        scores: The labels' log-likelihoods, label 1 first.
        prefix: The beginning of every metric's name.
    """
    return document_metrics(
        document["label"],
        comparable(scores, labels(document), document["normalise"]),
        document["group"],
        prefix,
        ordinal=document["ordinal"],
    )
