"What tests may ask for"
import pytest

@pytest.fixture
def elsewhere(tmp_path_factory, monkeypatch):
    "Neither the user's caches nor data"
    monkeypatch.setenv('DIM_CACHE', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.setenv('KAGGLEHUB_CACHE', str(tmp_path_factory.mktemp('kaggle')))
    monkeypatch.delenv('DIM_DATA', raising=False)
