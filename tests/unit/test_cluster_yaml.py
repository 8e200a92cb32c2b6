"""The cluster files are what Ray's launcher accepts: checked by Ray's own preparation and schema."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OWN = ROOT / "cluster.yaml"
AWS = ROOT / "deploy" / "cluster-aws.yaml"
TOKEN = "~/.ray/auth_token"

Config = dict[str, Any]


def load(path: Path) -> Config:
    loaded: Config = yaml.safe_load(path.read_text("utf-8"))
    return loaded


@pytest.fixture(params=[OWN, AWS], ids=["own machines", "aws"])
def config(request: pytest.FixtureRequest) -> Config:
    """Each cluster file in turn."""
    return load(request.param)


def prepared(config: Config) -> Config:
    """What `ray up` makes of a cluster file before it acts; raises where it would refuse."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema", reason="Ray checks its schema with jsonschema")
    result: Config = util.prepare_config(deepcopy(config))
    util.validate_config(result)
    return result


def start_commands(config: Config) -> list[str]:
    """The commands that start Ray: one for the head, one for the workers."""
    names = ("head_start_ray_commands", "worker_start_ray_commands")
    return [command for name in names for command in config[name] if "ray start" in command]


def test_ray_accepts_the_file(config: Config) -> None:
    result = prepared(config)
    assert result["cluster_name"] == "ttc"
    assert "available_node_types" in result


def test_ray_would_refuse_a_field_it_does_not_know(config: Config) -> None:
    with pytest.raises(Exception, match="initial_workers"):
        prepared({**config, "initial_workers": 2})


def test_every_worker_of_ours_has_an_address() -> None:
    config = load(OWN)
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    assert prepared(config)["max_workers"] == len(config["provider"]["worker_ips"])


def test_machines_of_aws_offer_slots_for_workers_and_the_head_offers_nothing() -> None:
    types = prepared(load(AWS))["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["sampler"]["resources"]["sampler"] > 0
    assert types["head"]["max_workers"] == 0
    assert types["sampler"]["max_workers"] == load(AWS)["max_workers"]


def test_nodes_start_with_enough_open_files_and_with_the_token(config: Config) -> None:
    commands = start_commands(config)
    assert len(commands) == 2
    for command in commands:
        before, _, _ = command.partition("ray start")
        assert "ulimit -n 65536" in before
        assert "RAY_AUTH_MODE=token" in before
    assert config["file_mounts"][TOKEN] == TOKEN
    assert f"chmod 600 {TOKEN}" in config["setup_commands"]


def test_the_dashboard_listens_on_the_head_only(config: Config) -> None:
    head, _ = start_commands(config)
    assert "--dashboard-host=127.0.0.1" in head


def test_no_database_and_no_key_is_copied(config: Config) -> None:
    assert "**/*.db*" in config["rsync_exclude"]
    assert all("export" not in command for command in config["setup_commands"])
