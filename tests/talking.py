"""Clients of live sockets, for tests; and streams as a browser's MediaRecorder makes them."""

from __future__ import annotations

import io
import json
import random
import socket
import struct
import time
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import av
import numpy as np
import numpy.typing as npt
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from audio_storage_system import AudioStorageSystem
from sounds import integers, noise

WAIT = 60.0
# The engine for tests understands at once.
HEARD: dict[str, Any] = {"transcriber": "scripted"}
OFFERED: dict[str, Any] = {"openai_models": "scripted=scripted"}
Message = dict[str, Any]


class Talk:
    """A socket, and what came over it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[Message] = []

    def say(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def sound(self, data: bytes, sizes: Sequence[int] = (3200,)) -> None:
        """Send bytes in pieces of these sizes, over and over."""
        start = number = 0
        while start < len(data):
            size = sizes[number % len(sizes)]
            self.connection.send(data[start : start + size])
            start, number = start + size, number + 1

    def until(self, kind: str, seconds: float = WAIT) -> Message:
        """The next message of this type; those before it are kept."""
        end = time.monotonic() + seconds
        while True:
            message: Message = json.loads(self.connection.recv(max(0.01, end - time.monotonic())))
            self.heard.append(message)
            if message["type"] == kind:
                return message
            assert message["type"] != "error", message

    def finish(self) -> Message:
        self.say(type="finish")
        return self.until("ended")

    def until_safe(self, seconds: float) -> None:
        """Until so much of the recording is on the disk, which may be so since it started."""
        while max((told["position"] for told in self.of("started") + self.of("position")), default=0.0) < seconds:
            self.until("position")

    def until_taken(self) -> None:
        """Until the server has written all sound that was sent: it takes one message after the other."""
        self.say(type="ping")
        self.until("pong")

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.heard if message["type"] == kind]

    def reset(self) -> None:
        """Be gone without a word (RST)."""
        line: socket.socket = self.connection.socket
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()


@contextmanager
def talking(url: str, *, path: str = "/api/v1/live", **query: Any) -> Iterator[Talk]:
    """A socket to the server at `url`, without a token."""
    with talking_as({}, url, path=path, **query) as talk:
        yield talk


@contextmanager
def talking_as(headers: Mapping[str, str], url: str, *, path: str = "/api/v1/live", **query: Any) -> Iterator[Talk]:
    """The same with these headers."""
    address = f"{url.replace('http', 'ws', 1)}{path}" + (f"?{urlencode(query)}" if query else "")
    with connect(address, additional_headers=headers, max_size=None, open_timeout=WAIT, close_timeout=10) as connection:
        yield Talk(connection)


def samples_in(data: bytes) -> npt.NDArray[np.int16]:
    """The samples of a WAV file; frames × channels where there are several."""
    with wave.open(io.BytesIO(data)) as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return frames.reshape(-1, file.getnchannels()) if file.getnchannels() > 1 else frames


class _Chunks(io.RawIOBase):
    """A file that can only be written on, as what MediaRecorder writes to."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)


CONTAINERS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "webm": ("webm", "libopus", 48_000, {"live": "1", "cluster_time_limit": "1000"}),
    "ogg": ("ogg", "libopus", 48_000, {"page_duration": "200000"}),
    "mp4": (
        "mp4",
        "aac",
        44_100,
        {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"},
    ),
}


def recorded(encoding: str, sound: npt.NDArray[np.int16], rate: int, channels: int = 1) -> bytes:
    """Sound as a browser's MediaRecorder would send it."""
    container_name, codec, coded_rate, options = CONTAINERS[encoding]
    target = _Chunks()
    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler("fltp" if codec == "aac" else "s16", layout, coded_rate)
    with av.open(target, "w", format=container_name, options=options) as container:
        stream = container.add_stream(codec, rate=coded_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        fifo = av.AudioFifo()
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts = None
            fifo.write(piece)
        while (piece := fifo.read(stream.codec_context.frame_size or 960, partial=True)) is not None:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return bytes(target.data)


def pieces_of(data: bytes, seed: int, most: int = 4_000) -> list[bytes]:
    """Bytes cut at random."""
    draw, pieces = random.Random(seed), []
    while data:
        size = draw.randint(1, most)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def speechlike(seconds: float, rate: int = 16_000, channels: int = 1) -> npt.NDArray[np.int16]:
    """So much sound that is nobody's."""
    return integers(noise(seconds * channels, rate, seed=1))


def stored(archive: AudioStorageSystem, audio_id: int) -> npt.NDArray[np.int16]:
    """The samples of a recording."""
    with archive.open_audio(audio_id) as file:
        return samples_in(file.read())


def failing(talk: Talk) -> tuple[str, int]:
    """The code of the error that a socket tells, and that with which it closes."""
    code = ""
    try:
        while True:
            message = json.loads(talk.connection.recv(30))
            code = message["code"] if message["type"] == "error" else code
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, closed
        return code, closed.rcvd.code
