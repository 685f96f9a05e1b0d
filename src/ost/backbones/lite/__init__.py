"""The embedded backbone: an image classifier and sentence embeddings from PyPI wheels."""
