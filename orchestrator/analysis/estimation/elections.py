"""The exact engine of plurality votes: chances that clusters win, for many elections over one draw at once.

Pure arithmetic: must not know pools, problems or outcomes, nor which cluster is correct.

The counts of the clusters in a draw of k without replacement are independent binomials (Poisson counts for a
draw with replacement) conditioned on their sum being k. So, for a candidate with x votes, every other cluster i
contributes the series A_i + y B_i: its terms below x votes, and its term at x marked by y. The integral of the
product over y in [0, 1] gives a tie of m clusters the weight 1/m, because y^(m-1) integrates to 1/m
(Gauss-Legendre is exact here); the coefficient of k is read off by a discrete Fourier transform; and the sum
over x is the answer. Clusters that cannot reach x votes merge into one factor, and clusters of equal size share
one series: hence few factors, however many clusters. No factor exceeds 1 in absolute value and the merged one
dies out quickly: hence few frequencies. All elections go through the winning counts together, in blocks, and
share the series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, takewhile

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.arrays import ComplexArray, FloatArray, IntArray
from orchestrator.analysis.estimation.count_laws import CountLaw, VoteLaw

TOLERANCE = 1e-15
"""What a block of counts may lose by each thing that is dropped; all together stays below 1e-12."""
TABLE_LIMIT = 4_000_000
"""Entries (counts x frequencies) that one election may need: more would take seconds, so resample."""
MOST_TIES = 2_048
"""Rivals that may tie with a winner: more need a quadrature that takes seconds, so resample."""
WIDEST_BLOCK = 64
"""Winning counts that are handled together at most, hence with the same rivals."""
BATCH = 4_000_000
"""Entries (clusters x counts) of the table of laws, about: 32 MB."""
CELLS = 65_536
"""Candidates x counts x frequencies that are handled together: 1 MB, which a cache holds."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the equal clusters of a size in an election."""

    index: int
    """Which of the sizes."""
    sizes: FloatArray
    """Distinct sizes of the clusters that vote, descending."""
    copies: IntArray
    """How many clusters have each size."""
    total: float
    """Samples of the pool."""
    absent: float = 0.0
    """Samples of the pool that must not be drawn."""


class Draw:
    """A draw of k votes: laws of the counts, and the Fourier sum that conditions them on their sum.

    Any chance of being drawn will do for any pool, since it cancels; so pools of similar totals share a draw.
    """

    def __init__(self, totals: Iterable[float], votes: VoteLaw) -> None:
        self.votes, self.k = votes, votes.k
        self._laws: dict[float, CountLaw] = {}
        wholes = [self.law(total) for total in totals]
        reach = max(max(whole.high - self.k, self.k - whole.low, 0) for whole in wholes)
        self.period = (reach + 1) | 1  # odd, too wide to alias
        self.width = self.period // 2 + 1
        self.roots = np.exp(2j * np.pi / self.period * np.arange(self.period))
        self.cosines = self.roots[: self.width].real

    def law(self, size: float) -> CountLaw:
        """Law of the votes of a cluster."""
        if size not in self._laws:
            self._laws[size] = self.votes.counts(size)
        return self._laws[size]

    def scale(self, total: float, absent: float) -> float:
        """What a coefficient of k is multiplied with: no absent one is drawn, and the counts make k."""
        return self.votes.silence(absent) / float(self.law(total).at(np.array([self.k]))[0])

    def phases(self, start: int, stop: int, width: int) -> ComplexArray:
        """Transforms of the counts start, ..., stop - 1, each certain: (counts, lowest `width` frequencies)."""
        return np.asarray(self.roots[np.outer(np.arange(start, stop), np.arange(width)) % self.period])

    def contenders(self, sizes: FloatArray) -> int:
        """How many of the descending sizes may win: all that can reach the fewest votes of the largest."""
        first, *others = sizes.tolist()
        fewest = self.law(first).low
        return 1 + sum(1 for _ in takewhile(lambda size: self.law(size).high >= fewest, others))

    def is_affordable(self, sizes: FloatArray) -> bool:
        """Whether the tables of an election stay within `TABLE_LIMIT`."""
        laws = (self.law(size) for size in sizes[: self.contenders(sizes)].tolist())
        return sum(len(law.weights) for law in laws) * self.width <= TABLE_LIMIT


def chances(draw: Draw, candidates: Sequence[Candidate]) -> FloatArray:
    """Chance of each candidate to win, a tie of m counting 1/m; NaN where more than `MOST_TIES` may tie."""
    return np.concatenate(
        [np.empty(0), *(_Field(draw, some).chances() for some in _batches(draw, candidates))]
    )


