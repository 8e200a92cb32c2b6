"""Files of samples made elsewhere: every shape that is read, and what is said of those that are not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import DatasetError
from orchestrator.problems.trajectories import ImportedProblem, Reading, read_trajectories

PROBLEM = {"id": "p1", "problem": "1 + 1?", "gold": "2", "level": 3}


def read(tmp_path: Path, *rows: object, **reading: Any) -> list[ImportedProblem]:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_trajectories(path, "samples.jsonl", Reading(reading.pop("columns", {}), **reading))


def test_a_row_a_problem(tmp_path: Path) -> None:
    samples = [{"text": "a\n\nb", "step_scores": [0.5, 1], "n_tokens": 7}, {"text": ""}, "plain"]
    (found,) = read(tmp_path, {**PROBLEM, "samples": samples})
    assert (found.problem.external_id, found.problem.answer, found.problem.level) == ("p1", "2", 3)
    assert [sample.text for sample in found.samples] == ["a\n\nb", "", "plain"]
    assert [sample.scores for sample in found.samples] == [(0.5, 1.0), (), ()]
    assert found.samples[0].tokens == 7


def test_a_row_a_sample(tmp_path: Path) -> None:
    rows = [
        {**PROBLEM, "completion": "one", "score": 0.25},
        {**PROBLEM, "id": "p2", "completion": "two", "score": 1},
        {**PROBLEM, "completion": "three", "score": None},
    ]
    first, second = read(tmp_path, *rows)
    assert [sample.text for sample in first.samples] == ["one", "three"]
    assert [sample.scores for sample in first.samples] == [(0.25,), ()]
    assert second.problem.external_id == "p2"


def test_columns_may_be_named(tmp_path: Path) -> None:
    row = {
        "nr": 7,
        "q": "1 + 1?",
        "a": "2",
        "tries": [{"said": "two", "parts": ["1 and ", "1 is 2"], "s": [0, 1]}],
    }
    columns = {"id": "nr", "problem": "q", "gold": "a", "samples": "tries", "steps": "parts", "scores": "s"}
    (found,) = read(tmp_path, row, columns=columns)
    assert found.problem.external_id == "7"
    assert found.samples[0].steps == ("1 and ", "1 is 2")
    assert found.samples[0].text == "1 and 1 is 2"


def test_without_an_identifier_one_is_made_from_the_problem(tmp_path: Path) -> None:
    rows = [{"problem": "1 + 1?", "gold": "2", "id": None, "text": text} for text in ("a", "b")]
    (found,) = read(tmp_path, *rows)
    assert found.problem.external_id.startswith("h-")
    assert len(found.samples) == 2


def test_logits_become_probabilities(tmp_path: Path) -> None:
    rows = [{**PROBLEM, "text": "a", "score": score} for score in (0, 3.5, -800, 800)]
    (found,) = read(tmp_path, *rows, are_logits=True)
    scores = [sample.scores[0] for sample in found.samples]
    assert scores == [0.5, pytest.approx(1 / (1 + math.exp(-3.5))), 0.0, 1.0]


def test_verdicts_take_the_place_of_gold_answers(tmp_path: Path) -> None:
    row = {"idx": 900, "samples": [{"text": "so\nAnswer: 3 * 8 = 24", "ok": True}, {"text": "none", "ok": 0}]}
    (found,) = read(tmp_path, row, columns={"problem": "idx", "verdict": "ok"}, answer_after="Answer:")
    assert [(sample.answer, sample.verdict) for sample in found.samples] == [
        ("3 * 8 = 24", True),
        (None, False),
    ]


def test_a_cut_sample_is_known_by_its_finish_reason(tmp_path: Path) -> None:
    rows = [{**PROBLEM, "text": "a", "finish_reason": reason} for reason in ("length", "stop")]
    (found,) = read(tmp_path, *rows)
    assert [sample.is_truncated for sample in found.samples] == [True, False]


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ({"problem": "q", "text": "a"}, {}, ("--field gold", "no gold answers", "--field verdict=COLUMN")),
        ({**PROBLEM, "text": 7}, {}, ("samples.jsonl:1", "text", "wants text")),
        ({**PROBLEM, "text": "a", "score": 1.7}, {}, ("score", "outside of 0..1", "1.7", "--logits")),
        ({**PROBLEM, "text": "a", "score": "high"}, {}, ("score", "is no score", "'high'")),
        ({**PROBLEM, "text": "a", "step_scores": [0.5, True]}, {}, ("step_scores", "is no score")),
        ({**PROBLEM, "samples": "all"}, {}, ("samples", "wants a list of samples")),
        ({**PROBLEM, "samples": [3]}, {}, ("samples", "neither text nor fields", "3")),
        (
            {**PROBLEM, "text": "a"},
            {"columns": {"txt": "text"}},
            ("--field", "is not a role", "did you mean text?"),
        ),
        (
            {**PROBLEM, "text": "a"},
            {"columns": {"text": "txt"}},
            ("--field text", "'txt'", "did you mean text?"),
        ),
        (
            {**PROBLEM, "text": "a", "ok": "yes"},
            {"columns": {"verdict": "ok"}},
            ("ok", "true or false", "'yes'"),
        ),
        (
            {**PROBLEM, "text": "a", "parts": ["a", " "]},
            {"columns": {"steps": "parts"}},
            ("parts", "none of them blank"),
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, row: Mapping[str, Any], options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, row, **options)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_nan_is_no_score(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({**PROBLEM, "text": "a"})[:-1] + ', "score": NaN}\n')
    with pytest.raises(DatasetError, match=r"score|NaN|JSON"):
        read_trajectories(path, "samples.jsonl", Reading({}))


def test_one_identifier_may_not_stand_for_two_problems(tmp_path: Path) -> None:
    rows = [{**PROBLEM, "text": "a"}, {**PROBLEM, "problem": "2 + 2?", "text": "b"}]
    with pytest.raises(DatasetError, match="another problem"):
        read(tmp_path, *rows)
