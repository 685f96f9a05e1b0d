"""Pixels and prompts in, embeddings out: the towers, their weights and their catalog."""
