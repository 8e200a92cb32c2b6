"""Matrix products whose rows do not depend on one another, whichever BLAS NumPy has.

BLAS computes different rows of one product with different kernels (a panel of 12, then the rest), so the same row can
differ in its last bit with its place. There is a number of rows for which it does not; it is found by trying, on the
matrices themselves, in a fixed order, so a machine always settles on the same one. Knows nothing of the network.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK_CHOICES = (32, 8, 4, 1)  # largest first: it is the fastest; a block of 1 cannot fail
TRIALS = 64


def product(x: Floats, weight: Floats, block: int) -> Floats:
    """Multiply (rows, inputs) by (inputs, outputs), `block` rows at a time; rows must be whole blocks."""
    blocks = x.reshape(len(x) // block, block, x.shape[1])
    result: Floats = np.matmul(blocks, weight).reshape(len(x), weight.shape[1])
    return result


def uniform_block(weights: Iterable[Floats]) -> int:
    """Find the largest block in which every place gives the same bits, for all these matrices."""
    distinct = list({weight.shape: weight for weight in weights}.values())
    return next(block for block in BLOCK_CHOICES if all(_is_uniform(block, weight) for weight in distinct))


def limit_threads(count: int) -> bool:
    """Fix the number of BLAS threads of this process, where NumPy brings its own OpenBLAS; False where it does not.

    Products of a few rows gain nothing from threads, which then only wait for one another. Results stay right
    without it.
    """
    beside = Path(np.__file__).parent
    for library in (*beside.parent.glob("numpy.libs/*openblas*"), *beside.glob(".dylibs/*openblas*")):
        for name in ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"):
            setter = getattr(ctypes.CDLL(str(library)), name, None)
            if setter is not None:
                setter(ctypes.c_int(count))
                return True
    return False


def _is_uniform(block: int, weight: Floats) -> bool:
    """Put one row into every place of a block, `TRIALS` times."""
    rows = np.random.default_rng(0).standard_normal((TRIALS, 1, weight.shape[0]), dtype=np.float32)
    result = np.matmul(np.repeat(rows, block, axis=1), weight)
    return bool((result == result[:, :1]).all())
