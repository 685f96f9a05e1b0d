"""Class names -> an LLM -> descriptors: question, connection, answer, journal, and the run over them."""
