"""Have an LLM write descriptors for class names: question, server, answer, journal, and the run."""
