"""Benchmarks and lists of labelled videos."""
