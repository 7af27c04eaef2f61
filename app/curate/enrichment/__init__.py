"""Enrichment: one line per item in plain words, which a model writes once, or its owner."""
