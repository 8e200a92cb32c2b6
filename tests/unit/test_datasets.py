"""Problems from files, presets and the Hub: mapped, filtered, ordered, cached, checked."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import DatasetError
from orchestrator.problems.datasets import ProblemSet, load_problems
from orchestrator.problems.hub import cache_dir, resolve_url
from orchestrator.problems.presets import PRESETS
from orchestrator.spec.problems import HubFile, ProblemsSpec

DATA = os.environ.get("TTC_TEST_DATA")
needs_data = pytest.mark.skipif(
    DATA is None, reason="TTC_TEST_DATA is not set: no published problems to read"
)

ROWS = [
    {
        "id": f"p{i}",
        "problem": f"What is {i} + 1?",
        "answer": str(i + 1),
        "level": i % 5 + 1,
        "topic": "ab"[i % 2],
    }
    for i in range(30)
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def spec(**data: Any) -> ProblemsSpec:
    return ProblemsSpec.model_validate_json(json.dumps(data))


def load(directory: Path, content: bytes | None = None, *, name: str = "p.jsonl", **data: Any) -> ProblemSet:
    if content is not None:
        (directory / name).write_bytes(content)
    return load_problems(spec(path=name, **data), directory, environ={})


def ids(problems: ProblemSet) -> list[str]:
    return [problem.external_id for problem in problems.problems]


def test_jsonl(tmp_path: Path) -> None:
    made = load(tmp_path, b"\xef\xbb\xbf" + jsonl(ROWS) + b"\n\n")
    assert made.dataset == "p.jsonl"
    assert len(made.problems) == 30
    first = made.problems[0]
    assert (first.external_id, first.statement, first.answer) == ("p0", "What is 0 + 1?", "1")
    assert (first.level, first.subject) == (1, None)
    assert len({problem.content_hash for problem in made.problems}) == 30
    assert made.files[0].sha256 == hashlib.sha256((tmp_path / "p.jsonl").read_bytes()).hexdigest()
    assert made.notes == ()


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.csv", "p.csv.gz", "p.parquet"])
def test_every_format_holds_the_same_problems(name: str, tmp_path: Path) -> None:
    expected = load(tmp_path, jsonl(ROWS)).problems
    table = "id,problem,answer,level,topic\r\n" + "".join(
        f'{r["id"]},"{r["problem"]}",{r["answer"]},{r["level"]},{r["topic"]}\r\n' for r in ROWS
    )
    if name == "p.parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name, row_group_size=7)
        content = None
    else:
        raw = table.encode() if ".csv" in name else jsonl(ROWS)
        content = gzip.compress(raw) if name.endswith(".gz") else raw
    assert load(tmp_path, content, name=name).problems == expected


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    made = load(tmp_path, b'problem,answer\n"a, ""b""\nc",5\n\nd,6\n', name="p.csv")
    assert [problem.statement for problem in made.problems] == ['a, "b"\nc', "d"]


def test_mapping_marks_and_boxes(tmp_path: Path) -> None:
    row = {
        "key": 7,
        "q": "x?",
        "text": "so #### 1\n#### 1,000 ",
        "solution": r"$\boxed{\frac{1}{2}}$.",
        "kind": "Algebra",
    }
    fields = {"id": "key", "statement": "q", "subject": "kind"}
    after = load(tmp_path, jsonl([row]), fields={**fields, "answer": {"column": "text", "after": "####"}})
    boxed = load(tmp_path, fields={**fields, "answer": {"column": "solution", "boxed": True}})
    assert (after.problems[0].external_id, after.problems[0].answer, after.problems[0].subject) == (
        "7",
        "1,000",
        "Algebra",
    )
    assert boxed.problems[0].answer == r"\frac{1}{2}"


@pytest.mark.parametrize(
    ("level", "number"),
    [(3, 3), (3.0, 3), ("3", 3), ("Level 3", 3), ("Level ?", None), (None, None), ("hard", None)],
)
def test_levels(level: object, number: int | None, tmp_path: Path) -> None:
    row = {"problem": "x", "answer": 0.5, "level": level}
    problem = load(tmp_path, jsonl([row])).problems[0]
    assert (problem.level, problem.answer) == (number, "0.5")


def test_identifiers_are_made_from_the_problem_where_there_are_none(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": "1"},
        {"question": "b", "answer": "1"},
        {"question": "a", "answer": "1"},
    ]
    made = load(tmp_path, jsonl(rows))
    assert len(made.problems) == 2
    assert ids(made) == ids(load(tmp_path, jsonl(rows[:2])))
    assert "made from the statements" in made.notes[0]
    assert "1 problems stand there twice" in made.notes[1]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ({"level": 4}, [3, 8, 13, 18, 23, 28]),
        ({"level": [4, 5], "topic": "a"}, [4, 8, 14, 18, 24, 28]),
        ({"id": ["p3", "p4"]}, [3, 4]),
        ({"answer": 5}, [4]),
    ],
)
def test_filter_on_any_column(wanted: dict[str, Any], kept: list[int], tmp_path: Path) -> None:
    for name in ("p.jsonl", "p.csv"):
        lines = ["id,problem,answer,level,topic", *(",".join(map(str, row.values())) for row in ROWS)]
        content = jsonl(ROWS) if name == "p.jsonl" else "\n".join(lines).encode()
        assert ids(load(tmp_path, content, name=name, filter=wanted)) == [f"p{i}" for i in kept]


def test_filter_by_the_number_of_a_written_level(tmp_path: Path) -> None:
    rows = [{**row, "level": f"Level {row['level']}"} for row in ROWS]
    assert ids(load(tmp_path, jsonl(rows), filter={"level": 4}, limit=2)) == ["p3", "p8"]
    assert ids(load(tmp_path, filter={"level": "Level 4"}, limit=2)) == ["p3", "p8"]


def test_shuffle_is_fixed_by_seed_and_identifiers_alone(tmp_path: Path) -> None:
    """The literal order is part of the contract: another one would change what `limit` keeps."""
    made = ids(load(tmp_path, jsonl(ROWS), shuffle=7))
    assert made == ids(load(tmp_path, jsonl(ROWS[::-1]), shuffle=7))
    assert made != ids(load(tmp_path, shuffle=8))
    assert sorted(made) == sorted(row["id"] for row in ROWS)
    assert made[:5] == ["p10", "p19", "p26", "p4", "p13"]


def test_per_level_then_limit(tmp_path: Path) -> None:
    made = load(tmp_path, jsonl(ROWS), per_level=2, shuffle=1)
    levels = [problem.level for problem in made.problems]
    assert {level: levels.count(level) for level in set(levels)} == {1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
    assert ids(load(tmp_path, per_level=2, shuffle=1, limit=3)) == ids(made)[:3]
    assert made.notes == ("10 of 30 problems chosen",)


def test_every_wrong_row_is_told(tmp_path: Path) -> None:
    bad = jsonl(
        [{"id": "p0", "problem": "x", "answer": ""}, {"id": "q", "problem": 5, "answer": []}, {"id": "p0"}]
    )
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, jsonl(ROWS) + bad + b"{\n")
    assert [finding.line for finding in caught.value.findings] == [31, 32, 33, 34]


def test_arithmetic_comes_with_ttc(tmp_path: Path) -> None:
    made = load_problems(spec(preset="arithmetic", per_level=20, shuffle=7), tmp_path, environ={})
    assert len(made.problems) == 100
    assert {problem.level for problem in made.problems} == {1, 2, 3, 4, 5}
    assert all(int(problem.answer) is not None for problem in made.problems)
    assert made.dataset == "arithmetic"


@needs_data
def test_published_problems() -> None:
    base = Path(DATA or "")
    plain = load_problems(spec(path="math500.jsonl"), base, environ={})
    boxed_field = {"column": "solution", "boxed": True}
    boxed = load_problems(spec(path="math500.jsonl", fields={"answer": boxed_field}), base, environ={})
    assert len(plain.problems) == 500
    assert boxed.problems == plain.problems
    assert plain.files[0].sha256 == PRESETS["math500"].files[0].sha256
    after = {"column": "answer", "after": "####"}
    gsm8k = load_problems(spec(path="gsm8k_test.jsonl", fields={"answer": after}), base, environ={})
    assert len(gsm8k.problems) == 1319
    assert gsm8k.problems[0].answer == "18"


class Hub(ThreadingHTTPServer):
    """A loopback stand-in for the Hub: serves `files` by path, and counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.announced_extra = 0
        super().__init__(("127.0.0.1", 0), partial(_Handler))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"") + self.server.announced_extra))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "TTC_CACHE_DIR": str(tmp_path / "cache")}


