"""Evaluate recognition on labelled videos, by published protocols, and check descriptor packs."""
