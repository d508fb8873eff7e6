"""Listening sockets, and the sentence for each reason why there is none."""

import socket

import pytest

from app.sockets import listen, turn_deaf, url
from keycache.errors import ConfigurationError


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_listener_takes_connections_at_its_url(host: str) -> None:
    with listen(host, 0, "") as listener:
        where, _, port = url(listener).removeprefix("http://").rpartition(":")
        socket.create_connection((where.strip("[]"), int(port)), 5).close()


def test_port_in_use_is_refused_with_the_setting_to_change() -> None:
    with listen("127.0.0.1", 0, "") as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            listen("127.0.0.1", port, "ADMIN_")
    assert caught.value.problems == (f"port {port} is in use; set KEYCACHE_ADMIN_PORT",)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "x" * 300])
def test_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        listen(host, 0, "")
    assert caught.value.problems[0].startswith(f"KEYCACHE_HOST: {host!r} is no address of this")


def test_deaf_listener_keeps_its_queue_and_lets_nobody_in() -> None:
    with listen("127.0.0.1", 0, "") as listener:
        address = listener.getsockname()
        with socket.create_connection(address, 5) as waiting:
            turn_deaf(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, 0.2)
            accepted, _ = listener.accept()
            with accepted:
                waiting.sendall(b"heard")
                assert accepted.recv(5) == b"heard"
