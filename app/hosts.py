"""Whether a host name means this machine."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(authority: str) -> bool:
    """Whether `authority` is this machine: localhost, 127.0.0.0/8 or [::1], with any port."""
    try:
        parts = urlsplit(f"//{authority}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.netloc != authority or "@" in authority:
        return False
    name = name.removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
