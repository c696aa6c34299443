"""How sure a mean is whose documents come in few groups, or in groups of unequal size.

The mean is a sum of weighted documents, sum of w_i y_i with weights that sum to 1: one document
each 1 / N, or 1 / (N_t T) in the mean over T tasks. Documents of a group may be alike, so what
varies independently is a group's contribution, c_g = sum of w_i (y_i - mean). Two things go wrong
where a few groups weigh much. A heavy group pulls the mean towards itself, so that its own
contribution is too small: CR2 divides each square by 1 - share (Bell and McCaffrey, Survey
Methodology 28, 2002). And few groups decide the variance, so that it has few degrees of freedom:
Satterthwaite's under a working model, in which documents of a group are correlated by a number
that is estimated (Imbens and Kolesar, Review of Economics and Statistics 98, 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regreason_plugin.metrics.answers import Array


@dataclass(frozen=True)
class GroupWeights:
    """What each of G groups weighs in a mean.

    Attributes:
        shares: The sum of its documents' weights, ``[G]``; all sum to 1.
        squares: The sum of their squares, ``[G]``.
    """

    shares: Array
    squares: Array

    @classmethod
    def of_sizes(cls, sizes: Array) -> GroupWeights:
        """Of a plain mean over documents, from the groups' sizes ``[G]``."""
        documents = sizes.sum()
        return cls(sizes / documents, sizes / documents**2)

    @property
    def effective_groups(self) -> float:
        """As many groups of one weight say as much (Kish, Survey Sampling, 1965)."""
        return float(1 / (self.shares**2).sum())

    @property
    def effective_documents(self) -> float:
        """As many documents of one weight say as much, if groups did not matter."""
        return float(1 / self.squares.sum())

    @property
    def documents_a_group(self) -> float:
        """The size of the group that a document is in on the average (Kish)."""
        return float((self.shares**2).sum() / self.squares.sum())

    def variance(self, contributions: Array) -> Array:
        """CR2 variance of the mean.

        Args:
            contributions: Of the groups, ``[..., G]``.

        Returns:
            ``[...]``
        """
        squares: Array = (contributions**2 / (1 - self.shares)).sum(axis=-1)
        return squares

    @property
    def sizes(self) -> Array:
        """Documents of each group, ``[G]``; of unequal weights as many of one weight."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.squares > 0, self.shares**2 / self.squares, 0.0)

    def alikeness(self, contributions: Array, squares: Array, unseen: float = 0.0) -> float:
        """The correlation of two documents of a group, by moments.

        Args:
            contributions: Of the groups, ``[G]``.
            squares: The sums of the squares of their documents' own contributions, ``[G]``.
            unseen: The square of a document's contribution in an event, such as an answer that only
                one of two models has right. Where the groups of several documents show none or few,
                they are taken to go as one: the pairs of one document with its group are added, and
                a tenth of those of a whole group as far as it is likely that none of these groups
                has had its event yet. (How much is decided by simulations,
                ``tests/bench/operating_characteristics.py``. The gate's promise is one-sided, and
                needs that tenth whole: `gate_bounds.design_effect`. With what is added here, up to
                11 % of candidates at the limit would pass.)

        Returns:
            From 0 to 1; 1 where nothing varies or all groups are of one document.
        """
        others = np.maximum(self.sizes - 1, 0.0)
        several = others > 1e-9
        of_pairs = float((contributions**2 - squares)[several].sum())
        at_most = float((others * squares).sum())
        if unseen and several.any():
            shares = self.shares[several]
            size = float((shares**2).sum() / self.squares[several].sum())
            groups = float(shares.sum() ** 2 / (shares**2).sum())
            events = float(squares.sum()) / unseen
            none_yet = (1 - min(events / self.effective_documents, 1.0)) ** groups
            pairs = (size - 1) * (1 + size / 10 * none_yet) * unseen
            of_pairs, at_most = of_pairs + pairs, at_most + pairs
        return min(max(of_pairs / at_most, 0.0), 1.0) if at_most > 0 else 1.0

    def degrees_of_freedom(self, alike: float = 1.0) -> float:
        """Of `variance`, if two documents of a group are correlated by ``alike``.

        They are (trace B)^2 / trace B^2, where B is the covariance matrix of the scaled
        contributions. Of groups of one size they are G - 1.
        """
        h = self.shares
        v = self.squares + alike * (h**2 - self.squares)
        total = v.sum()
        scale = 1 / (1 - h)
        # Contributions are (I - h 1') totals, so that their covariance is
        # diag(v) - h v' - v h' + total h h'; B scales row g and column k by sqrt(scale).
        diagonal = scale * (v - 2 * h * v + total * h**2)
        hh, hv, vv = ((scale * x * y).sum() for x, y in ((h, h), (h, v), (v, v)))
        low_rank = 2 * (hh * vv + hv**2) + total**2 * hh**2 - 4 * total * hh * hv
        cross = (scale**2 * v * (total * h**2 - 2 * h * v)).sum()
        squared = ((scale * v) ** 2).sum() + 2 * cross + low_rank
        return float(diagonal.sum() ** 2 / squared)
