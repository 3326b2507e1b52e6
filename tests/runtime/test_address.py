"""Addresses and interfaces of this host."""

import socket

import pytest

from runtime.address import address_towards, interface_of


def test_the_way_to_this_host_is_the_loopback_interface():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"


def test_an_address_of_nobody_has_no_interface():
    assert interface_of("192.0.2.1") is None


def test_a_peer_that_is_no_address_is_an_error():
    with pytest.raises(socket.gaierror):
        address_towards("no host")
