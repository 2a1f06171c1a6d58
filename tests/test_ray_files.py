"""The files for Ray clusters in docs/ray: read, of one Ray, whole, and with commands that are there. No cluster is started."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from embedkit.extras import has_extra
from tests.conftest import REPOSITORY
from tests.test_docs import check

yaml = pytest.importorskip("yaml")
FOLDER = REPOSITORY / "docs/ray"
CLUSTER, KUBERAY = FOLDER / "cluster.yaml", FOLDER / "kuberay.yaml"
SHARED = "/shared"

Json = Mapping[str, Any]  # Any: YAML


def read(path: Path) -> Json:
    content: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def pinned() -> str:
    """Return the Ray that the tests run with."""
    found = re.search(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def pods() -> Iterator[Json]:
    spec = read(KUBERAY)["spec"]["rayClusterSpec"]
    yield spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield group["template"]["spec"]


def test_one_ray_everywhere_as_it_is_tested() -> None:
    docker = (FOLDER / "Dockerfile").read_text("utf-8")
    python = "".join(
        re.findall(r'requires-python = ">=(\d+)\.(\d+)"', (REPOSITORY / "pyproject.toml").read_text())[0]
    )
    tag = f"{pinned()}-py{python}"
    assert f"FROM rayproject/ray:{tag}\n" in docker
    assert f"'ray[default]=={pinned()}'" in docker
    images = {container["image"] for pod in pods() for container in pod["containers"]}
    images.add(read(CLUSTER)["docker"]["image"])
    assert images == {f"REPLACE-registry/embedkit-ray:{tag}"}
    assert read(KUBERAY)["spec"]["rayClusterSpec"]["rayVersion"] == pinned()


def test_the_job_for_kuberay_is_whole() -> None:
    job = read(KUBERAY)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    cluster = job["spec"]["rayClusterSpec"]
    groups = cluster["workerGroupSpecs"]
    assert groups
    for group in groups:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert {"groupName", "rayStartParams", "template"} <= group.keys()
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())
    for pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert SHARED in mounts.values(), "all nodes see the input and the index under the same path"
            assert mounts.keys() <= volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_entry_point_is_a_command_with_options_that_are_there() -> None:
    words = shlex.split(read(KUBERAY)["spec"]["entrypoint"])
    assert words[0] == "embedkit"
    check(words[1:])
    assert all(word.startswith(f"{SHARED}/") for word in words if word.startswith("/"))


def test_the_cluster_for_ray_up_is_whole() -> None:
    cluster = read(CLUSTER)
    assert {"cluster_name", "provider", "auth", "available_node_types", "head_node_type"} <= cluster.keys()
    nodes = cluster["available_node_types"]
    assert cluster["head_node_type"] in nodes
    assert nodes[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert all(node["max_workers"] <= cluster["max_workers"] for node in nodes.values())
    assert any(f"-v {SHARED}:{SHARED}" in option for option in cluster["docker"]["run_options"])
    assert any(f" {SHARED}" in command for command in cluster["initialization_commands"])
    assert "--head" in " ".join(cluster["head_start_ray_commands"])
    assert "$RAY_HEAD_IP" in " ".join(cluster["worker_start_ray_commands"])


def test_both_clusters_want_a_token_of_whoever_joins_them() -> None:
    assert read(KUBERAY)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    cluster = read(CLUSTER)
    assert "-e RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.ray
@pytest.mark.skipif(
    not has_extra("ray"), reason="the package ray is not installed: pip install 'embedkit[ray]'"
)
def test_ray_itself_takes_the_cluster() -> None:
    """By the schema that `ray up` checks a file with; one with a mistake is refused, so the check checks something."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(dict(read(CLUSTER))))
    wrong = dict(read(CLUSTER)) | {"max_workers": "many"}
    with pytest.raises(Exception, match="many"):
        validate_config(wrong)
