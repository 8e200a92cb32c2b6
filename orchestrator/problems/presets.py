"""The sets of problems that ttc knows by name: where they are, which bytes they are, which column is what.

The checksums of MATH-500 and GSM8K were taken from files known to equal the origin (MATH-500: byte for byte
the `math_splits/test.jsonl` of openai/prm800k) or from several independent public pins of the same commit
(GSM8K). No checksum is known for MATH: its files are pinned by commit, and what the first download held is
recorded beside it and checked from then on. ttc ships none of them but `arithmetic`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.spec.problems import AnswerField, FieldMap, HubFile


@dataclass(frozen=True, slots=True)
class Preset:
    """Files of one named set, in order, and their columns."""

    fields: FieldMap
    files: tuple[HubFile, ...] = ()
    packaged: tuple[str, str] | None = None
    """Package and path of a file that comes with ttc."""


_MATH_REVISION = "21a5633873b6a120296cce3e2df9d5550074f4a3"
_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

PRESETS: Final[dict[str, Preset]] = {
    "arithmetic": Preset(
        fields=FieldMap(id="id", statement="problem", answer=AnswerField(column="answer"), level="level"),
        packaged=("workers.embedded", "data/arithmetic.jsonl"),
    ),
    "math500": Preset(
        fields=FieldMap(
            id="unique_id",
            statement="problem",
            answer=AnswerField(column="answer"),
            level="level",
            subject="subject",
        ),
        files=(
            HubFile(
                repo="HuggingFaceH4/MATH-500",
                file="test.jsonl",
                revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
                sha256="35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
            ),
        ),
    ),
    "math": Preset(
        fields=FieldMap(
            statement="problem",
            answer=AnswerField(column="solution", boxed=True),
            level="level",
            subject="type",
        ),
        files=tuple(
            HubFile(
                repo="EleutherAI/hendrycks_math",
                file=f"{subject}/test-00000-of-00001.parquet",
                revision=_MATH_REVISION,
            )
            for subject in _MATH_SUBJECTS
        ),
    ),
    "gsm8k": Preset(
        fields=FieldMap(statement="question", answer=AnswerField(column="answer", after="####")),
        files=(
            HubFile(
                repo="openai/gsm8k",
                file="main/test-00000-of-00001.parquet",
                revision="740312add88f781978c0658806c59bc2815b9866",
                sha256="ee7b8da9e381df27b9e3f7758a159ab2bdaa4dbaa910546cbbc47e0cb44e4f59",
            ),
        ),
    ),
}
