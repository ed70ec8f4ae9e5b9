"""The archive over the network and for language models: thin skins over `AudioStorageSystem`."""
