"""What the best of k samples is, by its rank in the pool: closed forms without replacement.

Pure arithmetic on ranks and counts; must not know selectors or problems. Only products of ratios: no factorial and no
logarithm, so that n factors cost no more than n roundings, 1e-16 each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.arrays import FloatArray


def pass_at_k(n: npt.ArrayLike, c: npt.ArrayLike, k: npt.ArrayLike) -> FloatArray:
    """Chance that k of n samples, drawn without replacement, hold one of the c correct; NaN where k > n.

    1 - C(n-c, k) / C(n, k), unbiased (Chen et al. 2021, arXiv:2107.03374, eq. 1). The ratio is symmetric in
    c and k, hence a product of min(c, k) factors prod_j (n - max(c, k) - j) / (n - j). Arguments broadcast. Raises
    ValueError unless 0 <= c <= n and k >= 1.
    """
    n, c, k = (a.astype(np.float64) for a in np.broadcast_arrays(n, c, k))
    if np.any(c < 0) or np.any(c > n) or np.any(k < 1):
        raise ValueError("pass@k needs 0 <= c <= n and k >= 1")
    few, many = np.minimum(c, k)[..., None], np.maximum(c, k)[..., None]
    miss = np.ones(n.shape)
    block = 256  # bounds memory: pools of a million samples must not make a table of problems x samples
    for start in range(0, int(few.max(initial=0)), block):
        j = np.arange(start, start + block)
        inside = j < np.minimum(few, n[..., None])
        factors = np.maximum(n[..., None] - many - j, 0.0) / np.where(inside, n[..., None] - j, 1.0)
        miss *= np.where(inside, factors, 1.0).prod(axis=-1)
    return np.asarray(np.where(k > n, np.nan, 1.0 - miss))


def chance_that_best_has_rank(n: int, budgets: Sequence[int]) -> FloatArray:
    """Chance that the best of k of n samples is the one of rank 0, 1, ..., n - 1 in the pool: (budgets, n).

    C(n - 1 - rank, k - 1) / C(n, k), as prod_{i < rank} (n - k - i) / (n - i) times k / (n - rank). NaN where k > n.
    """
    k, i = np.asarray(budgets, dtype=np.float64)[:, None], np.arange(n, dtype=np.float64)
    better_missed = np.ones((len(budgets), n))
    np.cumprod(np.maximum(n - k - i[:-1], 0.0) / (n - i[:-1]), axis=1, out=better_missed[:, 1:])
    return np.asarray(np.where(k > n, np.nan, better_missed * k / (n - i)))


def credit_by_rank(keys: npt.NDArray[np.floating], is_right: npt.NDArray[np.bool_], n: int) -> FloatArray:
    """Chance that the sample of each rank is right, a tie being broken at random; 0 beyond the keys: (n,).

    `keys` are the scores of those samples of the pool that may be chosen, higher is better. Equal keys make ties: the
    best of any draw is then each of its tied samples with the same chance, right as often as in the whole tie.
    """
    credit = np.zeros(n)
    _, group, sizes = np.unique(-keys, return_inverse=True, return_counts=True)
    rights = np.bincount(group, weights=is_right, minlength=len(sizes))
    credit[: len(keys)] = np.repeat(rights / sizes, sizes)
    return credit
