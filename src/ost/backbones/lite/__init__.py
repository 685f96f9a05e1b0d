"""The embedded default: an image classifier and sentence embeddings out of wheels."""
