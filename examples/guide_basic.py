"""Record and search: the guide's basic example. Without a microphone it adds a file instead, if you name one.

python examples/guide_basic.py [FILE] [--model base] [--duration 10]
"""

import argparse

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import MicrophoneUnavailable

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", nargs="?", help="a recording to add where there is no microphone")
parser.add_argument("--model", default="base", help="what transcribes: a Whisper size, or pocketsphinx")
parser.add_argument("--duration", type=float, default=10, help="seconds to record")
arguments = parser.parse_args()

# Initialize
storage = AudioStorageSystem(storage_backend="sqlite")

# Record and store
try:
    audio_id = storage.record_and_store_audio(
        duration=arguments.duration,
        whisper_model=arguments.model,
        generate_embeddings=True,
        metadata={"user": "john", "session": "meeting_1"},
    )
    print(f"Recorded {audio_id}")
except MicrophoneUnavailable as error:
    print(f"Not recorded. {error}")
    if arguments.file:
        audio_id = storage.add(
            arguments.file, whisper_model=arguments.model, metadata={"user": "john", "session": "meeting_1"}
        )
        print(f"Added {audio_id}")

# Search
results = storage.search_similar_audio("meeting discussion", limit=5)
for result in results:
    print(f"Similarity: {result['similarity']:.3f}")
    print(f"Transcript: {result['transcription']}")
