"""The API as a whole: what its description says, who may do what, and that nothing of the Python API is left out."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

import audio_storage_system
from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import create_app
from audio_storage_system.server.description import TAGS
from test_access_matrix import BOARDS, public

DOCUMENT = create_app(AudioStorageSystem).openapi()
OPEN = {"live", "ready"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


OPERATIONS = {operation["operationId"]: (method, path, operation) for method, path, operation in operations()}

# The description


def test_every_operation_has_a_short_id_of_its_own() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert sorted(ids) == sorted(set(ids)), "two operations have one id"
    assert [one for one in ids if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", one)] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    known = {tag["name"] for tag in TAGS}
    assert operation["summary"] and operation["description"]
    assert operation["tags"] and set(operation["tags"]) <= known, "a tag that `TAGS` does not describe"
    assert bool(operation.get("security")) == (name not in OPEN)
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if status[0] in "45" and path.startswith("/api/"):
            assert list(content) == ["application/problem+json"], status
        for shape in content.values():
            assert "itemSchema" in shape or shape["schema"] not in ({}, {"title": "Response"}), (
                f"{status} is not declared"
            )


def test_the_description_names_what_it_refers_to() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert referred <= schemas.keys()
    assert [name for name in schemas if "__" in name] == [], "two models have one name"
    assert DOCUMENT["info"]["version"] == audio_storage_system.__version__
    assert all(tag["description"] for tag in DOCUMENT["tags"])
    [scheme] = DOCUMENT["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema of each operation's JSON body."""
    for _, path, operation in operations():
        if not path.startswith("/api/"):  # clients of others send what others know
            continue
        content = operation.get("requestBody", {}).get("content", {})
        if "$ref" in content.get("application/json", {}).get("schema", {}):
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            yield operation["operationId"], DOCUMENT["components"]["schemas"][name]


def test_unknown_fields_are_refused_everywhere() -> None:
    assert [name for name, body in bodies() if body.get("additionalProperties") is not False] == []


# Everything that the Python API does

