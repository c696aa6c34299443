"""The names of the probes, as ``--model_args probe=`` takes them."""

from __future__ import annotations

from regreason_plugin.core.errors import UserError, nearest

PROBES = ("output", "label", "activation", "logit_lens", "matrix")
# Probes that read every layer during the forward pass.
BY_LAYER = frozenset({"activation", "logit_lens", "matrix"})


def parse_probes(given: str) -> frozenset[str]:
    """The probes that a value of ``probe=`` names: ``all``, ``none``, or names joined by ``+``.

    Raises:
        UserError: A name is not one of `PROBES`.
    """
    if given in ("all", "none"):
        return frozenset(PROBES if given == "all" else ())
    names = [name.strip() for name in given.split("+")]
    for name in names:
        if name not in PROBES:
            raise UserError(
                f"probe={given} names an unknown probe {name!r}; {nearest(name, list(PROBES))} "
                "(or all, or none; several are joined by +)"
            )
    return frozenset(names)
