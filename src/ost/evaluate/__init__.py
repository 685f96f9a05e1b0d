"""How good things are, measured: protocols on labelled videos, and packs."""