ONE_PROCESS = "is about the object in one's own process"
FUNCTION = "takes a function of Python"
PATH = "takes or gives a path on the machine of who calls; over HTTP: "
PARTS = "is for the archive's own parts"
# The operations that do what each does; or why there is none.
ROUTES: dict[str, str | tuple[str, ...]] = {
    "add": ("store_recording",),
    "append_metadata": "is what `add_note` of the tools for language models does",
    "check_metadata": ("check_metadata",),
    "check_security": ("check_security",),
    "cleanup_old_files": ("clean_up",),
    "context_pack": ("context",),
    "delete": ("remove_recording",),
    "diagnose": ("diagnose",),
    "get_recording": ("get_recording",),
    "get_user_audio": ("get_recording",),
    "list_recordings": ("list_recordings",),
    "metadata_history": ("metadata_history",),
    "metadata_schema": ("get_metadata_schema",),
    "open_audio": ("get_audio",),
    "patch_metadata": ("patch_recording",),
    "peaks": ("get_waveform",),
    "remove_metadata": ("patch_recording",),
    "search_similar_audio": ("search_by_query", "search", "search_by_audio"),
    "set_metadata": ("patch_recording",),
    "store_audio_file": ("store_recording",),
    "submit": ("store_recording",),
    "models": ("list_loaded_models",),
    "plan_reembedding": ("plan_reembedding",),
    "reindex": ("reindex",),
    "remove_metadata_schema": ("remove_metadata_schema",),
    "set_metadata_schema": ("set_metadata_schema",),
    "stats": ("get_stats",),
    "verify": ("verify",),
    "whoami": ("whoami",),
    "audit.export": ("export_audit",),
    "audit.heads": ("get_audit_anchor",),
    "audit.list": ("list_audit",),
    "audit.verify": ("verify_audit",),
    "backups.anchor": ("get_backup_anchor",),
    "backups.create": ("create_backup",),
    "backups.list": ("list_backups", "list_backup_sets"),
    "backups.prune": ("prune_backups",),
    "backups.rehearse": ("rehearse_backup",),
    "backups.verify": ("verify_backup",),
    "grants.give": ("give_grant",),
    "grants.list": ("list_grants",),
    "grants.revoke": ("revoke_grant",),
    "holds.list": ("list_holds",),
    "holds.place": ("place_hold",),
    "holds.release": ("release_hold",),
    "keys.rotate": ("rotate_keys",),
    "keys.show": ("get_keys",),
    "quarantine.empty": ("empty_quarantine",),
    "quarantine.list": ("list_quarantine",),
    "quarantine.restore": ("restore_from_quarantine",),
    "retention.add": ("add_retention_rule",),
    "retention.clean_up": ("clean_up",),
    "retention.plan": ("plan_retention",),
    "retention.remove": ("remove_retention_rule",),
    "retention.report": ("report_retention",),
    "retention.rules": ("list_retention_rules",),
    "retention.run": ("run_retention",),
    "tokens.create": ("create_token",),
    "tokens.list": ("list_tokens",),
    "tokens.revoke": ("revoke_token",),
    "trash.empty": ("empty_trash",),
    "trash.list": ("list_trash",),
    "trash.put": ("remove_recording",),
    "trash.restore": ("restore_from_trash",),
    "uploads.abort": ("abort_upload",),
    "uploads.append": ("append_to_upload",),
    "uploads.create": ("create_upload",),
    "uploads.finish": ("finish_upload",),
    "uploads.get": ("get_upload",),
    "uploads.list": ("list_uploads",),
    "users.add": ("add_user",),
    "users.get": ("get_user",),
    "users.join": ("join_group",),
    "users.leave": ("leave_group",),
    "users.list": ("list_users",),
    "users.remove": ("remove_user",),
    "webhooks.add": ("create_webhook",),
    "webhooks.deliveries": ("list_deliveries",),
    "webhooks.disable": ("disable_webhook",),
    "webhooks.enable": ("enable_webhook",),
    "webhooks.get": ("get_webhook",),
    "webhooks.list": ("list_webhooks",),
    "webhooks.remove": ("remove_webhook",),
    "webhooks.retry": ("retry_delivery",),
    "webhooks.test": ("test_webhook",),
    # Without a route
    "as_user": "a request acts for whoever its token is of",
    "audit.anchor": PATH + "get_audit_anchor",
    "audio_url": "leads past the server, to where the sound is kept",
    "close": ONE_PROCESS,
    "examine": PATH + "the hash of an upload is compared when it is stored",
    "exists": ONE_PROCESS,
    "generate_audio_embedding": FUNCTION,
    "generate_combined_embedding": FUNCTION,
    "generate_text_embedding": FUNCTION,
    "home": "is in `get_stats`",
    "jobs.close": PARTS,
    "jobs.done": PARTS,
    "jobs.failed": PARTS,
    "jobs.entry": PARTS,
    "jobs.hasten": PARTS,
    "jobs.queue": PARTS,
    "jobs.seen_by": PARTS,
    "jobs.submit": PARTS,
    "jobs.submit_reembedding": PARTS,
    "jobs.wait": "waits in the process that asks; over HTTP one asks for the job again",
    "jobs.workers": "workers are the machines' own; that jobs go on shows in the jobs",
    "known_hashes": "may be many; storing a file again tells that it is there",
    "live": "speaks over a socket, which no document of OpenAPI describes",
    "may_write": "is in `whoami`",
    "keys.export": "no key ever leaves over HTTP",
    "notes": ONE_PROCESS,
    "record_and_store_audio": "records from the microphone of the machine; over HTTP: live sound",
    "recovered": ONE_PROCESS,
    "reembed": "runs for hours: submit_reembedding has a worker do it",
    "settings": "may hold secrets",
    "temporary_file": PARTS,
    "tokens.any": "tells whether requests need tokens, which every answer shows",
    "tokens.authenticate": "is done for every request",
    "uploads.appending": PARTS,
    "use_embedder": FUNCTION,
    "worker": "works in the process that asks: `serve` and `worker` start them",
    "activate_transcript": ("activate_transcript",),
    "diff_transcripts": ("diff_transcripts",),
    "export": ("export",),
    "generate_embeddings": ("generate_embeddings",),
    "generate_transcript": ("retranscribe_recording",),
    "get_transcript": ("get_transcript",),
    "import_transcript": ("import_transcript",),
    "retranscribe": ("retranscribe_recordings",),
    "segments": ("list_segments", "list_words"),
    "submit_reembedding": ("reembed",),
    "transcripts": ("list_transcripts",),
    "jobs.cancel": ("cancel_job",),
    "jobs.counts": ("count_jobs",),
    "jobs.find": ("list_jobs",),
    "jobs.get": ("get_job",),
    "jobs.is_idle": ("count_jobs",),
    "jobs.retry": ("retry_job",),
    "embedding_spaces": ("models",),
    "generate_text_embeddings": ("embeddings",),
    "jobs.changed": ("follow", "follow_all"),
    "principal": "is in `whoami`",
    "transcribe": ("transcriptions",),
    "record_live": "records from the microphone of the machine; over HTTP: live sound",
    "recover": "the server does it by itself",
}
# What the package offers besides, and where that is.
OTHERS = {
    "known_models": ("list_models",),
    "diagnose": ("diagnose",),
    "copy_archive": "makes another archive, at a place of who runs the machine",
    "restore_backup": "makes another archive, at a place of who runs the machine; to try one: rehearse_backup",
    "load_audio": ONE_PROCESS,
}


def test_everything_that_the_python_api_does_is_here_or_has_a_reason_why_not() -> None:
    wanted = {name for name in public(AudioStorageSystem) if name not in BOARDS} | {"recovered"}
    for board, owner in BOARDS.items():
        wanted |= {f"{board}.{name}" for name in public(owner) if inspect.isfunction(getattr(owner, name))}
    assert wanted - ROUTES.keys() == set(), "give it a route, or the reason why it has none"
    assert ROUTES.keys() - wanted == set(), "it is gone"
    functions = {name for name in audio_storage_system.__all__ if name[0].islower()}
    assert functions == OTHERS.keys()


def test_every_route_that_is_named_is_there() -> None:
    named = {one for where in [*ROUTES.values(), *OTHERS.values()] if isinstance(where, tuple) for one in where}
    assert named <= OPERATIONS.keys()
