"""Enrichment: a model reads every item once, and writes one line about it."""
