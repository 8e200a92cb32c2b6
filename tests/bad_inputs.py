"""Sweep files and problem files that are wrong, each with what the error must say.

One table for two users: `tests/integration/test_bad_input.py` runs it against the functions, and it can be
run against `ttc run FILE` as it stands, since a case is nothing but files in a directory.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "hunter2hunter2"
"""No error may show it."""
SWEEP = "sweep.yaml"

GOOD_PROBLEMS = b'{"id": "a", "problem": "1+1?", "answer": "2", "level": 1}\n'
_MODELS = "models: {policy: {embedded: arithmetic}}\n"
_STRATEGIES = "strategies: [{name: s, kind: parallel, policy: policy, samples: 8}]\n"
_PATH = "problems: {path: p.jsonl}\n"
GOOD_SWEEP = f"name: demo\n{_PATH}{_MODELS}{_STRATEGIES}"


@dataclass(frozen=True)
class BadInput:
    """Files to write, and what the error must show: the file, the field, the value and the remedy."""

    name: str
    wants: tuple[str, ...]
    sweep: str | bytes = GOOD_SWEEP
    files: Mapping[str, bytes] = field(default_factory=lambda: {"p.jsonl": GOOD_PROBLEMS})

    def write(self, directory: Path) -> Path:
        """Write the case into `directory`; the path of its sweep file."""
        for name, content in self.files.items():
            (directory / name).write_bytes(content)
        path = directory / SWEEP
        path.write_bytes(self.sweep.encode() if isinstance(self.sweep, str) else self.sweep)
        return path


def sweep(
    *, problems: str = _PATH, models: str = _MODELS, strategies: str = _STRATEGIES, more: str = ""
) -> str:
    """A sweep file with some of its sections replaced."""
    return f"name: demo\n{problems}{models}{strategies}{more}"


def rows(name: str, content: bytes, *wants: str, file: str = "p.jsonl", problems: str = "") -> BadInput:
    """A case whose problem file is wrong."""
    text = sweep(problems=problems or f"problems: {{path: {file}}}\n")
    return BadInput(name, (file, *wants), text, {file: content})


def model(name: str, text: str, *wants: str) -> BadInput:
    """A case whose model is wrong."""
    return BadInput(name, (SWEEP, *wants), sweep(models=f"models:\n  policy: {{{text}}}\n"))


SWEEPS = (
    BadInput("empty", (SWEEP, "is empty", "examples/"), ""),
    BadInput("list", (SWEEP, "is not a mapping", "['a', 'b']", "name:"), "[a, b]"),
    BadInput("syntax", (f"{SWEEP}:3:1", "not valid YAML", "indentation"), "name: x\nproblems: {a: b\n"),
    BadInput("tab", (f"{SWEEP}:2:1", "spaces, not with tabs"), "problems:\n\tpath: x\n"),
    BadInput(
        "latin-1", (f"{SWEEP}:2", "not UTF-8", "0xE9", "save the file as UTF-8"), b"a: 1\nname: caf\xe9\n"
    ),
    BadInput("control character", (f"{SWEEP}:1", "U+0007", "remove it"), 'name: "\x07"'),
    BadInput("too large", (SWEEP, "1000000", "file of their own"), "#" + "x" * 1_000_001),
    BadInput("two documents", (f"{SWEEP}:2", "second document"), "name: a\n---\nname: b\n"),
    BadInput(
        "repeated key", (f"{SWEEP}:5:1", "name", "on line 1", "remove one"), GOOD_SWEEP + "name: again\n"
    ),
    BadInput(
        "python tag",
        (f"{SWEEP}:1:7", "name", "tags", "os.system"),
        'name: !!python/object/apply:os.system ["x"]',
    ),
    BadInput("deep", (f"{SWEEP}:1:41", "deeply nested"), "[" * 1000),
    BadInput("alias to itself", (SWEEP, "aliases", "write the values out"), "name: &a [*a]"),
    BadInput(
        "alias bomb",
        (SWEEP, "aliases", "write the values out"),
        "a: &a [1,2,3,4,5,6,7,8,9]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
    ),
    BadInput("merge key", (SWEEP, "merge keys", "alias"), GOOD_SWEEP + "limits: {<<: {workers: 2}}\n"),
    BadInput("unknown field", (f"{SWEEP}:5:1", "stroe", "did you mean store?"), sweep(more="stroe: x\n")),
    BadInput("missing section", (SWEEP, "models", "is required", "add models"), sweep(models="")),
    BadInput("name", (f"{SWEEP}:1:7", "name", "'a b'", "letters, digits"), GOOD_SWEEP.replace("demo", "a b")),
    BadInput(
        "number as name",
        (f"{SWEEP}:1:7", "name", "wants text", "5", "quotes"),
        GOOD_SWEEP.replace("demo", "5"),
    ),
    BadInput(
        "store",
        (f"{SWEEP}:5:8", "store", "mysql", "sqlite:///"),
        sweep(more=f"store: mysql://u:{SECRET}@h/d\n"),
    ),
    BadInput("fraction", (f"{SWEEP}:5:7", "seed", "1.5", "whole number"), sweep(more="seed: 1.5\n")),
    BadInput(
        "two sources",
        (SWEEP, "problems", "path and preset"),
        sweep(problems="problems: {path: x, preset: math}\n"),
    ),
    BadInput(
        "moving revision",
        (SWEEP, "problems.hub.revision", "'main'", "sha256"),
        sweep(problems="problems: {hub: {repo: a/b, file: c.jsonl, revision: main}}\n"),
    ),
    BadInput(
        "path out of the repository",
        (SWEEP, "problems.hub.file", "leaves the repository"),
        sweep(problems=f"problems: {{hub: {{repo: a/b, file: a/../../c, revision: {'0' * 40}}}}}\n"),
    ),
    model(
        "unknown embedded", "embedded: arithmetik", "models.policy.embedded", "'arithmetik'", "arithmetic?"
    ),
    model("both servers", "embedded: arithmetic, endpoints: http://h/v1", "models.policy", "exactly one of"),
    model("no model name", "endpoints: http://h/v1", "models.policy", "model is required", "model: NAME"),
    model(
        "engine beside endpoints",
        "model: m, endpoints: http://h/v1, engine: {template: vllm}",
        "models.policy",
        "exactly one of",
        "keep one",
    ),
    model("engine of no kind", "model: m, engine: {gpus: 1}", "models.policy.engine", "template and command"),
    model(
        "unknown template",
        "model: m, engine: {template: vlm}",
        "models.policy.engine.template",
        "'vlm'",
        "did you mean vllm?",
    ),
    model(
        "command without a port",
        "model: m, engine: {command: vllm serve m}",
        "models.policy.engine.command",
        "'vllm serve m'",
        "write {port}",
    ),
    model(
        "command for a shell",
        "model: m, engine: {command: 'cd x && serve {port}'}",
        "models.policy.engine.command",
        "no shell reads it",
        "script",
    ),
    model(
        "unknown placeholder",
        "model: m, engine: {command: 'serve {prot}'}",
        "models.policy.engine.command",
        "{prot}",
        "{port}",
    ),
    model(
        "open quote",
        "model: m, engine: {command: 'serve \"{port}'}",
        "models.policy.engine.command",
        "quote",
        "close it",
    ),
    model(
        "key in a command",
        f"model: m, engine: {{command: 'serve --port {{port}} --api-key {SECRET}'}}",
        "models.policy.engine.command",
        "holds a key",
        "under env",
    ),
    model(
        "key in arguments",
        f"model: m, engine: {{template: vllm, args: [--api-key={SECRET}]}}",
        "models.policy.engine.args",
        "holds a key",
        "under env",
    ),
    model(
        "value for the name of a variable",
        f"model: m, engine: {{template: vllm, env: [HF_TOKEN={SECRET}]}}",
        "models.policy.engine.env",
        "not the name of an environment variable",
    ),
    model(
        "a GPU and a half",
        "model: m, engine: {template: vllm, gpus: 1.5}",
        "models.policy.engine.gpus",
        "1.5",
        "write 0.5, 1 or 2",
    ),
    model(
        "fewest above most",
        "model: m, engine: {template: vllm, replicas: {min: 3, max: 2}}",
        "models.policy.engine.replicas.min",
        "more than max",
    ),
    model(
        "embedded engine of another's model",
        "model: arithmetik, engine: {template: embedded}",
        "models.policy.model",
        "'arithmetik'",
        "arithmetic",
    ),
    model(
        "url scheme",
        "endpoints: 'ftp://h/v1', model: m",
        "models.policy.endpoints",
        "'ftp://h/v1'",
        "http://",
    ),
    model(
        "url of a call",
        "endpoints: http://h/v1/completions, model: m",
        "models.policy.endpoints",
        "up to and including /v1",
    ),
    model(
        "password in url",
        f"endpoints: 'http://u:{SECRET}@h/v1', model: m",
        "models.policy.endpoints",
        "***",
        "api_key_env",
    ),
    model(
        "key for its name", f"embedded: arithmetic, api_key_env: sk-{SECRET}", "api_key_env", "***", "NAME"
    ),
    model(
        "no placeholder",
        "embedded: arithmetic, prompt: solve it",
        "models.policy.prompt",
        "'solve it'",
        "{problem}",
    ),
    model(
        "hot",
        "embedded: arithmetic, sampling: {temperature: hot}",
        "sampling.temperature",
        "'hot'",
        "wants a number",
    ),
    model(
        "five stops",
        "embedded: arithmetic, sampling: {stop: [a, b, c, d, e]}",
        "sampling.stop",
        "keep 4 at most",
    ),
    model(
        "greedy",
        "embedded: arithmetic, sampling: {temperature: 0}",
        f"{SWEEP}:4:",
        "8 times",
        "strategies[0].samples on line",
    ),
    model(
        "typo",
        "embedded: arithmetic, sampling: {max_token: 4}",
        "sampling.max_token",
        "did you mean max_tokens?",
    ),
    BadInput(
        "strategy kind",
        (f"{SWEEP}:4:", "strategies[0].kind", "'annealing'", "parallel"),
        sweep(strategies="strategies: [{name: s, kind: annealing, policy: policy, samples: 8, width: 4}]\n"),
    ),
    BadInput(
        "unknown policy",
        (f"{SWEEP}:4:", "strategies[0].policy", "'polcy'", "did you mean policy?"),
        sweep(strategies="strategies: [{name: s, kind: parallel, policy: polcy, samples: 8}]\n"),
    ),
    BadInput(
        "too many samples",
        (SWEEP, "strategies[0].samples", "1048576", "write less than 1048576"),
        sweep(strategies="strategies: [{name: s, kind: parallel, policy: policy, samples: 1048576}]\n"),
    ),
    BadInput(
        "repeated strategy",
        (f"{SWEEP}:6:", "strategies[1].name", "strategies[0].name on line 5", "'s'"),
        sweep(
            strategies="strategies:\n"
            "  - {name: s, kind: parallel, policy: policy, samples: 8}\n"
            "  - {name: s, kind: parallel, policy: policy, samples: 4}\n"
        ),
    ),
    BadInput(
        "budget too large",
        (
            f"{SWEEP}:5:",
            "budgets[1]",
            "64",
            "8 samples",
            "strategies[0].samples on line 4",
            "raise samples to 64",
        ),
        sweep(more="budgets: [1, 64]\n"),
    ),
    BadInput(
        "selector",
        (f"{SWEEP}:5:", "selectors[0]", "'bestofn'", "majority, pass"),
        sweep(more="selectors: [bestofn]\n"),
    ),
    BadInput(
        "scorer without labels",
        (f"{SWEEP}:6:", "scorers.prm", "wants label_type or aggregation", "hard or soft"),
        sweep(more="scorers:\n  prm: {kind: prm, format: qwen, endpoints: http://h/v1, model: m}\n"),
    ),
    BadInput(
        "scorer without format",
        (f"{SWEEP}:6:", "scorers.prm", "format is required", "format: qwen"),
        sweep(more="scorers:\n  prm: {kind: prm, label_type: soft, endpoints: http://h/v1, model: m}\n"),
    ),
    BadInput(
        "format of a scorer",
        (f"{SWEEP}:6:", "scorers.prm.format", "'qwen3'", "did you mean qwen?"),
        sweep(
            more="scorers:\n"
            "  prm: {kind: prm, format: qwen3, label_type: soft, endpoints: http://h/v1, model: m}\n"
        ),
    ),
    BadInput(
        "scorer that is served nowhere",
        (f"{SWEEP}:6:", "scorers.judge", "exactly one of embedded, endpoints and engine"),
        sweep(more="scorers:\n  judge: {kind: judge, model: m}\n"),
    ),
    BadInput(
        "two names for one scorer",
        (f"{SWEEP}:7:", "scorers.two", "gives the same scores as one", "keep one"),
        sweep(
            more="scorers:\n"
            "  one: {kind: prm, embedded: arithmetic-prm-soft}\n"
            "  two: {kind: prm, embedded: arithmetic-prm-soft, aggregation: min}\n"
        ),
    ),
    BadInput(
        "judge that repeats itself",
        (f"{SWEEP}:6:", "scorers.judge.judgements", "same verdict every time", "temperature"),
        sweep(more="scorers:\n  judge: {kind: judge, endpoints: http://h/v1, model: m, judgements: 4}\n"),
    ),
    BadInput(
        "selector without its scorer",
        (f"{SWEEP}:5:", "selectors[0].scorer", "'prm'", "not the name of a scorer"),
        sweep(more="selectors: [{kind: weighted, scorer: prm}]\n"),
    ),
    BadInput(
        "aggregation of one score",
        (f"{SWEEP}:6:", "selectors[0].aggregation", "nothing to aggregate", "remove it"),
        sweep(
            more="scorers: {orm: {kind: orm, embedded: arithmetic-orm}}\n"
            "selectors: [{kind: weighted, scorer: orm, aggregation: min}]\n"
        ),
    ),
    BadInput(
        "filter with two rules",
        (f"{SWEEP}:6:", "selectors[0].share", "exclude each other", "keep one"),
        sweep(
            more="scorers: {orm: {kind: orm, embedded: arithmetic-orm}}\n"
            "selectors: [{kind: filter-vote, scorer: orm, threshold: 0.5, share: 0.5}]\n"
        ),
    ),
    BadInput(
        "rollouts of no strategy",
        (f"{SWEEP}:6:", "strategies[1].source", "'sampled'", "name one of the parallel strategies: s"),
        sweep(
            strategies="strategies:\n"
            "  - {name: s, kind: parallel, policy: policy, samples: 8}\n"
            "  - {name: v, kind: rollouts, source: sampled, completer: policy, solutions: 4}\n"
        ),
    ),
    BadInput(
        "rollouts of more than there is",
        (f"{SWEEP}:6:", "strategies[1].solutions", "more than the 8 solutions", "lower it to 8"),
        sweep(
            strategies="strategies:\n"
            "  - {name: s, kind: parallel, policy: policy, samples: 8}\n"
            "  - {name: v, kind: rollouts, source: s, completer: policy, solutions: 9}\n"
        ),
    ),
    BadInput(
        "completer that is no model",
        (f"{SWEEP}:6:", "strategies[1].completer", "'police'", "did you mean policy?"),
        sweep(
            strategies="strategies:\n"
            "  - {name: s, kind: parallel, policy: policy, samples: 8}\n"
            "  - {name: v, kind: rollouts, source: s, completer: police, solutions: 4}\n"
        ),
    ),
    BadInput(
        "many problems", (SWEEP, "... and 11 more"), sweep(more="".join(f"field{i}: 1\n" for i in range(20)))
    ),
    BadInput("long value", (SWEEP, "name", "..."), GOOD_SWEEP.replace("demo", "x y" * 100_000)),
)

DATASETS = (
    BadInput(
        "no file",
        ("p.jsonl", "problems.path", "does not exist", "did you mean q.jsonl?"),
        files={"q.jsonl": b"{}"},
    ),
    BadInput("directory", ("is a directory", "name one file"), sweep(problems="problems: {path: .}\n")),
    rows("suffix", b"x", "suffix", ".parquet", file="p.txt"),
    rows("no rows", b"\n\n", "holds no problems", "one problem a line"),
    rows(
        "not json", GOOD_PROBLEMS + b"{'id': 1}\n", "p.jsonl:2:2", "not valid JSON", "one JSON object a line"
    ),
    rows("not an object", b'["a", "b"]\n', "p.jsonl:1", "not a JSON object", "['a', 'b']"),
    rows("not a number", b'{"problem": "x", "answer": NaN}\n', "p.jsonl:1", "JSON does not allow"),
    rows("bomb of brackets", b"[" * 200_000 + b"\n", "p.jsonl:1", "nested too deeply"),
    rows(
        "rows in latin-1",
        GOOD_PROBLEMS + b'{"problem": "\xe9"}\n',
        "p.jsonl:2:14",
        "not UTF-8",
        "0xE9",
        "save the file",
    ),
    rows(
        "line without end", b"x" * 8_000_001, "p.jsonl:1", "longer than 8000000 bytes", "one problem a line"
    ),
    rows(
        "missing column",
        b'{"question": "x", "solution": "y"}\n',
        "problems.fields.answer",
        "answer, gold, target",
        "solution",
    ),
    rows(
        "misspelt column",
        b'{"unique_id": "a", "problem": "x", "answer": "y"}\n',
        "problems.fields.id",
        "'uniqe_id'",
        "did you mean unique_id?",
        problems="problems: {path: p.jsonl, fields: {id: uniqe_id}}\n",
    ),
    rows(
        "empty statement",
        GOOD_PROBLEMS + b'{"id": "b", "problem": " ", "answer": "2"}\n',
        "p.jsonl:2",
        "problem",
        "is empty",
        "' '",
    ),
    rows(
        "no gold",
        GOOD_PROBLEMS + b'{"id": "b", "problem": "x", "answer": null}\n',
        "p.jsonl:2",
        "answer",
        "is empty",
        "gold answer",
    ),
    rows(
        "missing cell",
        GOOD_PROBLEMS + b'{"id": "b", "answer": "2"}\n',
        "p.jsonl:2",
        "problem",
        "missing in this row",
    ),
    rows(
        "wrong type",
        b'{"problem": ["x"], "answer": true}\n',
        "p.jsonl:1",
        "problem",
        "wants text",
        "['x']",
        "quotes",
    ),
    rows("two ids", GOOD_PROBLEMS * 2, "p.jsonl:2", "id", "'a'", "line 1 too", "identifier of its own"),
    rows("nul", b'{"problem": "x\\u0000", "answer": "1"}\n', "p.jsonl:1", "problem", "NUL"),
    rows("surrogate", b'{"problem": "x", "answer": "\\ud800"}\n', "p.jsonl:1", "answer", "surrogates"),
    rows(
        "level",
        b'{"problem": "x", "answer": "1", "level": "hard"}\n',
        "p.jsonl:1",
        "level",
        "'hard'",
        "whole number",
        problems="problems: {path: p.jsonl, fields: {level: level}}\n",
    ),
    rows(
        "no mark",
        b'{"problem": "x", "answer": "so 5"}\n',
        "p.jsonl:1",
        "answer",
        "does not contain ####",
        "'so 5'",
        problems='problems: {path: p.jsonl, fields: {answer: {column: answer, after: "####"}}}\n',
    ),
    rows(
        "no box",
        b'{"problem": "x", "solution": "the answer is 5"}\n',
        "p.jsonl:1",
        "solution",
        "boxed",
        "the answer is 5",
        problems="problems: {path: p.jsonl, fields: {answer: {column: solution, boxed: true}}}\n",
    ),
    rows(
        "filter column",
        GOOD_PROBLEMS,
        "problems.filter.levle",
        "did you mean level?",
        problems="problems: {path: p.jsonl, filter: {levle: 1}}\n",
    ),
    rows(
        "filter keeps nothing",
        GOOD_PROBLEMS,
        "problems.filter.level",
        "[7]",
        "values there: 1",
        problems="problems: {path: p.jsonl, filter: {level: 7}}\n",
    ),
    rows(
        "no levels",
        b'{"problem": "x", "answer": "1"}\n',
        "problems.per_level",
        "level",
        problems="problems: {path: p.jsonl, per_level: 2}\n",
    ),
    rows(
        "csv cells",
        b"problem,answer\n1+1,2\n1,2,3\n",
        "p.csv:3",
        "3 cells",
        "header has 2",
        "quote",
        file="p.csv",
    ),
    rows("csv quotes", b'problem,answer\n"1+1,2\n', "p.csv:2", "not valid CSV", "quote", file="p.csv"),
    rows("csv header", b"problem,problem\n1,2\n", "p.csv:1", "problem", "two columns", file="p.csv"),
    rows(
        "gzip", gzip.compress(GOOD_PROBLEMS)[:-9], "not a whole gzip", "compress it again", file="p.jsonl.gz"
    ),
    rows("not gzip", GOOD_PROBLEMS, "not a whole gzip", file="p.jsonl.gz"),
    rows("parquet", b"PAR1 but not really", "not a valid Parquet file", file="p.parquet"),
)

ALL = SWEEPS + DATASETS
