"""Embed pixels and prompts: the towers, how they are found by name, and their catalog."""