def hub_spec(content: bytes, *, is_pinned: bool = True) -> ProblemsSpec:
    digest = {"sha256": hashlib.sha256(content).hexdigest()} if is_pinned else {}
    return spec(hub={"repo": "me/set", "file": "data/p.jsonl", "revision": COMMIT, **digest})


PATH = f"/datasets/me/set/resolve/{COMMIT}/data/p.jsonl"


def cached(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.mark.parametrize("is_pinned", [True, False])
def test_hub_file_is_fetched_once(is_pinned: bool, hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = jsonl(ROWS)
    environ = environment(hub, tmp_path)
    sweep = hub_spec(jsonl(ROWS), is_pinned=is_pinned)
    first = load_problems(sweep, tmp_path, environ=environ)
    second = load_problems(sweep, tmp_path, environ=environ | {"HF_HUB_OFFLINE": "1"})
    assert hub.requests == [PATH]
    assert first.problems == second.problems
    assert first.dataset == "me/set/data/p.jsonl"
    assert first.notes[0].startswith("fetched: http")
    assert hashlib.sha256(jsonl(ROWS)).hexdigest() in first.notes[0]
    assert second.notes[0].startswith("read from the cache")
    assert [path.name for path in cached(tmp_path)] == ["p.jsonl", "p.jsonl.sha256"]


@pytest.mark.parametrize("is_pinned", [True, False])
def test_damaged_cache_is_fetched_again(is_pinned: bool, hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = jsonl(ROWS)
    sweep = hub_spec(jsonl(ROWS), is_pinned=is_pinned)
    load_problems(sweep, tmp_path, environ=environment(hub, tmp_path))
    cached(tmp_path)[0].write_bytes(b"{}")
    made = load_problems(sweep, tmp_path, environ=environment(hub, tmp_path))
    assert len(made.problems) == 30
    assert len(hub.requests) == 2


def test_wrong_checksum_is_refused_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = jsonl(ROWS[:3])
    with pytest.raises(DatasetError, match="checksum"):
        load_problems(hub_spec(jsonl(ROWS)), tmp_path, environ=environment(hub, tmp_path))
    assert cached(tmp_path) == []


def test_broken_transfer_is_refused_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = jsonl(ROWS)
    hub.announced_extra = 10
    with pytest.raises(DatasetError, match=r"broke off|cannot be fetched"):
        load_problems(hub_spec(jsonl(ROWS), is_pinned=False), tmp_path, environ=environment(hub, tmp_path))
    assert cached(tmp_path) == []


def test_missing_file_and_silent_server_say_what_to_do(hub: Hub, tmp_path: Path) -> None:
    environ = environment(hub, tmp_path)
    with pytest.raises(DatasetError, match="404") as caught:
        load_problems(hub_spec(b""), tmp_path, environ=environ)
    assert "check repo, file and revision" in str(caught.value)
    with pytest.raises(DatasetError, match=r"problems\.path"):
        load_problems(hub_spec(b""), tmp_path, environ=environ | {"HF_HUB_OFFLINE": "1"})
    with pytest.raises(DatasetError, match="cannot be fetched") as caught:
        load_problems(
            hub_spec(b""), tmp_path, environ=environ | {"HF_ENDPOINT": "http://u:hunter2@127.0.0.1:9"}
        )
    assert "hunter2" not in str(caught.value)
    assert "problems.path" in str(caught.value)
    with pytest.raises(DatasetError, match="HF_ENDPOINT"):
        load_problems(hub_spec(b""), tmp_path, environ=environ | {"HF_ENDPOINT": "file:///etc"})
    assert cached(tmp_path) == []


def test_preset_of_several_parquet_files(hub: Hub, tmp_path: Path) -> None:
    """The columns of MATH as its mirror has them: no identifier, no answer, a written level."""
    for number, file in enumerate(PRESETS["math"].files):
        row = {
            "problem": f"q{number}",
            "level": "Level 2",
            "type": "X",
            "solution": rf"So $\boxed{{{number}}}$.",
        }
        pq.write_table(pa.Table.from_pylist([row]), path := tmp_path / "one.parquet")
        hub.files[f"/datasets/{file.repo}/resolve/{file.revision}/{file.file}"] = path.read_bytes()
    made = load_problems(
        spec(preset="math", filter={"level": 2}), tmp_path, environ=environment(hub, tmp_path)
    )
    assert [(problem.answer, problem.level, problem.subject) for problem in made.problems] == [
        (str(number), 2, "X") for number in range(7)
    ]
    assert len(made.files) == 7


@pytest.mark.parametrize("name", ["math500", "gsm8k"])
def test_preset_refuses_other_bytes_than_its_own(name: str, hub: Hub, tmp_path: Path) -> None:
    for file in PRESETS[name].files:
        hub.files[f"/datasets/{file.repo}/resolve/{file.revision}/{file.file}"] = jsonl(ROWS)
    with pytest.raises(DatasetError, match="checksum"):
        load_problems(spec(preset=name), tmp_path, environ=environment(hub, tmp_path))


@needs_data
def test_preset_of_the_published_file(hub: Hub, tmp_path: Path) -> None:
    file = PRESETS["math500"].files[0]
    hub.files[f"/datasets/{file.repo}/resolve/{file.revision}/{file.file}"] = (
        Path(DATA or "") / "math500.jsonl"
    ).read_bytes()
    made = load_problems(
        spec(preset="math500", filter={"level": 5}), tmp_path, environ=environment(hub, tmp_path)
    )
    assert len(made.problems) == 134
    assert made.dataset == "math500"


def test_addresses_are_pinned_and_quoted() -> None:
    file = HubFile(repo="a/b", file="c d.jsonl", revision="refs/pr/1", sha256="0" * 64)
    assert resolve_url(file, {}) == "https://huggingface.co/datasets/a/b/resolve/refs%2Fpr%2F1/c%20d.jsonl"
    for preset in PRESETS.values():
        assert all(len(file.revision) == 40 for file in preset.files)


def test_cache_directory() -> None:
    assert cache_dir({"TTC_CACHE_DIR": "/x"}) == Path("/x")
    assert cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/ttc")
    assert cache_dir({}) == Path.home() / ".cache" / "ttc"
