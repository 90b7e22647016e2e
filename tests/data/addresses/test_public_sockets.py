from __future__ import annotations

import socket

import pytest

from flame_core.data.addresses.public_sockets import REFUSED, SocketCheck, is_public

INSIDE = """
127.0.0.1 127.1.2.3 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 192.0.0.8 192.0.2.1 198.18.0.1
192.88.99.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
:: ::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1
2002:7f00:1:: 2002:a00:1:: 64:ff9b::a00:1 64:ff9b::7f00:1 64:ff9b:1::1 2001::1 100::1
"""
OUTSIDE = "93.184.215.14 8.8.8.8 1.1.1.1 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::"


@pytest.mark.parametrize("address", INSIDE.split())
def test_an_address_of_ones_own_network_is_refused(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE.split())
def test_an_address_of_the_internet_is_not(address: str):
    assert is_public(address)


def test_what_is_allowed_is_a_network_and_a_port():
    check = SocketCheck(["10.0.0.0/8:8899", "[fd00::/8]:80"])
    assert check.admits("10.1.2.3", 8899) and check.admits("fd00::1", 80)
    assert not check.admits("10.1.2.3", 80) and not check.admits("fd00::1", 8899) and not check.admits("11.0.0.1", 8899)
    assert check.admits("8.8.8.8", 443) and not check.admits("8.8.8.8", 22)
    assert check.may_use(8899) and check.may_use(8443) and not check.may_use(22)


def test_no_socket_is_made_for_a_refused_address():
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
    with pytest.raises(OSError, match=REFUSED):
        SocketCheck([])(place)
    SocketCheck(["127.0.0.1/32:80"])(place).close()
