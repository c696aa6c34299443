"""Class weights: how much more the loss on the label counts for rare classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regreason_plugin.core.errors import UserError, nearest

KEY = "regreason_class_weights"
BALANCED = "balanced"


def check_class_weights(cfg: Mapping[str, Any], config: str) -> None:
    """Refuse class weights of a wrong form, or with a loss that would ignore them.

    Args:
        cfg: The config as written.
        config: Name of the config in an error.

    Raises:
        UserError: See above.
    """
    given = cfg.get(KEY)
    if given is None:
        return
    numbers = given.values() if isinstance(given, Mapping) else ()
    if given != BALANCED and not (
        numbers and all(type(one) in (int, float) and one > 0 for one in numbers)
    ):
        raise UserError(
            f"must be {BALANCED}, or a number above 0 for each label, such as "
            "{urgent: 5, other: 1}",
            path=config,
            field=KEY,
        )
    if cfg.get("regreason_label_share") is None and cfg.get("regreason_loss_mean") != "step":
        raise UserError(
            "needs regreason_loss_mean: step, or regreason_label_share; Axolotl's own loss has no "
            "class weights",
            path=config,
            field=KEY,
        )


def class_weights(
    given: str | Mapping[Any, float], counts: Mapping[int, int], labels: list[str], config: str
) -> dict[int, float]:
    """The weight of each label, with a mean of 1 over the train rows.

    ``balanced`` gives each class the same total weight: n / (k x its rows), with n rows of k
    classes, as in scikit-learn.

    Args:
        given: The value of the key.
        counts: Number of train rows with each label.
        labels: Texts of the labels, label 1 first.
        config: Name of the config in an error.

    Returns:
        The weight by the label's number, for each label in ``counts``.

    Raises:
        UserError: A label that has train rows has no weight, or a name is no label.
    """
    if given == BALANCED:
        weights = {number: 1 / rows for number, rows in counts.items()}
    else:
        assert isinstance(given, Mapping)
        by_text = {str(name): float(weight) for name, weight in given.items()}
        for name in by_text:
            if name not in labels:
                raise UserError(
                    f"{name!r} is no label of the data; {nearest(name, labels)}",
                    path=config,
                    field=KEY,
                )
        missing = [labels[number - 1] for number in counts if labels[number - 1] not in by_text]
        if missing:
            raise UserError(f"has no weight for the label {missing[0]!r}", path=config, field=KEY)
        weights = {number: by_text[labels[number - 1]] for number in counts}
    rows = sum(counts.values())
    mean = sum(weights[number] * of_label for number, of_label in counts.items()) / rows
    return {number: weight / mean for number, weight in weights.items()}
