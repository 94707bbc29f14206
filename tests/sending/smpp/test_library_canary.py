"""The names of aiosmpplib that app/sending/smpp leans on. A new version that changes one must fail here, not in production."""

import inspect
from importlib.metadata import version

import aiosmpplib
from aiosmpplib import ESME, SmppSessionState
from aiosmpplib.retrytimer import AbstractRetryTimer

from app.sending.smpp.backoff import Backoff
from app.sending.smpp.link import Link

OVERRIDDEN = {
    "connect": "(self) -> None",
    "_receive_data": "(self) -> bytes | None",
    "_dequeue_messages": "(self) -> dict[str, object]",
    "_connection_keeper": "(self) -> None",
    "_end_task": "(self, task: _asyncio.Task) -> None",
    "_disconnect": "(self) -> None",
}
KEPT = {"start": "(self) -> None", "stop": "(self) -> None"}


def test_the_version_is_the_one_that_was_read():
    assert version("aiosmpplib") == "0.7.4"


def test_overridden_and_kept_methods_are_there_with_their_signatures():
    for name, signature in (OVERRIDDEN | KEPT).items():
        assert str(inspect.signature(getattr(ESME, name))) == signature, name
        assert inspect.iscoroutinefunction(getattr(ESME, name)), name
    assert all(name in vars(Link) for name in OVERRIDDEN)
    assert not any(name in vars(Link) for name in KEPT)


def test_the_session_loop_uses_what_we_give_it():
    loop = inspect.getsource(ESME.start)

    for name in (*OVERRIDDEN, "retry_timer.reset()", "retry_timer.wait()", "_is_shutting_down", "_session_state", "_bound.set()", "_shut_down.set()"):
        if name != "_disconnect":
            assert name in loop, name
    assert "_disconnect" in inspect.getsource(ESME.stop)


def test_nothing_that_is_not_overridden_reaches_a_stock_plug_in():
    """Hook, broker, correlator, limiter and throttle handler are only called from methods that Link replaces or never calls."""
    replaced = set(OVERRIDDEN) | {"__init__", "_send_data", "_handle_response", "_handle_request", "_get_pdu"}
    for name, method in vars(ESME).items():
        if name in replaced or not inspect.isfunction(method):
            continue
        source = inspect.getsource(method)
        assert not any(plug in source for plug in ("self.hook.", "self.broker.", "self.correlator.", "self.rate_limiter.", "self.throttle_handler.")), name
    ours = "".join(inspect.getsource(method) for method in vars(Link).values() if inspect.isfunction(method))
    assert not any(called in ours for called in ("self._send_data(", "self._handle_re", "self._get_pdu(", "self.broker", "self.hook"))


def test_the_constructor_and_the_attributes_are_there():
    parameters = inspect.signature(ESME.__init__).parameters
    esme = ESME("127.0.0.1", 1, "", "")

    assert {"smsc_host", "smsc_port", "system_id", "password", "log_level", "log_handler", "retry_timer"} <= set(parameters)
    for name in ("_session_state", "_reader", "_writer", "_is_shutting_down", "_bound", "_shut_down", "bind_mode", "smsc_host", "smsc_port"):
        assert hasattr(esme, name), name
    assert esme.bind_mode.session_state is SmppSessionState.BOUND_TRX
    assert esme._session_state is SmppSessionState.CLOSED
    assert {"OPEN", "CLOSED", "BOUND_TRX"} <= set(SmppSessionState.__members__)
    assert aiosmpplib.ESME is ESME


def test_the_retry_timer_has_three_methods():
    assert AbstractRetryTimer.__abstractmethods__ == {"wait", "reset", "next_delay"} <= set(vars(Backoff))
