"""The catalogue: the truth about recordings, transcripts, passages, embeddings and metadata.

Functions over a connection: reads take any connection, writes one from `Database.write()`, so that the caller decides
what belongs into one transaction.
"""
