"""The manifests are what KubeRay accepts, the image is built from what is there, and the batch script ends well.

`tests/kuberay.schema.json` is what the manifests use of KubeRay's types, and refuses what it does not know. With
TTC_KUBERAY_CRDS, a folder with ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of a KubeRay release, the manifests are
also checked against these, unknown fields refused.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import re
import shlex
import signal
import stat
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from orchestrator.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CRDS = os.environ.get("TTC_KUBERAY_CRDS")
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))

jsonschema = pytest.importorskip("jsonschema")

Manifest = dict[str, Any]


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Each manifest in turn."""
    loaded: Manifest = yaml.safe_load(request.param.read_text("utf-8"))
    return loaded


def schema() -> Any:
    return json.loads((ROOT / "tests" / "kuberay.schema.json").read_text("utf-8"))


def cluster_of(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]
    return spec.get("rayClusterSpec", spec)


def pods_of(manifest: Manifest) -> list[Manifest]:
    """Specifications of the head's pod and of the workers'."""
    cluster = cluster_of(manifest)
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_both_manifests_are_checked() -> None:
    assert [path.stem for path in MANIFESTS] == ["raycluster", "rayjob"]


def test_the_manifest_is_what_kuberay_knows(manifest: Manifest) -> None:
    jsonschema.Draft202012Validator(schema()).validate(manifest)


@pytest.mark.parametrize(
    "path",
    ["spec", "metadata", "spec/rayClusterSpec", "spec/rayClusterSpec/headGroupSpec/template/spec"],
)
def test_a_field_that_kuberay_does_not_know_is_noticed(path: str) -> None:
    manifest = yaml.safe_load((DEPLOY / "kuberay" / "rayjob.yaml").read_text("utf-8"))
    inner = manifest
    for name in path.split("/"):
        inner = inner[name]
    inner["backOffLimit"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(manifest)


@pytest.mark.skipif(CRDS is None, reason="needs TTC_KUBERAY_CRDS, a folder with KubeRay's CRDs")
def test_the_manifest_is_what_a_release_of_kuberay_accepts(manifest: Manifest) -> None:
    assert CRDS is not None
    file = Path(CRDS) / f"ray.io_{manifest['kind'].lower()}s.yaml"
    versions = yaml.safe_load(file.read_text("utf-8"))["spec"]["versions"]
    (found,) = [each for each in versions if each["name"] == "v1"]
    jsonschema.Draft202012Validator(strict(found["schema"]["openAPIV3Schema"])).validate(manifest)


def strict(node: Any, *, is_root: bool = True) -> Any:
    """The schema with every field refused that it does not name; Kubernetes would drop it without a word."""
    if isinstance(node, list):
        return [strict(each, is_root=False) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value, is_root=False) for key, value in node.items()}
    is_object = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    if is_object and not is_root and not node.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def test_pods_are_not_root_and_carry_no_secret(manifest: Manifest) -> None:
    for pod in pods_of(manifest):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            for variable in container["env"]:
                is_secret = re.search("KEY|URL|TOKEN|PASSWORD", variable["name"])
                assert not is_secret or "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_workers_hold_no_credentials_of_the_database(manifest: Manifest) -> None:
    head, *workers = pods_of(manifest)
    names = [{each["name"] for c in pod["containers"] for each in c["env"]} for pod in (head, *workers)]
    assert "TTC_DATABASE_URL" in names[0]
    assert all("TTC_DATABASE_URL" not in each for each in names[1:])


