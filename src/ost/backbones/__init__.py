"""Pixels and prompts in, embeddings out: the towers and their catalog."""
