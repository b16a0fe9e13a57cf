"""The configuration file of a cluster on one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra forelook[cluster]")

from forelook.cluster.application import build
from forelook.cluster.local_cluster import ClusterFiles, read_config
from forelook.errors import ConfigError
from forelook.local.identity import UserPaths

APPLICATION: dict[str, Any] = {
    "name": "starter",
    "route_prefix": "/",
    "import_path": "forelook.cluster.application:build",
    "args": {"tokenFile": "/etc/forelook/tokens", "folder": "/mnt/forelook"},
}


def written(folder: Path, content: object) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(json.dumps(content))
    return path


def test_without_options_it_listens_on_loopback_only(tmp_path: Path) -> None:
    schema = read_config(written(tmp_path, {"applications": [APPLICATION]}))
    assert schema.http_options.host == "127.0.0.1"
    assert schema.http_options.request_timeout_s is None, "an editor's connection is one request"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "a configuration of Ray Serve with applications"),
        ({"applications": []}, "a configuration of Ray Serve with applications"),
        ({"applications": [{**APPLICATION, "import_path": "os:system"}]}, "starter.import_path: 'os:system'"),
        ({"applications": [{**APPLICATION, "args": {}}]}, r"args\.folder"),
        ({"applications": [APPLICATION], "http_options": {"host": "0.0.0.0"}}, r"http_options\.host: '0\.0\.0\.0'"),
        ({"applications": [APPLICATION], "http_options": {"request_timeout_s": 5}}, r"http_options\.request_timeout_s"),
        ({"applications": [APPLICATION], "http_options": 3}, "a configuration of Ray Serve"),
    ],
)
def test_an_invalid_file_is_refused_before_anything_starts(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(written(tmp_path, content))


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        read_config(tmp_path / "missing.yaml")
    damaged = tmp_path / "damaged.yaml"
    damaged.write_text("applications: [}")
    with pytest.raises(ConfigError, match=r"damaged\.yaml"):
        read_config(damaged)


def test_the_application_refuses_a_mode_that_loses_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forelook.cluster.application.RAY_SERVE_ENABLE_HA_PROXY", True)
    with pytest.raises(ConfigError, match="RAY_SERVE_ENABLE_HA_PROXY"):
        build(APPLICATION["args"])


def test_files_are_where_the_paths_of_sockets_fit(tmp_path: Path) -> None:
    def paths(runtime: str) -> UserPaths:
        return UserPaths(Path(runtime), tmp_path, tmp_path, Path("/tmp/forelook-1000"))

    assert ClusterFiles.of(paths("/run/user/1000/forelook")).ray_folder == Path("/run/user/1000/forelook/ray")
    assert ClusterFiles.of(paths(f"/run/{'x' * 60}")).ray_folder == Path("/tmp/forelook-1000/ray")
