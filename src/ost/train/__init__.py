"""Train on labelled clips, from two per class to whole benchmarks."""
