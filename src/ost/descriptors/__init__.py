"""Descriptor packs, and the prompts made from class names and descriptors."""
