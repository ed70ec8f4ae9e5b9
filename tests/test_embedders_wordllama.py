"""The bundled text embedder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system.embedders import TextEmbedder, open_text_embedder
from audio_storage_system.embedders.texts import never_blank, readable
from audio_storage_system.embedders.wordllama import WordLlamaEmbedder
from audio_storage_system.errors import UnknownSpec
from audio_storage_system.testing.embedders import TEXTS, TextEmbedderContract


@pytest.fixture
def embedder() -> TextEmbedder:
    return open_text_embedder("auto")


class TestWordLlama(TextEmbedderContract):
    @pytest.fixture
    def embedder(self) -> TextEmbedder:
        return WordLlamaEmbedder()


def test_auto_is_the_bundled_model(embedder: TextEmbedder) -> None:
    assert (embedder.model, embedder.dimension) == ("wordllama", 256)


def test_texts_of_one_meaning_are_nearer_than_texts_of_different_meanings(embedder: TextEmbedder) -> None:
    money, spending, dog = embedder.embed_batch(
        ["We discussed the yearly budget.", "How much money may we spend this year?", "The dog is barking loudly."]
    )
    assert money @ spending > money @ dog + 0.1


def test_vectors_equal_those_of_the_package_itself(embedder: TextEmbedder) -> None:
    import wordllama

    folder = Path(wordllama.__file__).parent
    reference = wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed(list(TEXTS), norm=True)
    np.testing.assert_allclose(embedder.embed_batch(TEXTS), reference, atol=1e-5)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_text_with_nothing_in_it_is_near_no_text(embedder: TextEmbedder, text: str) -> None:
    similarities = embedder.embed_batch([*TEXTS, ".", "yes", "the of and"]) @ embedder.embed(text)
    assert np.abs(similarities).max() < 0.1


def test_only_the_beginning_of_an_endless_text_counts(embedder: TextEmbedder) -> None:
    begin = "budget " * 20_000
    np.testing.assert_array_equal(embedder.embed(begin + "zebra " * 1_500_000), embedder.embed(begin))


def test_it_loads_without_network_and_leaves_logging_alone() -> None:
    program = """
import logging, socket
def refuse(*arguments, **options): raise AssertionError("the network was touched")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from audio_storage_system.embedders import open_text_embedder
embedder = open_text_embedder("wordllama")
assert len(embedder.embed("hello")) == 256
assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60, env={"HF_HUB_OFFLINE": "0"})


def test_an_argument_is_refused() -> None:
    with pytest.raises(UnknownSpec, match="wordllama:large"):
        open_text_embedder("wordllama:large")


def test_readable_text_can_always_be_encoded() -> None:
    assert readable("a\ud800b") == "a?b"
    assert readable("abcdef", limit=3) == "abc"


@pytest.mark.parametrize(("text", "expected"), [("", "."), (" \n", "."), (" a ", " a ")])
def test_a_blank_text_becomes_a_full_stop(text: str, expected: str) -> None:
    assert never_blank(text) == expected
