"""Who has which GPU of this machine: pure bookkeeping, for engines that run without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FULL = 1.0 - 1e-9


class Gpus:
    """The GPUs of a machine by name, and how much of each is free."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._free = [1.0] * len(self._names)

    def take(self, amount: float) -> dict[int, float] | None:
        """Take whole GPUs, or a part of one; what was taken, None if there is not so much."""
        part = min(amount, 1.0)
        count = max(1, round(amount)) if amount else 0
        fitting = [index for index, free in enumerate(self._free) if free >= part - 1e-9][:count]
        if len(fitting) < count:
            return None
        for index in fitting:
            self._free[index] -= part
        return dict.fromkeys(fitting, part)

    def give_back(self, taken: Mapping[int, float]) -> None:
        """Undo a `take`."""
        for index, part in taken.items():
            self._free[index] += part

    def names(self, taken: Mapping[int, float]) -> str:
        """What `CUDA_VISIBLE_DEVICES` says of it."""
        return ",".join(self._names[index] for index in taken)

    def __str__(self) -> str:
        """How many are free."""
        return f"{sum(free >= FULL for free in self._free)} of {len(self._names)}"
