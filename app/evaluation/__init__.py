"""Offline evaluation of recommendations, on your own data or on public data sets."""
