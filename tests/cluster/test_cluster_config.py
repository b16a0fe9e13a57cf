"""The arguments of an application."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.cluster.cluster_config import ClusterConfig
from forelook.errors import ConfigError

ARGS: dict[str, object] = {"tokenFile": "/etc/forelook/keys", "folder": "/mnt/forelook"}


def test_arguments_and_settings_are_read_by_their_names() -> None:
    config = ClusterConfig.from_json(
        {**ARGS, "replicas": 2, "maxReplicas": 5, "sessions": 9, "gpus": 0.5, "settings": {"model": "starter-model"}}
    )
    assert (config.num_replicas, config.max_replicas, config.num_gpus) == (2, 5, 0.5)
    assert config.engine.model == "starter-model"
    assert config.server.max_connections == config.server.max_user_connections == 9
    assert config.server.idle_timeout_s is None, "a replica does not end by itself"
    assert config.paths.pools_dir == Path("/mnt/forelook/pools"), "shared, so that a session that moves finds its pool"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (None, "invalid args: 'NoneType'"),
        ({"folder": "/mnt"}, r"args\.keys: None \(expected a path, unless tokenFile is given"),
        ({"tokenFile": "/etc/keys"}, r"args\.folder"),
        ({**ARGS, "replicas": 0}, r"args\.replicas: 0 \(expected an integer from 1 to 1000\)"),
        ({**ARGS, "replicas": 3, "maxReplicas": 2}, r"args\.maxReplicas: 2 \(expected at least replicas = 3\)"),
        ({**ARGS, "fallbackReplicas": 2}, r"args\.fallbackReplicas: 2 \(expected an integer from 0 to 1\)"),
        ({**ARGS, "replica": 2}, r"args\.replica: 2 \(expected a setting of this version"),
        ({**ARGS, "settings": {"modell": "x"}}, r"args\.settings\.modell"),
        ({**ARGS, "settings": {"devices": 2}}, r"args\.settings\.devices: 2 \(expected 1"),
    ],
)
def test_an_invalid_argument_is_named_with_its_value(args: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ClusterConfig.from_json(args)
