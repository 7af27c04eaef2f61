"""Which addresses are on the public internet."""

import pytest

from app.hosts import is_public


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8",
        "64:ff9b::808:808",  # NAT64 to 8.8.8.8
    ],
)  # fmt: skip
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "203.0.113.5",
        "169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16",  # metadata of clouds
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "2001:db8::1", "2606:4700::1%eth0",
        "::ffff:127.0.0.1", "::ffff:a00:1", "::ffff:169.254.169.254",  # IPv4 inside
        "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
        "2002:7f00:1::", "2002:808:808::", "2001:0:7f00::1",
        "", "localhost", "127.1", "2130706433", "0x7f.1", "8.8.8.8.", "8.8.8.8:80", "[::1]",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(address)
