"""Deterministic names: keys, seeds and fingerprints that are fixed before any work runs (invariants I2, I5, I8)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

SAMPLES_PER_POOL_BITS = 20
MAX_SAMPLES_PER_POOL = 1 << SAMPLES_PER_POOL_BITS
SEED_BITS = 52  # stays exact in an IEEE double, which is how some servers read JSON numbers


def fingerprint(meaning: Mapping[str, Any]) -> str:
    """Hex digest (32 characters) of everything that changes the meaning of a result; key order does not matter."""
    return hashlib.blake2b(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def seed_base(sweep_seed: int, problem_hash: str, generator_fingerprint: str) -> int:
    """Seed of sample 0 of a pool; sample k draws with `seed_base + k`.

    vLLM gives child j of a request `seed + j`, so a request for samples k..k+n-1 that sends `seed_base + k`
    draws the same samples however the pool is cut into requests. The problem is hashed in, because one seed
    for many problems correlates their noise.
    """
    digest = _digest(str(sweep_seed), problem_hash, generator_fingerprint)
    return int.from_bytes(digest[:8], "big") % ((1 << SEED_BITS) - MAX_SAMPLES_PER_POOL)


def prefix_id(problem_hash: str, text: str) -> int:
    """Key (63 bits) of a beginning of a solution: equal beginnings are one, whoever wrote them."""
    return int.from_bytes(_digest("prefix", problem_hash, text)[:8], "big") >> 1


def prefixed(problem_hash: str, prefix: int | None) -> str:
    """What stands for a problem where a seed is derived: the problem, or a beginning of its solution."""
    return problem_hash if prefix is None else f"{problem_hash}/{prefix}"


def text_hash(text: str) -> int:
    """Hash (63 bits) by which equal texts of a pool are found."""
    return int.from_bytes(_digest(text)[:8], "big") >> 1


def trajectory_id(pool_id: int, sample_index: int) -> int:
    """Key of sample `sample_index` of a pool: inserts are sequential, and a range of samples is a range of keys."""
    return (pool_id << SAMPLES_PER_POOL_BITS) | sample_index


def answer_id(problem_id: int, text: str) -> int:
    """Key (63 bits) of a distinct answer string of a problem; no look-up is needed to name it."""
    return int.from_bytes(_digest(str(problem_id), text)[:8], "big") >> 1


def content_hash(*parts: str) -> str:
    """Hex digest (32 characters) of a sequence of strings; boundaries between the parts count."""
    return _digest(*parts).hex()


def _digest(*parts: str) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.digest()
