"""The service: what readers and curators do with a catalogue, over HTTP and the command line."""

__version__ = "0.1.0"
