"""Every public call by every role: who may not see a recording finds that there is none, who may see and not do it is
refused. The calls come from the list of public methods: one without an entry here fails the test."""

from __future__ import annotations

import inspect
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.access import Role
from audio_storage_system.auditing import AuditBoard
from audio_storage_system.backup import Backups
from audio_storage_system.catalogue import transcripts
from audio_storage_system.errors import AudioStorageSystemError, Forbidden, NotFound
from audio_storage_system.integrity import Quarantine
from audio_storage_system.jobs import Jobs, Uploads
from audio_storage_system.permissions import Grants, Tokens, Users
from audio_storage_system.retention import Holds, Retention, Trash
from audio_storage_system.rotation import KeyBoard
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS
from audio_storage_system.webhooks import Webhooks
from builders import Talk, say

BOARDS = {
    "audit": AuditBoard,
    "backups": Backups,
    "grants": Grants,
    "holds": Holds,
    "jobs": Jobs,
    "keys": KeyBoard,
    "retention": Retention,
    "tokens": Tokens,
    "quarantine": Quarantine,
    "trash": Trash,
    "uploads": Uploads,
    "users": Users,
    "webhooks": Webhooks,
}
MISSING = 10**9
NOBODY = "https://nobody.invalid/"
WHO = ("nobody", "reader", "editor", "owner", "admin")
RANK: dict[str, Role | None] = dict(zip(WHO, [None, *Role], strict=True))


@dataclass
class Target:
    """The recording that a call is about; `id`s of what is not there stand for it where it is hidden."""

    audio_id: int
    transcript_id: int
    job_id: int
    grant_id: int
    file: Path

    def missing(self) -> Target:
        return Target(MISSING, MISSING, MISSING, MISSING, self.file)


Do = Callable[[AudioStorageSystem, Target], Any]


@dataclass
class Call:
    """needs: the role on the recording; `None` for what is nobody's in particular. holds: what the answer holds of the
    recording, for calls that leave out what is hidden instead of refusing. writes: not for tokens that only read."""

    needs: Role | None
    do: Do
    holds: Callable[[Any, Target], bool] | None = None
    writes: bool = False


def on(needs: Role, do: Do) -> Call:
    return Call(needs, do, writes=needs is not Role.READER)


def free(do: Do, *, writes: bool = False) -> Call:
    return Call(None, do, writes=writes)


def listed(do: Do, holds: Callable[[Any, Target], bool]) -> Call:
    return Call(None, do, holds)


def admin(do: Do) -> Call:
    return Call(Role.ADMIN, do, writes=True)


def has(name: str) -> Callable[[Any, Target], bool]:
    return lambda found, target: any(getattr(one, name) == target.audio_id for one in found)


def assign(name: str) -> Do:
    return lambda view, _: setattr(view, name, lambda *given: np.ones(8))


def fresh(target: Target) -> Path:
    """A file that nobody has stored."""
    return tone(target.file.parent / f"{some_name()}.wav")


def hook(view: AudioStorageSystem) -> int:
    """A webhook of who asks, which nobody answers; always the same."""
    known = [one.id for one in view.webhooks.list() if one.principal == view._archive.access.name]
    return known[0] if known else view.webhooks.add(NOBODY).webhook.id


def some_name() -> str:
    return str(np.random.default_rng().integers(2**60))


def place(target: Target) -> Path:
    """Where there is no backup yet."""
    return target.file.parent / f"backup {some_name()}"


def backup(view: AudioStorageSystem, target: Target) -> Path:
    """A place with a backup."""
    found = place(target)
    view.backups.create(found)
    return found


