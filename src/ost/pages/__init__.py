"""Render HTML pages: one template a page, shared macros and style, one file without scripts or external addresses."""
