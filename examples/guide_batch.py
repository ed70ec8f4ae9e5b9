"""Process multiple audio files, step by step: the guide's batch example.

python examples/guide_batch.py FILE FILE … [--model base]
"""

import argparse

from audio_storage_system import AudioStorageSystem, load_audio

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("files", nargs="+", help="recordings to add")
parser.add_argument("--model", default="base", help="what transcribes: a Whisper size, or pocketsphinx")
arguments = parser.parse_args()

storage = AudioStorageSystem(storage_backend="sqlite", transcriber=arguments.model)

# Process multiple audio files
audio_files = arguments.files

for file_path in audio_files:
    audio_data = load_audio(file_path)
    audio_id = storage.store_audio_file(file_path, audio_data)
    transcript_id = storage.generate_transcript(audio_id, audio_data)
    storage.generate_embeddings(audio_id, transcript_id, audio_data)
    print(f"{audio_id}  {file_path}  {storage.get_transcript(transcript_id).transcription}")
