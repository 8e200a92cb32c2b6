"""cluster.yaml is what Ray's launcher accepts: checked by Ray's own preparation and schema."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    return loaded


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` makes of a cluster file before it acts; raises where it would refuse."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema", reason="Ray checks its schema with jsonschema")
    result: dict[str, Any] = util.prepare_config(deepcopy(config))
    util.validate_config(result)
    return result


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    result = prepared(config)
    assert result["cluster_name"] == "ttc"
    assert result["max_workers"] == len(config["provider"]["worker_ips"])
    assert "available_node_types" in result  # made by Ray from min_workers and max_workers


def test_ray_would_refuse_a_field_it_does_not_know(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="initial_workers"):
        prepared({**config, "initial_workers": 2})


def test_every_worker_has_an_address(config: dict[str, Any]) -> None:
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])


def test_nodes_start_with_enough_open_files(config: dict[str, Any]) -> None:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("ulimit -n 65536" in command and "ray start" in command for command in config[name])


def test_no_database_and_no_key_is_copied(config: dict[str, Any]) -> None:
    assert "**/*.db*" in config["rsync_exclude"]
    assert all("export" not in command for command in config["setup_commands"])
