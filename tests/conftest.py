"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import settings

import audio_storage_system
import servers
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS
from servers import faulty, gcs

pytest_plugins = ["postgres_server", "catalogues", "batch", "audited", "damages", "serving", "receiving", "uploading"]
pytest.register_assert_rewrite("working", "scenes")
gc.set_threshold(20_000, 20, 20)  # looking through all that a long run keeps takes a sixth of its time at Python's own
settings.register_profile("unhurried", deadline=None)  # how long an example takes is up to the machine
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the developer's own machine reaches a test, and no model hub is asked for anything."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AUDIO_STORAGE_", "OPENAI_")) and not name.startswith("AUDIO_STORAGE_TEST_"):
                patch.delenv(name)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
        patch.setenv("AUDIO_STORAGE_BLOB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "blob_cache"))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real recordings and texts; what needs it is skipped where there is none."""
    folder = os.environ.get("AUDIO_STORAGE_TEST_DATA")
    if not folder:
        pytest.skip("AUDIO_STORAGE_TEST_DATA is not set: no real recordings to test with")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def demo() -> Path:
    """The folder of the recordings that come with the package: speech that is there on every machine."""
    return Path(audio_storage_system.__file__).parent / "demo"


@pytest.fixture
def call(demo: Path) -> Path:
    """One of them: two people on the telephone."""
    return demo / "call.flac"


@pytest.fixture
def note(demo: Path) -> Path:
    """Another one: somebody talking to himself."""
    return demo / "voice_note.flac"


@pytest.fixture
def scripted_engine(monkeypatch: pytest.MonkeyPatch) -> type[scripted.ScriptedTranscriber]:
    """The engine `scripted`, known for the time of the test."""
    monkeypatch.setitem(cast(dict[str, str], TRANSCRIBERS.builtin), scripted.SPEC, scripted.FACTORY)
    monkeypatch.setattr(scripted.ScriptedTranscriber, "before", None)
    return scripted.ScriptedTranscriber


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A running S3 server."""
    with servers.s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def az_endpoint() -> Iterator[str]:
    """A running Azurite; skipped where it is not installed."""
    program = servers.azurite()
    if program is None:
        pytest.skip("no azurite-blob on the path or in AUDIO_STORAGE_TEST_AZURITE (npm package azurite)")
    with servers.az_server(program) as address:
        yield address


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in S3; its server and keys stand in the environment."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://{servers.BUCKET}/{uuid4().hex}"


@pytest.fixture
def bad_day(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[faulty.Day]:
    """A proxy between us and the server of `s3_url`, honest until told otherwise; it counts what is asked."""
    with faulty.faulty(os.environ["AWS_ENDPOINT_URL"]) as (address, day):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield day


@pytest.fixture
def az_url(az_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in Azure storage; its server and keys stand in the environment."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", servers.AZURE_ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", servers.AZURE_KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", az_endpoint)
    return f"az://{servers.BUCKET}/{uuid4().hex}"


@pytest.fixture(scope="session")
def gs_endpoint() -> Iterator[tuple[str, gcs.Objects]]:
    """A running Google Cloud Storage, and what it holds."""
    with gcs.gs_server(servers.BUCKET) as running:
        yield running


@pytest.fixture
def gs_url(gs_endpoint: tuple[str, gcs.Objects], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty place in Google Cloud Storage; its account stands in the environment."""
    account = tmp_path / "service-account.json"
    account.write_text(gcs.service_account(gs_endpoint[0], gcs.private_key()))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("GOOGLE_BASE_URL", gs_endpoint[0])
    return f"gs://{servers.BUCKET}/{uuid4().hex}"


# Test files that share something of the machine, here its sound system: one process runs all of them.
TOGETHER = {"test_microphone.py": "sound", "test_record_program.py": "sound", "test_live_program.py": "sound"}
# What takes longest begins first, so that no process is left with it at the end.
LONGEST = (
    "test_jobs_crash.py",
    "test_microphone.py",
    "test_record_program.py",
    "test_live_program.py",
    "test_http_roles.py",
    "test_live_processes.py",
    "test_transfer_random.py",
    "test_transfer_interrupted.py",
    "test_access_matrix.py",
    "test_server_schema.py",
    "test_search.py",
    "test_reembedding.py",
    "test_vectors_databases.py",
    "test_access_rule.py",
    "test_transcribers_pocketsphinx.py",
    "test_attacks.py",
)


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many processes as there are cores: many tests wait for servers, other processes and time to pass."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(trylast=True)  # pytest itself sorts by the parameters of fixtures, across files
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file after the other, so that its fixtures are made once."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (ranks.get(item.path.name, len(ranks)), item.path.name))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes share the tests, each file is one process's: those of `TOGETHER` are one file here."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = nodeid.partition("::")[0].rpartition("/")[2]
            return TOGETHER.get(name, name)

    config.option.loadscopereorder = False  # as they are collected
    return ByFile(config, log)
