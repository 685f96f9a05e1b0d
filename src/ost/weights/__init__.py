"""Weight files: where they are, how they are read without being run, what they hold, and what identifies a model."""
