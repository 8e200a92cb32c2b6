"""What `ttc db copy` and `ttc db roles` do, once their arguments are known: do it, and show it."""

from __future__ import annotations

import sys
from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.execution.progress import make_reporter
from orchestrator.output import show, show_json, show_line
from orchestrator.store import Roles, apply_roles, copy_store, role_statements

SHOWN_DIGITS = 16
"""Of a checksum in the table; JSON has all 64."""


async def copy_database(source: str, target: str, *, is_json: bool) -> None:
    """`ttc db copy`: a whole store into an empty database, compared table by table."""
    reporter = make_reporter("copy", is_json=is_json, stream=sys.stderr)
    try:
        found = await copy_store(source, target, reporter.advance)
    finally:
        reporter.close()
    if is_json:
        show_json([asdict(each) for each in found])
        return
    table = Table(box=box.SIMPLE_HEAD, title="the same in both databases")
    table.add_column("table")
    table.add_column("rows", justify="right")
    table.add_column("checksum")
    for each in found:
        if each.rows:
            table.add_row(Text(each.table), f"{each.rows:,}", each.checksum[:SHOWN_DIGITS])
    show(table)
    show_line(f"copied and compared {sum(each.rows for each in found):,} rows of {len(found)} tables")


async def make_roles(url: str, roles: Roles, *, is_applied: bool) -> None:
    """`ttc db roles`: print the SQL of the two roles, or run it."""
    if not is_applied:
        for statement in await role_statements(url, roles):
            show_line(f"{statement};")
        return
    done = await apply_roles(url, roles)
    show_line(f"{len(done)} statements: {roles.writer} may run sweeps, {roles.reader} may read")
