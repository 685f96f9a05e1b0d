"""Class names in, prompts out: packs of descriptors and the templates around them."""
