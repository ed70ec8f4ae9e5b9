"""Models in a folder of one's own."""

from __future__ import annotations

import hashlib
from pathlib import Path

_DEFINING = ("*.onnx", "*.onnx_data", "*.safetensors", "*.bin", "tokenizer.json", "config.json")


def model_folder(argument: str) -> Path | None:
    """The folder that `argument` names, if there is one; otherwise it is a model's name."""
    folder = Path(argument).expanduser()
    return folder.resolve() if argument and folder.is_dir() else None


def folder_name(folder: Path) -> str:
    """The folder's name with a fingerprint of its weights and tokenizer: wherever the folder lies, equal names mean
    equal models."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _DEFINING for path in folder.rglob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.name}@{digest.hexdigest()[:12]}"