def test_every_volume_that_is_mounted_is_there_and_the_other_way_round(manifest: Manifest) -> None:
    for pod in pods_of(manifest):
        mounted = {mount["name"] for c in pod["containers"] for mount in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_workers_find_slots_and_the_cluster_wants_a_token(manifest: Manifest) -> None:
    cluster = cluster_of(manifest)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    slots = 0
    for group in cluster["workerGroupSpecs"]:
        # KubeRay pastes the value into a shell command.
        (text,) = shlex.split(group["rayStartParams"]["resources"])
        slots += group["replicas"] * json.loads(text)["sampler"]
    asked = re.search(r"--workers (\d+)", manifest["spec"].get("entrypoint", ""))
    assert asked is None or int(asked.group(1)) <= slots


def test_ray_is_the_one_that_is_pinned(manifest: Manifest) -> None:
    assert cluster_of(manifest)["rayVersion"] == importlib.metadata.version("ray")
    assert f"ray=={cluster_of(manifest)['rayVersion']}\n" in (ROOT / "constraints.txt").read_text("utf-8")


def test_the_job_resumes_with_the_command_it_began_with() -> None:
    job = yaml.safe_load((DEPLOY / "kuberay" / "rayjob.yaml").read_text("utf-8"))["spec"]
    assert job["backoffLimit"] > 0
    program, command, *words = shlex.split(job["entrypoint"])
    assert program == "ttc"
    typer.main.get_command(app).commands[command].make_context(command, list(words))  # type: ignore[attr-defined]
    mounts = pods_of({"spec": job})[0]["containers"][0]["volumeMounts"]
    assert any(Path(mount["mountPath"]) == Path(words[0]).parent for mount in mounts)


def copied() -> Iterator[str]:
    """What the Dockerfile takes from the checkout."""
    for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            yield from shlex.split(line)[1:-1]


def test_the_image_is_made_of_what_is_there_and_let_through() -> None:
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    }
    assert set(copied()) == let_through
    assert all((ROOT / name).exists() for name in copied())
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert set(packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())


def test_the_image_runs_as_nobody_special_with_what_is_pinned() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    last = text[text.rindex("FROM ") :]
    assert "USER 1000" in last
    assert "--constraint constraints.txt" in text
    assert "[test" not in text


def test_what_is_deployed_with_is_in_the_source_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {"deploy", "cluster.yaml"} <= set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])


def slurm_script() -> str:
    (text,) = re.findall(
        r"^```bash\n(.*?)^```$",
        (ROOT / "docs" / "how-to" / "run-on-slurm.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return str(text)


RUNS_UNTIL_TERM = "trap 'exit 130' TERM; touch began; while true; do sleep 0.05; done"


@dataclass(frozen=True, slots=True)
class Slurm:
    """A folder in which the batch script finds stand-ins for what a cluster has."""

    folder: Path

    async def start(self, ttc: str) -> asyncio.subprocess.Process:
        """Start the script; `ttc` is what the coordinator does, as a line of shell."""
        activate = self.folder / "ttc" / ".venv" / "bin" / "activate"
        activate.parent.mkdir(parents=True)
        activate.touch()
        stand_ins = {"ttc": ttc, "ray": "exit 0", "srun": "exit 0", "scontrol": "echo $* >> requeued"}
        programs = self.folder / "bin"
        programs.mkdir()
        for name, line in stand_ins.items():
            file = programs / name
            file.write_text(f"#!/bin/bash\n{line}\n")
            file.chmod(0o755)
        environment = {
            "HOME": str(self.folder), "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "first",
        }  # fmt: skip
        return await asyncio.create_subprocess_exec(
            "bash", "-c", slurm_script(), cwd=self.folder, env=environment
        )

    @property
    def requeued(self) -> str:
        """What was asked of Slurm."""
        file = self.folder / "requeued"
        return file.read_text() if file.exists() else ""

    @property
    def tokens(self) -> list[Path]:
        """Tokens that were left behind."""
        return list((self.folder / ".ray").glob("token-*"))


async def test_a_job_whose_time_is_up_ends_in_order_and_is_queued_again(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    script = await slurm.start(RUNS_UNTIL_TERM)
    async with asyncio.timeout(30):
        while not (tmp_path / "began").exists():  # noqa: ASYNC110 -- another process, which has no event to wait for
            await asyncio.sleep(0.02)
        (token,) = slurm.tokens
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert re.fullmatch("[0-9a-f]{64}", token.read_text())
        script.send_signal(signal.SIGTERM)
        assert await script.wait() == 130
    assert (slurm.requeued, slurm.tokens) == ("requeue 7\n", [])


@pytest.mark.parametrize("code", [0, 5, 130])
async def test_a_job_that_ends_by_itself_is_not_queued_again(tmp_path: Path, code: int) -> None:
    slurm = Slurm(tmp_path)
    script = await slurm.start(f"exit {code}")
    async with asyncio.timeout(30):
        assert await script.wait() == code
    assert (slurm.requeued, slurm.tokens) == ("", [])
