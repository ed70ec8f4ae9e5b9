"""What the package offers: its names, the methods of its facade, and a docstring on everything that is public."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import audio_storage_system
from audio_storage_system import AudioStorageSystem

PACKAGE = Path(audio_storage_system.__file__).parent
REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "python.md"
# Alembic calls these by their names.
EXEMPT_MODULES = ("database/migrations/env.py", "database/migrations/versions/")
NAMES = {
    "Added",
    "AudioStorageSystem",
    "AudioStorageSystemError",
    "Cancellation",
    "ContextPack",
    "CopyReport",
    "Hit",
    "SearchResults",
    "Waveform",
    "__version__",
    "copy_archive",
    "diagnose",
    "known_models",
    "load_audio",
    "restore_backup",
}
METHODS = {
    "activate_transcript",
    "add",
    "as_user",
    "append_metadata",
    "audio_url",
    "check_security",
    "backups",
    "audit",
    "check_metadata",
    "cleanup_old_files",
    "close",
    "context_pack",
    "delete",
    "diagnose",
    "diff_transcripts",
    "examine",
    "exists",
    "export",
    "generate_audio_embedding",
    "generate_combined_embedding",
    "generate_embeddings",
    "generate_text_embedding",
    "generate_transcript",
    "get_recording",
    "get_transcript",
    "get_user_audio",
    "holds",
    "grants",
    "home",
    "import_transcript",
    "jobs",
    "known_hashes",
    "keys",
    "list_recordings",
    "live",
    "may_write",
    "metadata_history",
    "metadata_schema",
    "models",
    "open_audio",
    "notes",
    "patch_metadata",
    "peaks",
    "plan_reembedding",
    "record_and_store_audio",
    "record_live",
    "reembed",
    "reindex",
    "remove_metadata",
    "quarantine",
    "retention",
    "remove_metadata_schema",
    "retranscribe",
    "search_similar_audio",
    "principal",
    "recover",
    "segments",
    "set_metadata",
    "set_metadata_schema",
    "settings",
    "stats",
    "store_audio_file",
    "submit",
    "submit_reembedding",
    "temporary_file",
    "tokens",
    "transcripts",
    "trash",
    "uploads",
    "use_embedder",
    "verify",
    "users",
    "whoami",
    "webhooks",
    "worker",
}


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert sorted(audio_storage_system.__all__) == sorted(NAMES)
    star: dict[str, object] = {}
    exec("from audio_storage_system import *", star)  # noqa: S102 - what a user may write
    assert NAMES == star.keys() - {"__builtins__"}


def test_every_lazy_name_is_public_and_known_to_type_checkers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == NAMES - {"__version__"}
    assert typed == vars(audio_storage_system)["_HOMES"].keys()


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = audio_storage_system.no_such_thing
    with pytest.raises(ImportError):
        exec("from audio_storage_system import no_such_thing")  # noqa: S102


def test_the_facade_has_these_methods() -> None:
    public = {name for name in dir(AudioStorageSystem) if not name.startswith("_")}
    assert public == METHODS, "a change of the public API: change this list, the documentation and CHANGELOG.md"


def test_every_public_name_is_on_the_reference_page() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    wanted = [f"## {name}\n" for name in NAMES - {"__version__"}]
    wanted += [f"### AudioStorageSystem.{name}\n" for name in METHODS]
    assert [heading for heading in wanted if heading not in page] == []


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = "numpy av ctranslate2 faster_whisper onnxruntime wordllama fastembed sqlalchemy openai sounddevice".split()
    program = f"import sys, audio_storage_system; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Docstrings


def modules() -> list[str]:
    """Every public module of the package, by its path."""
    paths = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    return [path for path in paths if not path.startswith(EXEMPT_MODULES)]


def is_public(name: str) -> bool:
    return not name.startswith("_")


def methods(owner: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """The public methods of a class. Properties are values: their names say what they are."""
    for node in owner.body:
        if isinstance(node, ast.FunctionDef) and is_public(node.name):
            marks = [ast.unparse(decorator) for decorator in node.decorator_list]
            if not any(mark == "property" or mark.endswith(".setter") for mark in marks):
                yield node


@dataclass(frozen=True)
class Known:
    """The names of our classes, and of the methods that the contracts among them describe."""

    classes: set[str]
    contracts: set[str]

    def says_for(self, owner: ast.ClassDef, method: str) -> bool:
        """Whether a base class describes the method: one of our contracts, or a class of another package."""
        bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in owner.bases}
        return bool(bases) and (method in self.contracts or not bases & self.classes)


def known_classes() -> Known:
    trees = [ast.parse((PACKAGE / path).read_text(encoding="utf-8")) for path in modules()]
    owners = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    described = {
        method.name
        for owner in owners
        if any(ast.unparse(base) in ("ABC", "Protocol") for base in owner.bases)
        for method in methods(owner)
        if ast.get_docstring(method)
    }
    return Known({owner.name for owner in owners}, described)


def undocumented(path: str, source: str, known: Known) -> Iterator[str]:
    """What is public in a module and lacks a docstring; functions inside functions are nobody's business."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield path
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_public(node.name):
            if not ast.get_docstring(node):
                yield f"{path}: {node.name}"
            if isinstance(node, ast.ClassDef) and not path.startswith("testing/"):  # methods there are tests
                for method in methods(node):
                    if not ast.get_docstring(method) and not known.says_for(node, method.name):
                        yield f"{path}: {node.name}.{method.name}"


@pytest.fixture(scope="module")
def known() -> Known:
    return known_classes()


@pytest.mark.parametrize("path", modules())
def test_everything_public_has_a_docstring(path: str, known: Known) -> None:
    source = (PACKAGE / path).read_text(encoding="utf-8")
    assert list(undocumented(path, source, known)) == []


def test_a_missing_docstring_is_seen(known: Known) -> None:
    source = (
        'class A:\n    """A."""\n    def b(self): ...\n    @property\n    def c(self): ...\ndef d(): ...\ndef _e(): ...'
    )
    assert list(undocumented("x.py", source, known)) == ["x.py", "x.py: A.b", "x.py: d"]


def test_the_contracts_are_found(known: Known) -> None:
    assert {"embed_batch", "stage", "publish", "query", "transcribe", "load", "admit"} <= known.contracts


def test_the_parameters_of_the_guide_are_taken_by_their_names() -> None:
    recording = inspect.signature(AudioStorageSystem.record_and_store_audio).parameters
    assert [*recording][1:5] == ["duration", "whisper_model", "generate_embeddings", "metadata"]
    assert [*inspect.signature(AudioStorageSystem.get_user_audio).parameters][1:] == ["user_id", "audio_id"]
    assert [*inspect.signature(AudioStorageSystem.cleanup_old_files).parameters][1:] == ["days_old"]
    assert [*inspect.signature(AudioStorageSystem.search_similar_audio).parameters][1:3] == ["text", "limit"]
