"""Where decoded pictures are kept."""

from pathlib import Path

import pytest

import metarl
from metarl.fewshot.data.cache_folder import cache_folder


def test_without_a_home_folder_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(metarl.UsageError, match="set XDG_CACHE_HOME"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "metarl"
