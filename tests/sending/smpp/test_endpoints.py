"""Where a bind connects to, and from where."""

import asyncio
import socket
import time

import pytest

from app.gateways.profile import Profile
from app.sending.smpp.endpoints import dial, proxy_line
from app.simulators.smsc import SmscSimulator


def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_dead_host_is_passed_over_at_once_and_the_status_names_the_one_in_use(call, smsc):
    dead = closed_port()
    caller = await call(smsc, host=[f"127.0.0.1:{dead}", f"127.0.0.1:{smsc.port}"], profile={"reconnect_min": 30, "reconnect_max": 60})

    assert caller.bind.status.host == f"127.0.0.1:{smsc.port}"
    assert caller.bind.status.last_error.detail == f"127.0.0.1:{dead}: 127.0.0.1:{dead}: connection refused"
    assert caller.states() == ["connecting", "bound"]


async def test_a_host_that_refuses_the_bind_for_now_is_passed_over(call, smsc):
    async with SmscSimulator(bind_statuses=(0x0D,) * 9) as busy:
        caller = await call(smsc, host=[f"127.0.0.1:{busy.port}", f"127.0.0.1:{smsc.port}"])

        assert caller.bind.status.host.endswith(str(smsc.port))
        assert len(busy.binds) == 1


async def test_a_fatal_status_is_not_tried_on_at_the_other_hosts(call, smsc):
    async with SmscSimulator(password="other") as strict:
        caller = await call(smsc, bound=False, host=[f"127.0.0.1:{strict.port}", f"127.0.0.1:{smsc.port}"])
        await caller.until(lambda: caller.bind.status.state == "stopped")
        await asyncio.sleep(0.2)

        assert smsc.binds == []
        assert len(strict.binds) == 1


async def test_a_round_over_all_hosts_is_one_attempt_of_the_back_off(call):
    async with SmscSimulator(bind_statuses=(0x0D,) * 99) as one, SmscSimulator(bind_statuses=(0x0D,) * 99) as other:
        hosts = [f"127.0.0.1:{one.port}", f"127.0.0.1:{other.port}"]
        caller = await call(one, bound=False, host=hosts, profile={"reconnect_min": 0.2, "reconnect_max": 60, "reconnect_jitter": 0})
        await caller.until(lambda: len(other.binds) == 3)

        for first, second in zip(one.binds, other.binds, strict=True):
            assert second[0] - first[0] < 0.15
        assert one.binds[1][0] - one.binds[0][0] >= 0.2
        assert one.binds[2][0] - one.binds[1][0] >= 0.4


async def test_a_session_that_lasted_is_followed_by_one_at_the_first_host(call):
    async with SmscSimulator(bind_statuses=(0x0D,)) as first, SmscSimulator() as second:
        caller = await call(first, host=[f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"], profile={"stable_after": 0.1})
        at_first = caller.bind.status.host
        await asyncio.sleep(0.2)
        second.drop_all()
        await caller.until(lambda: first.links)

        assert at_first.endswith(str(second.port))
        assert caller.bind.status.host.endswith(str(first.port))


async def test_a_host_that_lets_us_in_and_throws_us_out_is_passed_over_too(call):
    async with SmscSimulator() as moody, SmscSimulator() as steady:
        caller = await call(moody, host=[f"127.0.0.1:{moody.port}", f"127.0.0.1:{steady.port}"], profile={"stable_after": 30})
        moody.drop_all()
        await caller.until(lambda: steady.links)

        assert len(moody.binds) == 1


async def test_a_name_is_resolved_at_every_connect_and_its_addresses_are_tried_in_order(call, smsc, monkeypatch):
    loop, asked = asyncio.get_running_loop(), []
    dead = closed_port()

    async def resolve(host, port, **_):
        asked.append(host)
        ports = [dead, smsc.port] if len(asked) == 1 else [smsc.port]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", there)) for there in ports]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    caller = await call(smsc, host="smsc.example")
    smsc.drop_all()
    await caller.until(lambda: len(smsc.binds) == 2)

    assert asked == ["smsc.example", "smsc.example"]
    assert caller.bind.far_end["trx"].address == f"127.0.0.1:{smsc.port}"


async def test_a_name_that_is_none_is_told_and_tried_again(call, smsc):
    caller = await call(smsc, bound=False, host="no-such-host.invalid")
    await caller.until(lambda: caller.states().count("connecting") >= 2)

    assert caller.bind.status.last_error.where == "connect"
    assert "cannot be resolved" in caller.bind.status.last_error.detail


async def test_all_addresses_of_a_name_share_the_time_to_connect(monkeypatch):
    loop = asyncio.get_running_loop()
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:  # what does not fit into its backlog is not answered at all
        one.setblocking(False)
        one.connect_ex(full.getsockname())

    async def resolve(*_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname()) for _ in range(1)] + [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", full.getsockname()[1]))
        ]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"no answer within .*; 127\.0\.0\.2:\d+: connection refused"):
        await dial(("smsc.example", 2775), Profile(connect_timeout=0.6))

    assert time.monotonic() - began >= 0.25
    for one in [full, *waiting]:
        one.close()


