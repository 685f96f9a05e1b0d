"""Find, read and convert weight files without running their pickles, and fingerprint models."""
