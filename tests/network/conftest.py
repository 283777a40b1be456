"""A process that seems to have a GPU."""

import pytest

from msseg_jax.network.convolution import choice


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretend that this process has a GPU, with an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "why_not", lambda: "")
    monkeypatch.setattr(choice, "_known", None)
    return tmp_path / "msseg_jax"
