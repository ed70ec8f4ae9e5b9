"""sentence-transformers: a real model, tiny and random, where the extra is installed."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system.embedders import TextEmbedder, open_text_embedder
from audio_storage_system.errors import EngineUnavailable, MissingExtra, UnknownSpec
from audio_storage_system.testing.embedders import TextEmbedderContract

INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
needs_extra = pytest.mark.skipif(not INSTALLED, reason="sentence-transformers (an extra that brings torch) is not here")
# what the libraries themselves are warned about is not ours to mend
pytestmark = pytest.mark.filterwarnings("default")

WORDS = "we agreed on the budget for next year dog barked all night and nobody slept wie komme ich von hier zum".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "会", "議", "は"]
DIMENSION = 32


def write_model(folder: Path, *, seed: int = 1, prompts: dict[str, str] | None = None) -> Path:
    """A BERT of two small random layers with a mean over its tokens, in the folder layout that the library reads."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    size = {"hidden_size": DIMENSION, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, **size)).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": DIMENSION, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> TextEmbedder:
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny-bert")
    return open_text_embedder(f"sentence-transformers:{folder}")


@needs_extra
class TestSentenceTransformers(TextEmbedderContract):
    @pytest.fixture
    def embedder(self, loaded: TextEmbedder) -> TextEmbedder:
        return loaded


@needs_extra
def test_vectors_are_those_of_the_library(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_model(tmp_path / "tiny")
    embedder = open_text_embedder(f"sentence-transformers:{folder}")
    reference = SentenceTransformer(str(folder)).encode(["the dog barked"], normalize_embeddings=True)
    np.testing.assert_allclose(embedder.embed("the dog barked"), reference[0], atol=1e-5)
    assert embedder.dimension == DIMENSION
    assert embedder.model.startswith("sentence-transformers:tiny@")


@needs_extra
def test_a_query_gets_the_models_query_prompt(tmp_path: Path) -> None:
    embedder = open_text_embedder(
        f"sentence-transformers:{write_model(tmp_path / 'prompted', prompts={'query': 'wie komme ich '})}"
    )
    np.testing.assert_allclose(embedder.embed_query("the dog"), embedder.embed("wie komme ich the dog"), atol=1e-5)
    assert embedder.embed_query("the dog") @ embedder.embed("the dog") < 0.999


@needs_extra
def test_other_weights_are_another_space(tmp_path: Path) -> None:
    one, two = (
        open_text_embedder(f"sentence-transformers:{write_model(tmp_path / str(seed) / 'tiny', seed=seed)}")
        for seed in (1, 2)
    )
    assert one.model != two.model


@needs_extra
def test_offline_a_missing_model_is_reported_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="HF_HUB_OFFLINE is set"):
        open_text_embedder("sentence-transformers:all-no-such-model").embed("hello")
    assert time.monotonic() - started < 10


@needs_extra
def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(EngineUnavailable, match="cannot run here"):
        open_text_embedder(f"sentence-transformers:{tmp_path}").embed("hello")


@needs_extra
def test_a_model_must_be_named() -> None:
    with pytest.raises(UnknownSpec, match="all-MiniLM-L6-v2"):
        open_text_embedder("sentence-transformers")


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
def test_without_the_extra_the_message_says_what_to_install() -> None:
    with pytest.raises(MissingExtra, match=r"pip install \"audio-storage-system\[sentence-transformers\]\""):
        open_text_embedder("sentence-transformers:all-MiniLM-L6-v2")
