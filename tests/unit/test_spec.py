"""The sweep file: what it means, what it defaults to, and how YAML is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec.engine_settings import engine_group
from orchestrator.spec.file import load_sweep, sweep_from, sweep_schema
from orchestrator.spec.models import ModelSpec
from orchestrator.spec.scorer_settings import scorer_fingerprint
from orchestrator.spec.scorers import AnyScorer, PrmScorer
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import (
    config_json,
    generator_fingerprint,
    generator_settings,
    samples_per_request,
    store_url,
)
from orchestrator.spec.yaml_text import dotted, plain_scalar, read_yaml
from workers.steps import Aggregation
from workers.types import Api, Sampling

EXAMPLES = Path(__file__).parents[2] / "examples"


def sweep_data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "demo",
        "problems": {"preset": "arithmetic"},
        "models": {"policy": {"embedded": "arithmetic"}},
        "strategies": [{"name": "s", "kind": "parallel", "policy": "policy", "samples": 100}],
        **changes,
    }


def model(**changes: Any) -> ModelSpec:
    data = {"endpoints": ["http://h:8000/v1"], "model": "m", **changes}
    return sweep_from(sweep_data(models={"policy": data})).models["policy"]


SCORERS: dict[str, dict[str, Any]] = {
    "prm": {"kind": "prm", "format": "math-shepherd", "label_type": "hard"},
    "generative": {"kind": "prm", "format": "generative", "label_type": "hard"},
    "orm": {"kind": "orm"},
    "judge": {"kind": "judge", "sampling": {"temperature": 1.0}},
}


def scorer(name: str, **changes: Any) -> AnyScorer:
    data = {"endpoints": ["http://h:8000/v1"], "model": "m", **SCORERS[name], **changes}
    return sweep_from(sweep_data(scorers={name: data})).scorers[name]


def refused(data: dict[str, Any]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        sweep_from(data)
    return caught.value


def served_by(engine: dict[str, Any], **changes: Any) -> ModelSpec:
    data = {"model": "m", "engine": engine, **changes}
    return sweep_from(sweep_data(models={"policy": data})).models["policy"]


def test_neither_engines_nor_endpoints_change_what_a_sample_means() -> None:
    alike = [
        model(),
        served_by({"template": "vllm", "replicas": 4}),
        served_by({"command": "serve {model} --port {port}", "gpus": 2, "replicas": {"max": 3}}),
    ]
    assert len({generator_fingerprint(each) for each in alike}) == 1
    assert generator_fingerprint(served_by({"template": "vllm"}, revision="r2")) != generator_fingerprint(
        alike[0]
    )


def test_an_engine_of_the_embedded_model_draws_the_samples_of_the_embedded_model() -> None:
    embedded = sweep_from(sweep_data()).models["policy"]
    engine = served_by({"template": "embedded", "replicas": 2}, model="arithmetic")
    assert engine.built_in == embedded.built_in == "arithmetic"
    assert generator_fingerprint(engine) == generator_fingerprint(embedded)
    assert samples_per_request(engine) == samples_per_request(embedded)


def test_an_engine_of_an_embedded_reward_model_gives_its_scores() -> None:
    common = {"kind": "prm"}
    pair = [{**common, "embedded": "arithmetic-prm-hard"}, {**common, "model": "arithmetic-prm-hard"}]
    pair[1]["engine"] = {"template": "embedded"}  # type: ignore[assignment]
    prints = set()
    for data in pair:
        (found,) = sweep_from(sweep_data(scorers={"s": data})).scorers.values()
        assert isinstance(found, PrmScorer)
        assert (found.wire_format, found.labels, found.step_aggregation) == ("embedded", "hard", "min")
        prints.add(scorer_fingerprint(found))
    assert len(prints) == 1


def command_of(engine: dict[str, Any], **changes: Any) -> str:
    return " ".join(engine_group("models", "policy", served_by(engine, **changes)).settings.command)


def test_commands_of_templates() -> None:
    vllm = command_of({"template": "vllm", "args": ["--max-num-seqs", "64"]}, revision="abc")
    assert vllm.startswith("vllm serve m --served-model-name m --revision abc --host {host} --port {port}")
    assert vllm.endswith("--max-num-seqs 64")
    assert "--model-path /w --served-model-name m" in command_of({"template": "sglang", "weights": "/w"})
    assert "--model w.gguf --alias m" in command_of({"template": "llama.cpp", "weights": "w.gguf"})
    assert command_of({"command": "s '{model} x' -p {port}"}) == "s m x -p {port}"


def test_what_an_engine_needs_and_how_many_there_are() -> None:
    assert engine_group("models", "p", served_by({"template": "vllm"})).needs.gpus == 1
    group = engine_group(
        "models",
        "p",
        served_by(
            {"template": "vllm", "gpus": 0, "cpus": 4, "resources": {"big": 1}, "replicas": {"max": 4}},
            limits={"concurrency": 50},
        ),
    )
    assert str(group.needs) == "4 CPU, 1 big"
    assert (group.scale.least, group.scale.most, group.scale.requests) == (1, 4, 13)
    fixed = engine_group("models", "p", served_by({"template": "vllm", "replicas": 2})).scale
    assert (fixed.least, fixed.most) == (2, 2)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.budget_grid[0] == 1
    assert "name" in json.loads(config_json(sweep))


def test_defaults() -> None:
    sweep = sweep_from(sweep_data())
    policy = sweep.models["policy"]
    assert sweep.budget_grid == (1, 2, 4, 8, 16, 32, 64)
    assert [selector.kind for selector in sweep.chosen_selectors] == ["pass", "majority"]
    assert (sweep.seed, sweep.store, sweep.limits.workers, sweep.limits.tokens) == (0, None, 2, None)
    assert (policy.served_name, policy.template, policy.api) == (
        "arithmetic",
        "{problem}\n\n",
        Api.COMPLETIONS,
    )
    assert model(api="chat").template == "{problem}"


@pytest.mark.parametrize(
    ("samples", "grid"), [(1, (1,)), (2, (1, 2)), (7, (1, 2, 4)), (2048, tuple(2**k for k in range(12)))]
)
def test_budgets_are_powers_of_two_up_to_the_samples(samples: int, grid: tuple[int, ...]) -> None:
    strategy = {"name": "s", "kind": "parallel", "policy": "policy", "samples": samples}
    assert sweep_from(sweep_data(strategies=[strategy])).budget_grid == grid


def test_budgets_are_sorted() -> None:
    assert sweep_from(sweep_data(budgets=[16, 3, 1])).budget_grid == (1, 3, 16)


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError):
        sweep_from(sweep_data()).name = "other"


def test_one_value_may_stand_for_a_list_and_a_name_for_a_mapping() -> None:
    problems = {
        "path": "p.jsonl",
        "fields": {"answer": "gold"},
        "filter": {"level": 4, "subject": ["a", None]},
    }
    sweep = sweep_from(sweep_data(problems=problems, selectors=[{"kind": "pass"}, "majority"]))
    assert sweep.problems.fields.answer is not None
    assert sweep.problems.fields.answer.column == "gold"
    assert sweep.problems.filter == {"level": (4,), "subject": ("a", None)}
    assert model(endpoints="http://h/v1/").endpoints == ("http://h/v1",)


def test_step_aggregation_follows_the_labels() -> None:
    common = {"kind": "prm", "format": "qwen", "endpoints": ("http://h/v1",), "model": "m"}
    assert PrmScorer(label_type="soft", **common).step_aggregation == "last"
    assert PrmScorer(label_type="hard", **common).step_aggregation == "min"
    assert PrmScorer(label_type="hard", aggregation=Aggregation.PROD, **common).step_aggregation == "prod"


def test_all_problems_are_told_at_once_in_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: demo\nstroe: x\nproblems: {preset: arithmetic, limit: 0}\n"
        "models: {policy: {embedded: arithmetic, api: chatt}}\n"
        "strategies: [{name: s, kind: parallel, policy: policy}]\nbudgets: [x]\n"
    )
    with pytest.raises(SpecError) as caught:
        load_sweep(path)
    found = [(finding.line, finding.field) for finding in caught.value.findings]
    assert found == [
        (2, "stroe"),
        (3, "problems.limit"),
        (4, "models.policy.api"),
        (5, "strategies[0].samples"),
        (6, "budgets[0]"),
    ]
    assert caught.value.findings[2].column == path.read_text().splitlines()[3].index("chatt") + 1


def test_disagreements_are_told_at_once_and_name_both_places() -> None:
    error = refused(
        sweep_data(
            models={
                "a": {"embedded": "arithmetic", "sampling": {"temperature": 0}, "samples_per_request": 2},
                "b": {"endpoints": ["http://h/v1", "http://h/v1"], "model": "x"},
                "c": {"endpoints": "http://other/v1", "model": "x", "limits": {"concurrency": 1}},
            },
            strategies=[
                {"name": "s", "kind": "parallel", "policy": "a", "samples": 8},
                {"name": "s", "kind": "parallel", "policy": "z", "samples": 4},
            ],
            budgets=[16],
            selectors=["pass", "pass"],
        )
    )
    fields = {finding.field for finding in error.findings}
    assert fields == {
        "models.a.sampling.temperature",
        "models.a.samples_per_request",
        "models.b.endpoints[1]",
        "models.c",
        "strategies[1].policy",
        "strategies[1].name",
        "budgets[0]",
        "selectors[1]",
    }


def test_what_belongs_to_another_kind_is_not_complained_about() -> None:
    unknown = {"name": "s", "kind": "annealing", "policy": "policy", "width": 4, "depth": 40}
    error = refused(sweep_data(strategies=[unknown]))
    assert [finding.field for finding in error.findings] == ["strategies[0].kind"]
    assert "parallel" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"endpoints": ["http://elsewhere/v1"]},
        {"samples_per_request": 7},
        {"api_key_env": "MY_KEY"},
        {"limits": {"concurrency": 3}},
        {"parameters": 5},
        {"prompt": "{problem}\n\n"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_fingerprint_ignores_what_does_not_change_a_sample(change: dict[str, Any]) -> None:
    assert generator_fingerprint(model(**change)) == generator_fingerprint(model())


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"revision": "r2"},
        {"api": "chat"},
        {"api": "chat", "system": "think"},
        {"prompt": "{problem}"},
        {"sampling": {"temperature": 0.5}},
        {"sampling": {"top_p": 0.5}},
        {"sampling": {"top_k": 5}},
        {"sampling": {"max_tokens": 5}},
        {"sampling": {"stop": ["x"]}},
    ],
    ids=str,
)
def test_fingerprint_covers_what_changes_a_sample(change: dict[str, Any]) -> None:
    assert generator_fingerprint(model(**change)) != generator_fingerprint(model())


def test_fingerprint_is_stable() -> None:
    """Changing this value orphans every pool that users have stored."""
    assert generator_fingerprint(model()) == "48a19e8fc7de0a87ad4a4276e5391dee"
    assert generator_fingerprint(model(), revision="r") == generator_fingerprint(model(revision="r"))
    assert generator_fingerprint(model(revision="own"), revision="r") == generator_fingerprint(
        model(revision="own")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"endpoints": ["http://elsewhere/v1"]},
        {"texts_per_request": 7},
        {"api_key_env": "MY_KEY"},
        {"limits": {"concurrency": 3}},
        {"parameters": 5},
        {"aggregation": "prod"},
        {"label_type": "soft"},
        {"transport": "completions"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_scorer_fingerprint_ignores_what_does_not_change_a_step_score(change: dict[str, Any]) -> None:
    assert scorer_fingerprint(scorer("prm", **change)) == scorer_fingerprint(scorer("prm"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, {"model": "other"}) for name in SCORERS),
        *((name, {"revision": "r2"}) for name in SCORERS),
        *((name, {"too_long": "truncate"}) for name in SCORERS),
        ("prm", {"format": "rlhflow-mistral"}),
        ("prm", {"step_tag": "x"}),
        ("prm", {"good_token": "x"}),
        ("prm", {"bad_token": "x"}),
        ("generative", {"prompt": "{problem}{solution}"}),
        ("generative", {"sampling": {"temperature": 0.5}}),
        ("generative", {"sampling": {"max_tokens": 5}}),
        ("orm", {"format": "embedded-orm"}),
        ("orm", {"system": "x"}),
        ("orm", {"is_logit": True}),
        ("judge", {"prompt": "{problem}{solution}"}),
        ("judge", {"system": "x"}),
        ("judge", {"sampling": {"temperature": 0.5}}),
        ("judge", {"sampling": {"temperature": 1.0, "top_p": 0.5}}),
        ("judge", {"judgements": 3}),
    ],
    ids=str,
)
def test_scorer_fingerprint_covers_what_changes_a_score(name: str, change: dict[str, Any]) -> None:
    assert scorer_fingerprint(scorer(name, **change)) != scorer_fingerprint(scorer(name))


@pytest.mark.parametrize("value", ["False", "no", "", 0, 1])
def test_a_word_is_no_truth_value(value: Any) -> None:
    """Taken for a text that is not empty, "False" would be true."""
    data = {"endpoints": ["http://h/v1"], "model": "m", **SCORERS["orm"], "is_logit": value}
    (finding,) = refused(sweep_data(scorers={"orm": data})).findings
    assert finding.field == "scorers.orm.is_logit"


def test_settings_of_a_worker() -> None:
    spec = model(sampling={"temperature": 0.5, "stop": ["\n"]}, api_key_env="K", limits={"max_attempts": 2})
    made = generator_settings("policy", spec, 7, derives_seeds=True)
    assert made.sampling == Sampling(temperature=0.5, stop=("\n",))
    assert (made.generator_id, made.model, made.samples_per_request) == (7, "m", 16)
    assert (made.endpoint.name, made.endpoint.urls) == ("policy", ("http://h:8000/v1",))
    assert (made.endpoint.api_key_env, made.endpoint.max_attempts) == ("K", 2)
    assert made.fingerprint == generator_fingerprint(spec)


def test_auto_asks_for_many_samples_only_where_seeds_are_derived() -> None:
    assert samples_per_request(model()) == 1
    assert samples_per_request(model(), derives_seeds=True) == 16
    assert samples_per_request(model(samples_per_request=5), derives_seeds=False) == 5
    greedy = sweep_from(
        sweep_data(
            models={"policy": {"embedded": "arithmetic", "sampling": {"temperature": 0}}},
            strategies=[{"name": "s", "kind": "parallel", "policy": "policy", "samples": 1}],
        )
    )
    assert samples_per_request(greedy.models["policy"]) == 1


def test_stored_text_is_canonical_and_without_password() -> None:
    store = "postgresql://me:hunter2@db/ttc"
    text = config_json(sweep_from(sweep_data(store=store)))
    assert "hunter2" not in text
    assert json.loads(text)["store"] == "postgresql://me:***@db/ttc"
    assert text == config_json(sweep_from(dict(reversed(sweep_data(store=store).items()))))


def test_store_is_relative_to_the_sweep_file() -> None:
    base = Path("/home/me/sweeps")
    assert store_url("sqlite:///runs/a.db", base) == "sqlite:////home/me/sweeps/runs/a.db"
    assert store_url("sqlite:////abs/a.db?x=1", base) == "sqlite:////abs/a.db?x=1"
    assert store_url("sqlite:///:memory:", base) == "sqlite:///:memory:"
    assert store_url("runs/a.db", base) == "/home/me/sweeps/runs/a.db"
    assert store_url("postgresql://h/d", base) == "postgresql://h/d"


def described(node: Any, definitions: dict[str, Any]) -> list[str]:
    """Names of properties without a description."""
    missing = [name for name, field in node.get("properties", {}).items() if "description" not in field]
    return missing + [f"{key}.{name}" for key, below in definitions.items() for name in described(below, {})]


def test_schema_describes_every_field_and_accepts_the_short_forms() -> None:
    schema = sweep_schema()
    assert described(schema, schema["$defs"]) == []
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "problems", "models", "strategies"}
    endpoints = schema["$defs"]["ModelSpec"]["properties"]["endpoints"]
    assert {option["type"] for option in endpoints["anyOf"]} == {"string", "array"}
    json.dumps(schema)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("012", 12),
        ("0x1F", "0x1F"),
        ("1e-4", 0.0001),
        ("1e5", 100000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("10_000_000", 10_000_000),
        ("1__0", "1__0"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("", None),
        ("true", True),
        ("TRUE", True),
        ("y", "y"),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("0" * 40, "0" * 40),
        ("-3", -3),
        ("１２", "１２"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_are_text_and_aliases_are_values() -> None:
    document = read_yaml(b"a: '1'\nb: &x [1, {c: \"true\"}]\nd: *x\n", "f")
    assert document.data == {"a": "1", "b": [1, {"c": "true"}], "d": [1, {"c": "true"}]}
    place = document.place(("b", 1, "c"))
    assert place is not None
    assert (place.line, place.column) == (2, 15)


def test_what_is_missing_is_placed_at_its_section() -> None:
    document = read_yaml(b"a: 1\nb:\n  c: 2\n", "f")
    place = document.place(("b", "missing"))
    assert place is not None
    assert place.line == 2


def test_byte_order_mark_is_no_text() -> None:
    assert read_yaml(b"\xef\xbb\xbfname: x", "f").data == {"name": "x"}


def test_dotted() -> None:
    assert dotted(("a", 0, "b", 1)) == "a[0].b[1]"
    assert dotted(()) == ""


def test_missing_file_suggests_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("")
    with pytest.raises(SpecError, match=r"did you mean .*sweep\.yaml"):
        load_sweep(tmp_path / "swep.yaml")
    with pytest.raises(SpecError, match="is a directory"):
        load_sweep(tmp_path)


def test_python_values_are_checked_as_yaml_is() -> None:
    assert isinstance(sweep_from(sweep_data()), SweepSpec)
    assert refused(sweep_data(seed="5")).findings[0].line is None
