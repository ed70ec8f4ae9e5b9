"""An embedding function of one's own: the guide's advanced example, with a stand-in for "your embedding model".

python examples/guide_advanced.py FILE [--model base]
"""

import argparse
import zlib

import numpy as np

from audio_storage_system import AudioStorageSystem

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", help="a recording to add")
parser.add_argument("--model", default="base", help="what transcribes: a Whisper size, or pocketsphinx")
arguments = parser.parse_args()


class WordCounts:
    """The stand-in: counts words in 512 buckets. Any model with a method like this one will do."""

    def encode(self, text: str) -> np.ndarray:
        counts = np.full(512, 0.001)
        for word in text.lower().split():
            counts[zlib.crc32(word.encode()) % 512] += 1
        return counts


your_embedding_model = WordCounts()
storage = AudioStorageSystem(storage_backend="sqlite")


# Custom embedding generation
def custom_text_embedding(text: str) -> np.ndarray:
    # Use your preferred embedding model
    return your_embedding_model.encode(text)


# Override embedding generation
storage.generate_text_embedding = custom_text_embedding

audio_id = storage.add(arguments.file, whisper_model=arguments.model)
text = storage.export(audio_id, "txt")
for space in storage.stats()["spaces"]:
    if space["kind"] == "transcript" and space["active"]:
        print(f"{space['embeddings']} embeddings of {space['dimension']} numbers in {space['model']}")
for result in storage.search_similar_audio(text, limit=5, mode="semantic"):
    print(f"{result['similarity']:.3f} {result['transcription']}")