R, E, O = Role.READER, Role.EDITOR, Role.OWNER  # noqa: E741 - the columns of the matrix
CALLS: dict[str, Call] = {
    "activate_transcript": on(E, lambda v, t: v.activate_transcript(t.transcript_id)),
    "add": free(lambda v, t: v.add(fresh(t)), writes=True),
    "append_metadata": on(E, lambda v, t: v.append_metadata(t.audio_id, "y", 1)),
    "as_user": admin(lambda v, t: v.as_user("a nobody")),
    "audio_url": on(R, lambda v, t: v.audio_url(t.audio_id)),
    "check_security": admin(lambda v, t: v.check_security()),
    "cleanup_old_files": admin(lambda v, t: v.cleanup_old_files(10_000)),
    "check_metadata": free(lambda v, t: v.check_metadata()),
    "close": free(lambda v, t: v.close()),
    "context_pack": listed(lambda v, t: v.context_pack("one").citations, has("audio_id")),
    "delete": on(O, lambda v, t: v.delete(t.audio_id)),
    "diagnose": admin(lambda v, t: v.diagnose()),
    "diff_transcripts": on(R, lambda v, t: v.diff_transcripts(t.transcript_id, t.transcript_id)),
    "examine": listed(lambda v, t: v.examine(t.file), lambda found, t: found.audio_id is not None),
    "exists": free(lambda v, t: v.exists(v.home)),
    "export": on(R, lambda v, t: v.export(t.audio_id)),
    "generate_audio_embedding": admin(assign("generate_audio_embedding")),
    "generate_combined_embedding": admin(assign("generate_combined_embedding")),
    "generate_embeddings": on(E, lambda v, t: v.generate_embeddings(t.audio_id)),
    "generate_text_embedding": admin(assign("generate_text_embedding")),
    "embedding_spaces": free(lambda v, t: v.embedding_spaces()),
    "generate_text_embeddings": free(lambda v, t: v.generate_text_embeddings(["one"])),
    "transcribe": free(lambda v, t: v.transcribe(t.file)),
    "generate_transcript": on(E, lambda v, t: v.generate_transcript(t.audio_id)),
    "get_recording": on(R, lambda v, t: v.get_recording(t.audio_id)),
    "get_transcript": on(R, lambda v, t: v.get_transcript(t.transcript_id)),
    "get_user_audio": on(R, lambda v, t: v.get_user_audio("stored it", t.audio_id)),
    "home": free(lambda v, t: v.home),
    "settings": free(lambda v, t: v.settings),
    "temporary_file": free(lambda v, t: v.temporary_file().close()),
    "import_transcript": on(E, lambda v, t: v.import_transcript(t.audio_id, subtitles(t))),
    "known_hashes": free(lambda v, t: v.known_hashes()),
    "list_recordings": listed(lambda v, t: v.list_recordings(), has("id")),
    "live": free(lambda v, t: v.live().close(), writes=True),
    "may_write": free(lambda v, t: v.may_write),
    "metadata_history": on(R, lambda v, t: v.metadata_history(t.audio_id)),
    "principal": free(lambda v, t: v.principal),
    "recover": admin(lambda v, t: v.recover()),
    "metadata_schema": free(lambda v, t: v.metadata_schema()),
    "models": admin(lambda v, t: v.models()),
    "notes": admin(lambda v, t: v.notes),
    "open_audio": on(R, lambda v, t: v.open_audio(t.audio_id).close()),
    "patch_metadata": on(E, lambda v, t: v.patch_metadata(t.audio_id, {"x": 1})),
    "peaks": on(R, lambda v, t: v.peaks(t.audio_id)),
    "plan_reembedding": admin(lambda v, t: v.plan_reembedding()),
    "record_and_store_audio": free(lambda v, t: v.record_and_store_audio(device="none"), writes=True),
    "record_live": free(lambda v, t: v.record_live(device="none"), writes=True),
    "recovered": free(lambda v, t: v.recovered),
    "reembed": admin(lambda v, t: v.reembed(kind="audio")),
    "reindex": admin(lambda v, t: v.reindex()),
    "remove_metadata": on(E, lambda v, t: v.remove_metadata(t.audio_id, "x")),
    "remove_metadata_schema": free(lambda v, t: v.remove_metadata_schema(), writes=True),
    "retranscribe": on(E, lambda v, t: v.retranscribe([t.audio_id])),
    "search_similar_audio": listed(lambda v, t: v.search_similar_audio("one", 10_000), has("audio_id")),
    "segments": on(R, lambda v, t: v.segments(t.transcript_id)),
    "set_metadata": on(E, lambda v, t: v.set_metadata(t.audio_id, {"x": 1})),
    "set_metadata_schema": free(lambda v, t: v.set_metadata_schema({}), writes=True),
    "stats": listed(lambda v, t: v.stats(), lambda found, t: found["recordings"] > 0),
    "store_audio_file": free(lambda v, t: v.store_audio_file(fresh(t)), writes=True),
    "submit": free(lambda v, t: v.submit(fresh(t)), writes=True),
    "submit_reembedding": admin(lambda v, t: v.submit_reembedding(kind="audio")),
    "transcripts": on(R, lambda v, t: v.transcripts(t.audio_id)),
    "use_embedder": admin(lambda v, t: v.use_embedder(lambda text: np.ones(8), "again")),
    "verify": admin(lambda v, t: v.verify()),
    "whoami": free(lambda v, t: v.whoami()),
    "worker": admin(lambda v, t: v.worker()),
    "audit.anchor": admin(lambda v, t: v.audit.anchor(t.file.with_suffix(".anchor"))),
    "audit.export": admin(lambda v, t: v.audit.export(t.file.with_suffix(".audit"))),
    "audit.heads": admin(lambda v, t: v.audit.heads()),
    "audit.list": admin(lambda v, t: v.audit.list()),
    "audit.verify": admin(lambda v, t: v.audit.verify()),
    "backups.anchor": admin(lambda v, t: v.backups.anchor(backup(v, t))),
    "backups.create": admin(lambda v, t: v.backups.create(place(t))),
    "backups.list": admin(lambda v, t: v.backups.list()),
    "backups.prune": admin(lambda v, t: v.backups.prune(place(t), keep_last=1)),
    "backups.rehearse": admin(lambda v, t: v.backups.rehearse(backup(v, t))),
    "backups.verify": admin(lambda v, t: v.backups.verify(backup(v, t))),
    "holds.list": admin(lambda v, t: v.holds.list()),
    "holds.place": admin(lambda v, t: v.holds.place(some_name(), where={"nobody": "has it"})),
    "holds.release": admin(lambda v, t: v.holds.release(v.holds.place(some_name(), where={"nobody": "has it"}).name)),
    "keys.export": admin(lambda v, t: v.keys.export(t.file.with_suffix(".key"))),
    "keys.rotate": admin(lambda v, t: v.keys.rotate()),
    "keys.show": admin(lambda v, t: v.keys.show()),
    "jobs.cancel": on(E, lambda v, t: v.jobs.cancel(t.job_id)),
    "jobs.changed": listed(lambda v, t: v.jobs.changed()[0], has("audio_id")),
    "jobs.close": free(lambda v, t: v.jobs.close()),
    "jobs.counts": listed(lambda v, t: v.jobs.counts(), lambda found, t: found["unfinished"] > 0),
    "jobs.done": on(E, lambda v, t: v.jobs.done(t.job_id)),
    "jobs.entry": free(lambda v, t: v.jobs.entry("add", {}, priority="low")),
    "jobs.find": listed(lambda v, t: v.jobs.find(limit=None), has("audio_id")),
    "jobs.failed": on(E, lambda v, t: v.jobs.failed(t.job_id, ValueError())),
    "jobs.get": on(R, lambda v, t: v.jobs.get(t.job_id)),
    "jobs.hasten": on(E, lambda v, t: v.jobs.hasten(t.job_id)),
    "jobs.is_idle": listed(lambda v, t: v.jobs.is_idle(), lambda found, t: not found),
    "jobs.queue": free(lambda v, t: v.jobs.queue([])),
    "jobs.retry": on(E, lambda v, t: v.jobs.retry(t.job_id)),
    "jobs.seen_by": free(lambda v, t: v.jobs.seen_by(v._archive)),
    "jobs.submit": on(E, lambda v, t: v.jobs.submit("add", [t.audio_id], {})),
    "jobs.submit_reembedding": admin(lambda v, t: v.jobs.submit_reembedding(None, "audio", drop_old=False)),
    "jobs.wait": on(R, lambda v, t: v.jobs.wait([t.job_id], timeout=0)),
    "jobs.workers": admin(lambda v, t: v.jobs.workers()),
    "quarantine.empty": admin(lambda v, t: v.quarantine.empty()),
    "quarantine.list": admin(lambda v, t: v.quarantine.list()),
    "quarantine.restore": admin(lambda v, t: v.quarantine.restore(stray(v))),
    "retention.add": admin(lambda v, t: v.retention.add(some_name(), 10_000)),
    "retention.clean_up": admin(lambda v, t: v.retention.clean_up(10_000)),
    "retention.plan": admin(lambda v, t: list(v.retention.plan())),
    "retention.remove": admin(lambda v, t: v.retention.remove(v.retention.add(some_name(), 10_000).name)),
    "retention.report": admin(lambda v, t: v.retention.report()),
    "retention.rules": admin(lambda v, t: v.retention.rules()),
    "retention.run": admin(lambda v, t: v.retention.run()),
    "trash.empty": free(lambda v, t: v.trash.empty(), writes=True),
    "trash.list": free(lambda v, t: v.trash.list()),
    "trash.put": on(O, lambda v, t: v.trash.put(t.audio_id)),
    "trash.restore": on(O, lambda v, t: v.trash.restore(v.trash.put(t.audio_id)[0].audio_id)),
    "uploads.abort": free(lambda v, t: v.uploads.abort(begun(v)), writes=True),
    "uploads.append": free(lambda v, t: v.uploads.append(begun(v), 0, []), writes=True),
    "uploads.appending": free(lambda v, t: v.uploads.appending(begun(v), 0).__exit__(None, None, None), writes=True),
    "uploads.create": free(lambda v, t: begun(v), writes=True),
    "uploads.finish": free(lambda v, t: v.uploads.finish(begun(v)), writes=True),
    "uploads.get": free(lambda v, t: v.uploads.get(begun(v))),
    "uploads.list": free(lambda v, t: v.uploads.list()),
    "users.add": admin(lambda v, t: v.users.add(some_name())),
    "users.get": admin(lambda v, t: v.users.get("a nobody")),
    "users.join": admin(lambda v, t: v.users.join("group", "a nobody")),
    "users.leave": admin(lambda v, t: v.users.leave("group", "a nobody")),
    "users.list": admin(lambda v, t: v.users.list()),
    "users.remove": admin(lambda v, t: v.users.remove("group")),
    "grants.give": on(O, lambda v, t: v.grants.give("group", "reader", audio_id=t.audio_id)),
    "grants.list": listed(lambda v, t: v.grants.list(audio_id=t.audio_id), has("audio_id")),
    "grants.revoke": on(O, lambda v, t: v.grants.revoke(t.grant_id)),
    "webhooks.add": free(lambda v, t: v.webhooks.remove(v.webhooks.add(NOBODY).webhook.id), writes=True),
    "webhooks.deliveries": free(lambda v, t: v.webhooks.deliveries(hook(v))),
    "webhooks.disable": free(lambda v, t: v.webhooks.disable(hook(v)), writes=True),
    "webhooks.enable": free(lambda v, t: v.webhooks.enable(hook(v)), writes=True),
    "webhooks.get": free(lambda v, t: v.webhooks.get(hook(v))),
    "webhooks.list": free(lambda v, t: v.webhooks.list()),
    "webhooks.remove": free(lambda v, t: v.webhooks.remove(hook(v)), writes=True),
    "webhooks.retry": free(lambda v, t: v.webhooks.retry(v.webhooks.test(hook(v)).delivery_id), writes=True),
    "webhooks.test": free(lambda v, t: v.webhooks.test(hook(v)), writes=True),
    "tokens.any": free(lambda v, t: v.tokens.any()),
    "tokens.authenticate": free(lambda v, t: None),
    "tokens.create": free(lambda v, t: v.tokens.create(scopes=["read"]), writes=True),
    "tokens.list": free(lambda v, t: v.tokens.list()),
    "tokens.revoke": free(lambda v, t: v.tokens.revoke(v.tokens.create().token.id), writes=True),
}
# What only an owner is told of: grants on a recording are nobody else's business, save for one's own.
OWN_GRANTS = ("grants.list", "grants.revoke")
# What the archive does for its own parts, and what is not about recordings.
PARTS = tuple(BOARDS)


