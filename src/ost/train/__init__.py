"""Learning from labelled clips: from two a class to whole benchmarks."""
