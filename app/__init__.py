"""The service: what readers and curators do with a catalogue, over HTTP and the command line."""
