"""The names of aiosmpplib that app/sending/smpp leans on. A new version that changes one must fail here, not in production."""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

import aiosmpplib
import pytest
from aiosmpplib import ESME, BindMode, SmppSessionState
from aiosmpplib.retrytimer import AbstractRetryTimer

from app.sending.smpp import link as link_module
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
# Of the library's object; everything else that Link uses is its own.
ATTRIBUTES = {"_session_state", "_reader", "_writer", "bind_mode"}
WIRE = Path(link_module.__file__).parent


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


def test_a_connect_that_fails_is_followed_by_a_pause_and_one_that_binds_takes_it_back():
    """LinkDownError ends an attempt because the loop takes every ConnectionError for a reason to pause."""
    loop = inspect.getsource(ESME.start)

    assert issubclass(link_module.LinkDownError, ConnectionError)
    assert loop.index("self.connect()") < loop.index("retry_timer.reset()") < loop.index("except ConnectionError") < loop.index("retry_timer.wait()")


def test_stopping_waits_for_the_session_loop_only_when_a_session_was_bound():
    stop = inspect.getsource(ESME.stop)

    assert stop.index("_is_shutting_down = True") < stop.index("if self._bound.is_set()") < stop.index("_disconnect()") < stop.index("_shut_down.wait()")


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

    assert {"smsc_host", "smsc_port", "system_id", "password", "bind_mode", "log_level", "log_handler", "retry_timer"} <= set(parameters)
    for name in (*ATTRIBUTES, "_is_shutting_down", "_bound", "_shut_down"):
        assert hasattr(esme, name), name
    assert esme._session_state is SmppSessionState.CLOSED
    assert {"CLOSED", "BOUND_TRX", "BOUND_TX"} <= set(SmppSessionState.__members__)
    assert aiosmpplib.ESME is ESME


@pytest.mark.parametrize(
    ("mode", "state"),
    [
        (BindMode.TRANSCEIVER, SmppSessionState.BOUND_TRX),
        (BindMode.TRANSMITTER, SmppSessionState.BOUND_TX),
        (BindMode.RECEIVER, SmppSessionState.BOUND_TX),  # so in the library; Link only asks whether it is the state of its own mode
    ],
)
def test_each_kind_of_bind_has_a_state_of_its_own_class(mode, state):
    esme = ESME("127.0.0.1", 1, "", "", bind_mode=mode)

    assert esme.bind_mode is mode
    assert mode.session_state is state
    assert mode.session_state is not SmppSessionState.CLOSED


def test_link_uses_no_other_attribute_of_the_library():
    """A name that both sides use by chance would be overwritten: whatever Link sets or reads is its own or on the list."""
    own = {node.attr for node in ast.walk(ast.parse(inspect.getsource(link_module))) if isinstance(node, ast.Attribute) and _is_self(node.value)}
    esme = ESME("127.0.0.1", 1, "", "")
    of_the_library = set(vars(esme)) | {name for name in vars(ESME) if not name.startswith("__")}

    assert own & of_the_library == ATTRIBUTES


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def test_the_library_is_used_in_two_modules_of_the_wire():
    users = {path.name for path in WIRE.glob("*.py") if _imports(path)}

    assert users == {"link.py", "backoff.py"}


def _imports(path: Path) -> bool:
    return any(isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiosmpplib") for node in ast.walk(ast.parse(path.read_text())))


def test_the_retry_timer_has_three_methods():
    assert AbstractRetryTimer.__abstractmethods__ == {"wait", "reset", "next_delay"} <= set(vars(Backoff))
