"""Every module imports only lower layers, or siblings in its own package folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import audio_storage_system

NAME = "audio_storage_system"
ROOT = Path(audio_storage_system.__file__).parent
LAYERS = [
    {"records", "errors", "positioned"},  # the foot of layer 0: the rest of it raises these errors
    {"locations", "registry", "keys", "metrics", "clock", "durable", "scratch", "hub", "machine", "notation"},
    {"model_pool", "served"},
    {"database", "blobs", "audio", "formats", "uploads"},
    {"catalogue", "vectors", "transcribers", "embedders", "diarizers", "enrichers"},
    {"access", "audit", "passages", "marker", "settings", "spaces"},
    {"outbox"},  # asks who may see what, and is told by what changes it
    {"pipeline", "search", "deletion"},
    {"archive"},
    {"retention", "webhooks"},  # what upkeep and workers carry out
    {
        "diagnosis",
        "jobs",
        "live",
        "backup",
        "integrity",
        "security",
        "transfer",
        "monitoring",
        "permissions",
        "auditing",
        "rotation",
    },
    {"facade"},
    {"system"},
    {"__init__"},  # the facade under its public name, for the skins above it
    {"server", "testing"},
    {"cli"},  # one of its commands starts the server
    {"__main__"},
]
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def part_of(module: str) -> str:
    """`blobs/local.py` → `blobs`, `records.py` → `records`."""
    return module.split("/")[0].removesuffix(".py")


MODULE_PARTS = {part_of(module) for module in MODULES}


def imported(node: ast.AST) -> Iterator[str]:
    """The parts of our own package that an import statement names; `__init__` for the package itself."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they lead"
        names = [f"{node.module}.{alias.name}" if node.module == NAME else str(node.module) for alias in node.names]
    else:
        return
    for name in names:
        first, _, rest = name.partition(".")
        if first == NAME:
            part = rest.split(".")[0]
            yield part if part in LAYER_OF or part in MODULE_PARTS else "__init__"


def violations(module: str, source: str) -> Iterator[str]:
    part, tree = part_of(module), ast.parse(source)
    inside_functions = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        for target in imported(node):
            line = f"{module}:{getattr(node, 'lineno', 0)} imports {target}"
            if target not in LAYER_OF:
                yield f"{line}, which has no layer"
            elif target != part and LAYER_OF[target] >= LAYER_OF[part]:
                yield f"{line}, which is not below it"
            if id(node) in inside_functions and part != "cli":
                yield f"{line} inside a function"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_layer_and_imports_only_lower_ones(module: str) -> None:
    assert part_of(module) in LAYER_OF, f"{module}: name its layer here and in the design"
    assert list(violations(module, (ROOT / module).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("records.py", f"import {NAME}.system", "not below"),
        ("records.py", f"from {NAME} import errors", "not below"),
        ("blobs/local.py", f"from {NAME}.audio.spool import Spool", "not below"),
        ("catalogue/metadata.py", f"from {NAME} import AudioStorageSystem", "not below"),
        ("catalogue/metadata.py", f"import {NAME}", "not below"),
        ("catalogue/metadata.py", f"if TYPE_CHECKING:\n  from {NAME}.pipeline import store", "not below"),
        ("system.py", f"def f():\n  from {NAME}.records import Segment", "inside a function"),
        ("system.py", f"from {NAME}.invented import x", "not below"),
    ],
)
def test_what_breaks_the_rule_is_seen(module: str, source: str, reason: str) -> None:
    assert reason in " ".join(violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("catalogue/metadata.py", f"from {NAME}.catalogue.changes import record\nimport json"),
        ("system.py", f"from {NAME} import errors, search\nfrom {NAME}.catalogue import metadata"),
        ("cli/add.py", f"def f():\n  from {NAME}.system import AudioStorageSystem"),
        ("__init__.py", f"from {NAME}.system import AudioStorageSystem"),
    ],
)
def test_what_keeps_the_rule_passes(module: str, source: str) -> None:
    assert list(violations(module, source)) == []
