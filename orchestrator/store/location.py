"""Where a store is: what users type, made into what drivers take. Shows no password, opens nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from orchestrator.store.errors import StoreRefused

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A database: `path` for a SQLite file, None on PostgreSQL."""

    url: sa.URL
    path: Path | None

    @property
    def shown(self) -> str:
        """The URL as messages may print it."""
        shown = self.url.set(drivername=self.url.get_backend_name())
        return shown.render_as_string(hide_password=True)


def locate(url: str) -> Location:
    """Understand `sqlite:///file`, a plain file path or `postgresql://...`.

    Raises:
        StoreRefused: another kind of database, or one in memory.
    """
    if "://" not in url:
        return _file(Path(url))
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise StoreRefused(
            "the database URL cannot be read; wanted: sqlite:///file or postgresql://..."
        ) from None
    backend = parsed.drivername.split("+")[0]
    if backend not in _DRIVERS:
        raise StoreRefused(f"{backend!r} is not a supported database; wanted: sqlite or postgresql")
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreRefused("a store needs a file; wanted: sqlite:///file")
        return _file(Path(parsed.database))
    return Location(parsed.set(drivername=_DRIVERS[backend]), None)


def database_exists(url: str) -> bool:
    """Whether there is anything at `url`; a PostgreSQL server is asked when the store is opened."""
    path = locate(url).path
    return path is None or (path.exists() and path.stat().st_size > 0)


def _file(path: Path) -> Location:
    return Location(sa.URL.create(_DRIVERS["sqlite"], database=str(path)), path)
