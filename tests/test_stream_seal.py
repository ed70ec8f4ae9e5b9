"""The format of sealed blobs: it is Tink's, and nothing of it can be changed unnoticed."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, cast

import pytest
import tink
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from audio_storage_system.blobs import stream_seal
from audio_storage_system.blobs.stream_seal import (
    FIRST,
    HEADER,
    REST,
    SEGMENT,
    TAG,
    Broken,
    SealedFile,
    Sealing,
    StreamKey,
    opened,
)

DATA_KEY, ABOUT = os.urandom(32), b"archive/blob"
NOISE = os.urandom(FIRST + 3 * REST)
# All sizes round the borders of segments.
SIZES = sorted({0, 1, 2, *(border + d for border in (FIRST, FIRST + REST, FIRST + 2 * REST) for d in (-1, 0, 1))})


def seal(data: bytes) -> bytes:
    return Sealing(io.BytesIO(data), StreamKey(DATA_KEY, stream_seal.new_header(), ABOUT)).read()


def key_of(header: bytes) -> StreamKey:
    return StreamKey(DATA_KEY, header, ABOUT)


def unseal(sealed: bytes) -> bytes:
    """As a whole, and from the file; both must say the same."""
    whole = b"".join(opened([sealed], key_of))
    assert read(sealed) == whole
    return whole


def read(sealed: bytes, start: int = 0, size: int = -1) -> bytes:
    content = SealedFile(io.BytesIO(sealed), stream_seal.plain_size(len(sealed)), key_of(sealed[:HEADER]))
    file = io.BufferedReader(content)
    file.seek(start)
    return file.read(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_comes_back_and_its_size_is_known(size: int) -> None:
    sealing = Sealing(io.BytesIO(NOISE[:size]), StreamKey(DATA_KEY, stream_seal.new_header(), ABOUT))
    sealed = sealing.read()
    assert sealing.size == size
    assert stream_seal.plain_size(len(sealed)) == size
    assert unseal(sealed) == NOISE[:size]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, FIRST + 2 * REST), st.integers(0, 3 * SEGMENT))
def test_any_range_is_that_of_the_bytes(start: int, size: int) -> None:
    assert read(SEALED, start, size) == NOISE[: FIRST + 2 * REST][start : start + size]


SEALED = seal(NOISE[: FIRST + 2 * REST])


def test_a_range_reads_only_the_segments_asked_for() -> None:
    class Counting(io.BytesIO):
        bytes_read = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.bytes_read += len(data)
            return data

    file = Counting(SEALED)
    content = SealedFile(cast(BinaryIO, file), FIRST + 2 * REST, key_of(SEALED[:HEADER]))
    content.seek(FIRST + 10)
    assert content.read(1000) == NOISE[FIRST + 10 : FIRST + 1010]
    assert file.bytes_read == SEGMENT


@pytest.mark.parametrize("cut", [0, 1, HEADER - 1, HEADER, HEADER + TAG - 1, HEADER + TAG, SEGMENT - 1, SEGMENT])
def test_a_stream_cut_off_is_refused(cut: int) -> None:
    for end in {cut, cut + SEGMENT, cut + 2 * SEGMENT} - {len(SEALED)}:
        if end < len(SEALED):
            with pytest.raises(Broken):
                b"".join(opened([SEALED[:end]], key_of))
            with pytest.raises(Broken):
                read(SEALED[:end])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused(position: int, change: int) -> None:
    changed = bytearray(SEALED)
    changed[position] ^= change
    with pytest.raises(Broken):
        b"".join(opened([bytes(changed)], key_of))


def test_segments_in_another_order_left_out_or_added_are_refused() -> None:
    parts = [SEALED[start : start + SEGMENT] for start in range(0, len(SEALED), SEGMENT)]
    other = seal(NOISE[: FIRST + 2 * REST])
    for tampered in (
        [parts[0], parts[2], parts[1]],
        [parts[0], parts[2]],
        [*parts[:2], parts[1], parts[2]],
        [*parts, parts[2]],
        [parts[0], other[SEGMENT : 2 * SEGMENT], parts[2]],
    ):
        with pytest.raises(Broken):
            b"".join(opened(tampered, key_of))


def test_another_key_and_another_blob_s_associated_data_open_nothing() -> None:
    for data_key, about in ((os.urandom(32), ABOUT), (DATA_KEY, b"archive/other")):
        with pytest.raises(Broken):
            b"".join(opened([SEALED], lambda header, key=data_key, aad=about: StreamKey(key, header, aad)))


@given(st.lists(st.integers(1, SEGMENT + 7), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_blocks_of_any_size_give_the_same(sizes: list[int]) -> None:
    blocks, at = [], 0
    while at < len(SEALED):
        size = sizes[len(blocks) % len(sizes)] if len(blocks) < 50 else SEGMENT
        blocks.append(SEALED[at : at + size])
        at += size
    assert b"".join(opened(blocks, key_of)) == NOISE[: FIRST + 2 * REST]


# --- Tink ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primitive() -> streaming_aead.StreamingAead:
    """Tink's own implementation, with our data key: template AES256_GCM_HKDF_1MB."""
    streaming_aead.register()
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey()
    key.key_value = DATA_KEY
    key.params.ciphertext_segment_size, key.params.derived_key_size = SEGMENT, 32
    key.params.hkdf_hash_type = common_pb2.SHA256
    keyset = tink_pb2.Keyset(primary_key_id=1)
    added = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    added.key_data.type_url = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
    added.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    added.key_data.value = key.SerializeToString()
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(streaming_aead.StreamingAead)


class _Kept(io.BytesIO):
    """Tink closes what it writes to."""

    def close(self) -> None:
        pass


@pytest.mark.parametrize("size", SIZES)
def test_tink_reads_what_we_seal_and_we_read_what_tink_seals(
    primitive: streaming_aead.StreamingAead, size: int
) -> None:
    with primitive.new_decrypting_stream(cast(BinaryIO, io.BytesIO(seal(NOISE[:size]))), ABOUT) as plain:
        assert plain.read() == NOISE[:size]
    target = _Kept()
    with primitive.new_encrypting_stream(cast(BinaryIO, target), ABOUT) as sealing:
        sealing.write(NOISE[:size])
    assert unseal(target.getvalue()) == NOISE[:size]
