"""The `problems` section of a sweep file: which problems, where they stand, in which order.

It must not know models, nor open any file.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.spec.fields import Choice, Count, Section, Text, as_column, refusal


class AnswerField(Section):
    """Where the gold answer of a problem stands."""

    column: Text
    """Column of the file that holds the answer."""
    after: Text | None = None
    """Take the text after the last occurrence of this mark ("####" in GSM8K)."""
    boxed: bool = False
    """Take the content of the last \\boxed{} (files of MATH hold only the solution)."""

    @model_validator(mode="after")
    def _check(self) -> AnswerField:
        if self.after is not None and self.boxed:
            raise refusal("after and boxed exclude each other", "keep one of the two", at=("boxed",))
        return self


class FieldMap(Section):
    """Which column of the file holds what; a column left out is looked for under its usual names."""

    id: Text | None = None
    """Identifier of the problem (id, unique_id, problem_id); without one it is made from the statement."""
    statement: Text | None = None
    """Statement of the problem (problem, question, statement, prompt)."""
    answer: (
        Annotated[AnswerField, BeforeValidator(as_column, json_schema_input_type=str | AnswerField)] | None
    ) = None
    """Gold answer (answer, gold, target): a column, or {column, after} or {column, boxed}."""
    level: Text | None = None
    """Difficulty as a whole number, "Level 5" counts as 5 (level, difficulty)."""
    subject: Text | None = None
    """Subject (subject, type, category)."""


class HubFile(Section):
    """One file of a dataset repository on the Hugging Face Hub; HF_ENDPOINT names another host."""

    repo: Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")]
    """Repository, as OWNER/NAME."""
    file: Annotated[str, Field(pattern=r"^[\w.-][\w./ -]*$")]
    """Path of the file in the repository."""
    revision: Annotated[str, Field(pattern=r"^\w[\w./-]*$")]
    """Commit; a branch or tag moves, so it is allowed only together with sha256."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Checksum of the file; a download with another one is refused."""

    @model_validator(mode="after")
    def _check(self) -> HubFile:
        if ".." in self.file.split("/"):
            raise refusal("leaves the repository", "write the path inside the repository", at=("file",))
        if self.sha256 is None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            remedy = "write the 40 characters of the commit, or add sha256"
            raise refusal("is a name that may move", remedy, at=("revision",))
        return self


class ProblemsSpec(Section):
    """Which problems, in which order: exactly one of path, preset and hub."""

    path: Text | None = None
    """File of problems (.jsonl, .jsonl.gz, .csv, .parquet), relative to the sweep file."""
    preset: Literal["arithmetic", "math500", "math", "gsm8k"] | None = None
    """A set that ttc knows: arithmetic comes with it, the others are downloaded from the Hub and cached."""
    hub: HubFile | None = None
    """A file of a dataset repository on the Hugging Face Hub."""
    fields: FieldMap = FieldMap()
    """Which column holds what."""
    filter: dict[Text, Choice] = Field(default_factory=dict)
    """Keep the problems whose column equals a value, or one of a list of values; any column of the file."""
    shuffle: Annotated[int, Field(ge=0)] | None = None
    """Seed of the order; without it the order of the file is kept."""
    per_level: Count | None = None
    """Keep this many problems of each level, the first in order."""
    limit: Count | None = None
    """Keep this many problems, the first in order, after filter, shuffle and per_level."""

    @model_validator(mode="after")
    def _check(self) -> ProblemsSpec:
        given = [name for name in ("path", "preset", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            remedy = "keep one of the three" if given else "add path: FILE, or preset: arithmetic"
            raise refusal(f"wants exactly one of path, preset and hub, and has {found}", remedy)
        return self