def begun(view: AudioStorageSystem) -> str:
    """An upload that has begun."""
    return view.uploads.create(1, "some.wav").id


def stray(view: AudioStorageSystem) -> str:
    """A file in quarantine that no recording has."""
    view._archive.blobs.put("quarantine/20261122/copies/stray", b"stray")
    return "quarantine/20261122/copies/stray"


def public(owner: type) -> Iterator[str]:
    return (name for name in dir(owner) if not name.startswith("_"))


def test_every_public_call_is_in_the_matrix() -> None:
    wanted = {name for name in public(AudioStorageSystem) if name not in PARTS} | {"recovered"}
    for board, owner in BOARDS.items():
        wanted |= {f"{board}.{name}" for name in public(owner) if inspect.isfunction(getattr(owner, name))}
    assert wanted == CALLS.keys()


def tone(path: Path) -> Path:
    """A tenth of a second of noise that no other file has."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.random.default_rng().integers(-3000, 3000, 1600, dtype=np.int16).tobytes())
    return path


def subtitles(target: Target) -> Path:
    path = target.file.with_suffix(".srt")
    path.write_text("1\n00:00:00,000 --> 00:00:00,100\nsomething else\n")
    return path


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    patch = pytest.MonkeyPatch()
    patch.setitem(TRANSCRIBERS.builtin, scripted.SPEC, scripted.FACTORY)  # type: ignore[arg-type]
    home = tmp_path_factory.mktemp("matrix") / "archive"
    with AudioStorageSystem(home, transcriber="scripted") as opened:
        for name in WHO:
            opened.users.add(f"a {name}")
        opened.grants.give("a admin", "admin", everything=True)
        yield opened
    patch.undo()


@pytest.fixture
def target(storage: AudioStorageSystem, tmp_path: Path) -> Target:
    """A recording of somebody else, said and embedded, with a failed job, granted to each as their names say."""
    file = tone(tmp_path / "theirs.wav")
    audio_id = int(storage.store_audio_file(file, metadata={"user_id": "stored it"}))
    with storage._archive.database.write() as connection:
        transcript_id = say(connection, audio_id, Talk(["one two"]))
        transcripts.activate(connection, transcript_id)
    job = storage.retranscribe([audio_id])[0]
    storage.jobs.cancel(job.id)
    storage.jobs.submit("add", [audio_id], {})
    for name in ("reader", "editor", "owner"):
        storage.grants.give(f"a {name}", name, audio_id=audio_id)
    if all(one.name != "group" for one in storage.users.list()):
        storage.users.add("group", "group")
    grant = storage.grants.give("group", "reader", audio_id=audio_id)
    return Target(audio_id, transcript_id, job.id, grant.id, file)


def told(do: Do, view: AudioStorageSystem, target: Target) -> AudioStorageSystemError | None:
    try:
        do(view, target)
    except AudioStorageSystemError as error:
        return error
    return None


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_by_a_role(storage: AudioStorageSystem, target: Target, name: str, who: str) -> None:
    call, role = CALLS[name], RANK[who]
    asking = f"a {who}"
    if role is None:  # one who has stored nothing either
        asking = f"{asking} {target.audio_id}"
        storage.users.add(asking)
    view = storage.as_user(asking)
    if call.holds is not None:
        own = name in OWN_GRANTS and who in ("reader", "editor")
        assert call.holds(call.do(view, target), target) == ((role is not None and name != "examine") or own)
        return
    error = told(call.do, view, target)
    sufficient = call.needs is None or role in call.needs.sufficient
    if sufficient:  # this archive has no keys
        assert not isinstance(error, NotFound | Forbidden) or "has no keys" in str(error)
    elif role is None and call.needs is not Role.ADMIN:
        absent = told(call.do, view, target.missing())
        assert isinstance(error, NotFound) and isinstance(absent, NotFound)
        assert said(error, target) == said(absent, target.missing())
    elif name in OWN_GRANTS:
        assert isinstance(error, NotFound)
    else:
        assert isinstance(error, Forbidden) and str(error).startswith(f"{asking} may not ")


def said(error: NotFound, target: Target) -> str:
    """The words with the number in question left out."""
    numbers = {target.audio_id, target.transcript_id, target.job_id, target.grant_id}
    return " ".join(
        "N" if word.rstrip(".").isdigit() and int(word.rstrip(".")) in numbers else word for word in str(error).split()
    )


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.writes])
def test_a_token_that_only_reads_changes_nothing(storage: AudioStorageSystem, target: Target, name: str) -> None:
    for who in ("owner", "admin"):
        secret = storage.as_user(f"a {who}").tokens.create(scopes=["read"]).secret
        assert isinstance(told(CALLS[name].do, storage.tokens.authenticate(secret), target), Forbidden | NotFound)
    storage.get_recording(target.audio_id)


def test_the_trash_shows_what_one_could_delete(storage: AudioStorageSystem, target: Target) -> None:
    storage.trash.put(target.audio_id)
    shown = [who for who in WHO if has("audio_id")(storage.as_user(f"a {who}").trash.list(), target)]
    assert shown == ["owner", "admin"]
    for who in ("nobody", "reader", "editor"):
        error = told(lambda v, t: v.trash.restore(t.audio_id), storage.as_user(f"a {who}"), target)
        assert isinstance(error, NotFound | Forbidden)
    storage.as_user("a owner").trash.restore(target.audio_id)
    assert storage.get_recording(target.audio_id)


def test_who_is_not_restricted_may_everything(storage: AudioStorageSystem, target: Target) -> None:
    for name in ("get_recording", "set_metadata", "users.list", "grants.revoke", "jobs.get", "delete"):
        assert told(CALLS[name].do, storage, target) is None