def _batches(draw: Draw, candidates: Sequence[Candidate]) -> Iterator[Sequence[Candidate]]:
    """Cut where the tables of laws would become too large."""
    entries = np.cumsum([draw.contenders(each.sizes) * (draw.k + 1) for each in candidates])
    for _, some in groupby(range(len(candidates)), lambda i: int(entries[i]) // BATCH):
        yield [candidates[i] for i in some]


class _Field:
    """All candidates as arrays: rows of a table of laws, padded to the most rivals."""

    def __init__(self, draw: Draw, candidates: Sequence[Candidate]) -> None:
        self.draw = draw
        kept = [each.sizes[: draw.contenders(each.sizes)] for each in candidates]
        self.sizes = np.unique(np.concatenate(kept))
        self.rows, self.copies = _padded(kept, [each.copies for each in candidates], self.sizes)
        members, indices = np.arange(len(candidates)), np.array([each.index for each in candidates])
        contends = indices < [len(sizes) for sizes in kept]
        indices = np.minimum(indices, [len(sizes) - 1 for sizes in kept])
        self.own = self.rows[members, indices]
        self.copies[members, indices] -= 1
        self.present = np.array([each.total - each.absent for each in candidates])
        self.scale = np.array([draw.scale(each.total, each.absent) for each in candidates])
        self.tolerance = TOLERANCE / self.scale
        laws = [draw.law(size) for size in self.sizes.tolist()]
        self._tabulate(laws)
        low, high = np.array([law.low for law in laws]), np.array([law.high for law in laws])
        fewest = np.array([draw.law(float(sizes[0])).low for sizes in kept])
        self.first = np.maximum(np.maximum(fewest, low[self.own]), 1)
        self.last = np.where(contends, np.minimum(high[self.own], draw.k), 0)
        self.is_crowded = np.zeros(len(candidates), dtype=np.bool_)

    def chances(self) -> FloatArray:
        """Chance of each candidate to win; NaN where too many may tie."""
        wins = np.zeros(len(self.own))
        for block in self._blocks():
            for part in self._parts(block):
                wins[part.members] += part.chances()
        return np.where(self.is_crowded, np.nan, np.clip(wins * self.scale, 0.0, 1.0))

    def _tabulate(self, laws: Sequence[CountLaw]) -> None:
        """`at[row, v]`, `below[row, v]`: P(`lowest` + v), P(less); `reach`: P(as much), exact also where tiny."""
        self.lowest = min(law.low for law in laws)
        self.at = np.zeros((len(laws), max(law.high for law in laws) - self.lowest + 1))
        for row, law in zip(self.at, laws, strict=True):
            row[law.low - self.lowest : law.high - self.lowest + 1] = law.weights
        self.below = np.zeros((len(laws), self.at.shape[1] + 1))
        np.cumsum(self.at, axis=1, out=self.below[:, 1:])
        self.reach = np.cumsum(self.at[:, ::-1], axis=1)[:, ::-1]

    def _blocks(self) -> Iterator[_Block]:
        """All winning counts, cut; and the laws' transforms below each cut."""
        start, width = self.lowest, self.draw.width
        before = np.zeros((len(self.sizes), width), dtype=np.complex128)
        for stop in _cuts(start, int(self.first.min()), int(self.last.max())):
            block = _Block(start, stop, self.draw.phases(start, stop, width), before)
            yield block
            before = before + self.at[:, block.counts(self.lowest)] @ block.phases
            start = stop

    def _parts(self, block: _Block) -> Iterator[_Part]:
        """Candidates that may win with a count of the block, in parts of one size and tie degree."""
        members = np.flatnonzero((self.first < block.stop) & (self.last >= block.start))
        if not len(members):
            return
        race = _race(self, members, block.counts(self.lowest))
        kept = np.flatnonzero(race.bound.sum(axis=1) > self.tolerance[members])
        degrees = race.tie_degrees(self.tolerance[members], self.draw.k // block.start - 1)
        self.is_crowded[members[degrees > MOST_TIES]] = True
        kept = kept[degrees[kept] <= MOST_TIES]
        kept = kept[np.argsort(degrees[kept], kind="stable")]
        size = max(1, CELLS // block.phases.size)
        for begin in range(0, len(kept), size):
            some = kept[begin : begin + size]
            degree = int(degrees[some].max())
            yield _Part(self, block, members[some], race.copies[some], race.own[some], degree)


@dataclass(frozen=True, slots=True)
class _Block:
    """Winning counts `start` to `stop` - 1, which are handled together."""

    start: int
    stop: int
    phases: ComplexArray
    """(counts, frequencies)."""
    before: ComplexArray
    """(sizes, frequencies): transforms of the laws cut below `start`."""

    def counts(self, lowest: int) -> slice:
        """Where they are in tables that begin with a lowest count."""
        return slice(self.start - lowest, self.stop - lowest)


@dataclass(frozen=True, slots=True)
class _Race:
    """Candidates against their rivals over a block of winning counts, in real bounds."""

    copies: IntArray
    """(candidates, rivals), 0 where a rival cannot reach the block."""
    own: FloatArray
    """(candidates, counts): chance of the candidate's count; 0 where it cannot win."""
    bound: FloatArray
    """The same, times the chance that no rival has more."""
    expected: FloatArray
    """(candidates, counts): expected number of rivals with the same count."""
    hazard: FloatArray
    """The same, given that each rival has no more."""

    def tie_degrees(self, tolerance: FloatArray, most: int) -> IntArray:
        """Most rivals that can tie with each candidate: each needs as many votes as it.

        Ties of m rivals have at most the chances own expected^m / m! and bound hazard^m / m!; larger ones are
        dropped where that is negligible.
        """
        degrees = np.zeros(len(self.own), dtype=np.int64)
        plain, given = self.own.copy(), self.bound.copy()
        for ties in range(1, min(most, MOST_TIES + 1) + 1):
            with np.errstate(over="ignore"):  # infinity is above any tolerance
                plain *= self.expected / ties
                given *= self.hazard / ties
            is_likely = np.minimum(plain, given).sum(axis=1) > tolerance
            degrees[is_likely] = ties
            if not is_likely.any() and ties > min(self.expected.max(), self.hazard.max()):
                break
        return np.asarray(np.minimum(degrees, self.copies.sum(axis=1)))


def _race(field: _Field, members: IntArray, counts: slice) -> _Race:
    """Members over a block, from the table of laws."""
    rows, copies = field.rows[members], field.copies[members]
    x = np.arange(counts.start, counts.stop) + field.lowest
    is_open = (x >= field.first[members, None]) & (x <= field.last[members, None])
    own = np.where(is_open, field.at[field.own[members], counts], 0.0)
    meeting = copies * field.reach[rows, counts.start] * own.sum(axis=1, keepdims=True)
    copies = np.where(meeting > field.tolerance[members, None], copies, 0)
    at = field.at[:, counts]
    no_more = field.below[:, counts.start + 1 : counts.stop + 1]
    hazard = np.divide(at, no_more, out=np.zeros_like(at), where=no_more > 0)
    votes = _scatter(rows, copies, len(field.sizes))
    with np.errstate(divide="ignore"):
        log_no_more = np.maximum(np.log(no_more), -1e4)
    return _Race(copies, own, own * np.exp(votes @ log_no_more), votes @ at, votes @ hazard)


class _Part:
    """A few candidates over a block of winning counts: the sum over counts, ties and frequencies."""

    def __init__(
        self,
        field: _Field,
        block: _Block,
        members: IntArray,
        copies: IntArray,
        own: FloatArray,
        degree: int,
    ) -> None:
        order = np.argsort(-_bits(copies).sum(axis=(1, 2)), kind="stable")
        self.field, self.block, self.members, self.degree = field, block, members[order], degree
        self.copies, self.own = copies[order], own[order]
        self.rows = field.rows[self.members]
        active = (self.copies * field.sizes[self.rows]).sum(axis=1)
        rest = field.present[self.members] - field.sizes[field.own[self.members]] - active
        self.rest = np.maximum(rest, 0.0)
        self.width = self._width()
        self.phases = block.phases[:, : self.width]

    def _width(self) -> int:
        """Frequencies beyond which the factor of the merged clusters, hence everything, is negligible."""
        draw = self.field.draw
        magnitude = draw.votes.magnitude(self.rest[:, None], draw.cosines)
        tail = np.cumsum(magnitude[:, ::-1], axis=1)[:, ::-1] * (2.0 / draw.period)
        kept = (tail > self.field.tolerance[self.members, None]).any(axis=0)
        return max(1, int(np.count_nonzero(kept)))

    def chances(self) -> FloatArray:
        """Chance of each member to win with a count of the block, while the counts add up to k."""
        draw, width = self.field.draw, self.width
        spectrum = draw.votes.transform(self.rest[:, None], draw.roots[:width])
        spectrum = spectrum * draw.phases(draw.k, draw.k + 1, width).conj()
        products = self._rivals_below()
        products *= self.own[:, :, None] * self.phases
        spectrum *= products.sum(axis=1)
        return np.asarray((spectrum[:, 0].real + 2.0 * spectrum[:, 1:].real.sum(axis=1)) / draw.period)

    def _rivals_below(self) -> ComplexArray:
        """Integral over y of the product of the rivals' series: (members, counts, frequencies)."""
        used, most = _most_copies(self.rows, self.copies)
        shape = (len(self.members), *self.phases.shape)
        if not len(used):
            return np.ones(shape, dtype=np.complex128)
        below, at = self._series(used)
        powers = _Powers(most)
        slots = powers.slots(_places(self.rows, used), self.copies)
        total = np.zeros(shape, dtype=np.complex128)
        for y, weight in zip(*_quadrature(self.degree), strict=True):
            total += weight * _products(powers.table(below + y * at), slots, len(total))
        return total

    def _series(self, used: IntArray) -> tuple[ComplexArray, ComplexArray]:
        """A and B of the laws in these rows: (rows, counts, frequencies)."""
        counts = self.block.counts(self.field.lowest)
        at = self.field.at[used, counts, None] * self.phases
        below = np.empty_like(at)
        below[:, 0] = self.block.before[used, : self.width]
        np.cumsum(at[:, :-1], axis=1, out=below[:, 1:])
        below[:, 1:] += below[:, :1]
        return below, at


class _Powers:
    """Powers of 2 of series, so that m equal clusters cost log2(m) factors; rows by descending m."""

    def __init__(self, most_copies: IntArray) -> None:
        bits = int(most_copies[0]).bit_length()
        self.counts = [int(np.count_nonzero(most_copies >= 1 << bit)) for bit in range(bits)]
        self.offsets = np.concatenate(([0], np.cumsum(self.counts)))

    def table(self, series: ComplexArray) -> ComplexArray:
        """The series, then the squares of those that need it, then their squares, ..."""
        table = np.empty((int(self.offsets[-1]), *series.shape[1:]), dtype=np.complex128)
        table[: len(series)] = series
        for bit, count in enumerate(self.counts[1:], start=1):
            base = table[self.offsets[bit - 1] :][:count]
            np.multiply(base, base, out=table[self.offsets[bit] :][:count])
        return table

    def slots(self, places: IntArray, copies: IntArray) -> list[IntArray]:
        """Rows of the table to multiply, one slot after the other; a slot is for the first members only."""
        is_factor = _bits(copies)
        rows = places[:, :, None] + self.offsets[: is_factor.shape[2]]
        rows = np.where(is_factor, rows, -1).reshape(len(places), -1)
        rows = -np.sort(-rows, axis=1)
        counts = (rows >= 0).sum(axis=1)
        return [rows[: np.count_nonzero(counts > slot), slot] for slot in range(int(counts.max()))]


def _products(table: ComplexArray, slots: Sequence[IntArray], members: int) -> ComplexArray:
    """Product of the rows that each member names; those with the most factors come first, some have none."""
    product = np.ones((members, *table.shape[1:]), dtype=np.complex128)
    for rows in slots:
        product[: len(rows)] *= table[rows]
    return product


def _most_copies(rows: IntArray, copies: IntArray) -> tuple[IntArray, IntArray]:
    """Rows in use and the most copies that any member has of each, by descending copies."""
    most = np.zeros(int(rows.max()) + 1, dtype=np.int64)
    np.maximum.at(most, rows, copies)
    used = np.flatnonzero(most)
    used = used[np.argsort(-most[used], kind="stable")]
    return used, most[used]


def _places(rows: IntArray, used: IntArray) -> IntArray:
    """Position of each row among the used ones."""
    places = np.zeros(int(rows.max()) + 1, dtype=np.int64)
    places[used] = np.arange(len(used))
    return places[rows]


def _bits(copies: IntArray) -> npt.NDArray[np.bool_]:
    """Binary digits, the lowest first, on a new axis."""
    digits = max(1, int(copies.max(initial=0)).bit_length())
    return (copies[..., None] >> np.arange(digits) & 1).astype(np.bool_)


def _padded(
    sizes: Sequence[FloatArray], copies: Sequence[IntArray], distinct: FloatArray
) -> tuple[IntArray, IntArray]:
    """Rows and copies of the rivals, (candidates, most rivals); what is missing has no copies."""
    shape = len(sizes), max(map(len, sizes))
    rows, numbers = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, (some, many) in enumerate(zip(sizes, copies, strict=True)):
        rows[i, : len(some)] = np.searchsorted(distinct, some)
        numbers[i, : len(some)] = many[: len(some)]
    return rows, numbers


def _scatter(rows: IntArray, copies: IntArray, width: int) -> FloatArray:
    """(members, distinct sizes): how many rivals of each size; a row occurs once a member."""
    table = np.zeros((len(rows), width))
    member = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
    np.add.at(table, (member, rows), copies)
    return table


def _cuts(lowest: int, first: int, last: int) -> Iterator[int]:
    """Where to cut the counts: at the first that may win, and where possible ties have changed much: 2, 4, 8, ..."""
    if lowest < first <= last:
        yield first
    while first <= last:
        first = min(first + min(WIDEST_BLOCK, first), last + 1)
        yield first


@cache
def _quadrature(degree: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights that integrate polynomials of this degree over [0, 1] exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (nodes + 1.0) / 2.0, weights / 2.0
