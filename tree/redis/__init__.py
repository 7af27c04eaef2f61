"""Redis and Valkey: connections to a server or a cluster, and the embedded server."""
