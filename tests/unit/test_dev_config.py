"""The file of settings of `eventsched dev`."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventsched.dev.config import read_config
from eventsched.errors import SettingsError

ROOT = Path(__file__).parents[2]


def test_the_quota_file_grants_only_what_it_names() -> None:
    config = read_config(ROOT / "deploy/quota.toml")
    assert (config.clock, config.quota_default, config.job_id_scope) == ("manual", "nothing", "cluster")
    assert set(config.tenants) == {"t1", "t2"}
    assert read_config(None).quota_default == "unlimited"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('quota_default = "none"', "quota_default"),
        ('quota = "nothing"', "quota"),
        ("[tenants.t1]\ngpuz = 1", "gpuz"),
        ('gpus = ["A100"]', "gpus"),
        ("gpus = ", "Invalid value"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "dev.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=named) as refused:
        read_config(file)
    assert str(file) in str(refused.value)
