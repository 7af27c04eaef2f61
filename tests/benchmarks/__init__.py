"""Figures of speed, memory and quality, each measured by a real run. See `__main__`."""
