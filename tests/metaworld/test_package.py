"""The installed package: versions that do not fit are named with those that do."""

import importlib.metadata
import re

import pytest

import metarl
from metarl import UsageError
from metarl.envs.metaworld import package


@pytest.fixture
def versions(monkeypatch):
    """Lets other versions of packages seem to be installed (None: the package is not)."""
    installed, real = {}, importlib.metadata.version

    def version(name):
        if installed.get(name, "") is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    package.check_versions.cache_clear()
    yield installed
    package.check_versions.cache_clear()


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("metaworld", None, "need metaworld: pip install 'metaworld>=3.0,<3.1'"),
        ("metaworld", "3.1.1", "do not fit metaworld 3.1.1: pip install 'metaworld>=3.0,<3.1'"),
        ("metaworld", "2.0.0", "do not fit metaworld 2.0.0"),
        ("mujoco", None, "need mujoco: pip install 'mujoco>=3.14,<3.15'"),
        ("mujoco", "3.17.0", "do not fit mujoco 3.17.0: pip install 'mujoco>=3.14,<3.15'"),
        ("mujoco", "3.3.0", "do not fit mujoco 3.3.0"),
    ],
)
def test_packages_that_do_not_fit_are_named_with_those_that_do(versions, name, version, message):
    versions[name] = version
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        metarl.make("ML1-reach-v3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["3.14.0", "3.14.2", "3.14.0rc1"])
def test_versions_that_fit_are_taken(versions, version):
    versions["mujoco"] = version
    metarl.make("ML1-reach-v3")