async def test_the_connection_comes_from_the_address_and_port_of_the_profile(call, smsc):
    port = closed_port()
    caller = await call(smsc, profile={"source_ip": "127.0.0.5", "source_port": port}, slot=0)
    first = caller.bind._sides[0].link._writer.get_extra_info("sockname")
    smsc.drop_all()
    await caller.until(lambda: len(smsc.binds) == 2)
    await caller.bound()

    assert first == ("127.0.0.5", port)
    assert caller.bind._sides[0].link._writer.get_extra_info("sockname") == ("127.0.0.5", port)


async def test_a_bind_that_left_in_good_order_has_its_port_again_at_once(call, smsc):
    port = closed_port()
    for _ in range(2):
        caller = await call(smsc, profile={"source_port": port})
        await caller.bind.stop(0.1)

    assert len(smsc.binds) == 2


async def test_each_slot_comes_from_a_port_of_its_own(call, smsc):
    port = closed_port()
    caller = await call(smsc, profile={"source_port": port}, slot=3)

    assert caller.bind._sides[0].link._writer.get_extra_info("sockname")[1] == port + 3


async def test_an_address_that_is_not_ours_is_an_error_that_names_the_key(call, smsc):
    caller = await call(smsc, bound=False, profile={"source_ip": "192.0.2.77"})
    await caller.until(lambda: caller.bind.status.last_error)

    assert "source_ip 192.0.2.77" in caller.bind.status.last_error.detail


async def test_keep_alive_is_what_the_profile_says():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for seconds in (45, 0):
            connection = await dial(server.getsockname(), Profile(tcp_keepalive=seconds))
            on = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            connection.close()

            assert (bool(on), idle == 45) == (bool(seconds), bool(seconds))


async def test_a_balancer_gets_its_line_before_anything_else(call):
    lines = []

    async def balancer(reader, writer):
        lines.append(await reader.readuntil(b"\r\n"))
        lines.append(await reader.readexactly(16))
        writer.close()

    server = await asyncio.start_server(balancer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        caller = await call(port, bound=False, profile={"proxy_protocol": True})
        await caller.until(lambda: len(lines) >= 2)

    kind, name, here, there, ours, theirs = lines[0].split()
    assert (kind, name, here, there, theirs) == (b"PROXY", b"TCP4", b"127.0.0.1", b"127.0.0.1", str(port).encode())
    assert int(ours) > 0
    assert lines[1][4:8] == b"\0\0\0\x09"


async def test_a_line_for_ipv6_says_so():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        connection = await dial(("::1", port), Profile())
        line = proxy_line(connection)
        connection.close()

    assert line.startswith(b"PROXY TCP6 ::1 ::1 ")
    assert line.endswith(f" {port}\r\n".encode())
