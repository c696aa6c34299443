"""Standard errors of a mean when groups of documents are few or unequal in size.

The mean is a weighted sum of documents, sum of w_i y_i with weights that sum to 1: each document
weighs 1 / N, or 1 / (N_t T) in the mean over T tasks. Documents of a group may be correlated, so
the independent units are the groups' contributions, c_g = sum of w_i (y_i - mean). Two corrections
are needed where a few groups carry much weight. First, a heavy group pulls the mean towards itself,
which makes its own contribution too small: CR2 divides each squared contribution by 1 - share (Bell
and McCaffrey, Survey Methodology 28, 2002). Second, few groups determine the variance, so it has
few degrees of freedom: Satterthwaite's, under a working model in which documents of a group share
an estimated correlation (Imbens and Kolesar, Review of Economics and Statistics 98, 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regreason_plugin.metrics.answers import Array


@dataclass(frozen=True)
class GroupWeights:
    """The weights of G groups in a mean.

    Attributes:
        shares: For each group, the sum of its documents' weights, ``[G]``; all shares sum to 1.
        squares: For each group, the sum of its documents' squared weights, ``[G]``.
    """

    shares: Array
    squares: Array

    @classmethod
    def of_sizes(cls, sizes: Array) -> GroupWeights:
        """The weights in a plain mean over documents, from the groups' sizes ``[G]``."""
        documents = sizes.sum()
        return cls(sizes / documents, sizes / documents**2)

    @property
    def effective_groups(self) -> float:
        """Equally weighted groups that give the same precision (Kish, Survey Sampling, 1965)."""
        return float(1 / (self.shares**2).sum())

    @property
    def effective_documents(self) -> float:
        """Equally weighted documents that give the same precision, ignoring groups."""
        return float(1 / self.squares.sum())

    @property
    def mean_group_size(self) -> float:
        """The average size of a document's group (Kish), where every document counts once."""
        return float((self.shares**2).sum() / self.squares.sum())

    def variance(self, contributions: Array) -> Array:
        """The CR2 variance of the mean.

        Args:
            contributions: The groups' contributions, ``[..., G]``.

        Returns:
            The variance, ``[...]``.
        """
        squares: Array = (contributions**2 / (1 - self.shares)).sum(axis=-1)
        return squares

    @property
    def sizes(self) -> Array:
        """Documents of each group, ``[G]``; with unequal weights, the effective number."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.squares > 0, self.shares**2 / self.squares, 0.0)

    def intragroup_correlation(
        self, contributions: Array, squares: Array, unseen: float = 0.0
    ) -> float:
        """The correlation of two documents of a group, by the method of moments.

        Args:
            contributions: The groups' contributions, ``[G]``.
            squares: For each group, the sum of the squared contributions of its documents, ``[G]``.
            unseen: The squared contribution of a document in an event, such as an answer that only
                one of two models has right; 0 adds nothing. If the groups with several documents
                show few events or none, their documents are assumed to change together: the
                estimate adds the pairs of one document with its group, and a tenth of the pairs of
                a whole group times the probability that none of these groups has had its event yet.
                (Simulations in ``tests/bench/operating_characteristics.py`` determined these
                amounts. The gate's promise is one-sided and needs the full tenth: see
                `gate_bounds.design_effect`. With the amount added here, up to 11 % of the
                candidates at the limit would pass.)

        Returns:
            A correlation from 0 to 1; 1 if nothing varies or every group has one document.
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
        """Satterthwaite degrees of freedom of `variance`, for a within-group correlation.

        They are (trace B)^2 / trace B^2, where B is the covariance matrix of the scaled
        contributions if two documents of a group have the correlation ``alike``. For groups of
        equal size they are G - 1.
        """
        h = self.shares
        v = self.squares + alike * (h**2 - self.squares)
        total = v.sum()
        scale = 1 / (1 - h)
        # The contributions are (I - h 1') totals, so their covariance is
        # diag(v) - h v' - v h' + total h h'; B scales row g and column k by sqrt(scale).
        diagonal = scale * (v - 2 * h * v + total * h**2)
        hh, hv, vv = ((scale * x * y).sum() for x, y in ((h, h), (h, v), (v, v)))
        low_rank = 2 * (hh * vv + hv**2) + total**2 * hh**2 - 4 * total * hh * hv
        cross = (scale**2 * v * (total * h**2 - 2 * h * v)).sum()
        squared = ((scale * v) ** 2).sum() + 2 * cross + low_rank
        return float(diagonal.sum() ** 2 / squared)


@dataclass(frozen=True)
class BootstrapWeights:
    """The weights of bootstrap samples, where deviations of their values replace contributions.

    Attributes:
        samples: The number of bootstrap samples B.
        groups: The weights of the groups that were drawn.
    """

    samples: int
    groups: GroupWeights

    def variance(self, deviations: Array) -> Array:
        """The variance of a figure from its deviations in the samples, ``[..., B]``."""
        squares: Array = (deviations**2).sum(axis=-1) / (self.samples - 1)
        return squares

    def degrees_of_freedom(self, alike: float = 1.0) -> float:
        """The degrees of freedom of the mean over the same groups."""
        return self.groups.degrees_of_freedom(alike)
