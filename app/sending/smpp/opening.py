"""From nothing to a bound connection with one host of a gateway: TCP, TLS, bind; and what the far end says of itself on the way."""

import asyncio
import ssl
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from app.gateways.hosts import Endpoint, shown
from app.gateways.profile import Profile
from app.gateways.smpp import SmppSettings
from app.sending.smpp import pdu, statuses, tls
from app.sending.smpp.endpoints import dial

Mode = Literal["trx", "tx", "rx"]

READ_SIZE = 65_536
BIND_COMMANDS: dict[Mode, int] = {"trx": pdu.BIND_TRANSCEIVER, "tx": pdu.BIND_TRANSMITTER, "rx": pdu.BIND_RECEIVER}
BIND_NAMES: dict[Mode, str] = {"trx": "bind_transceiver", "tx": "bind_transmitter", "rx": "bind_receiver"}
_TLS_GOODBYE = 2.0  # seconds for the far end's close_notify
_SYSTEM_ID_SHOWN = 64
_ANSWER_LIMIT = 4096  # octets of an answer to a bind that are looked at

OnPdu = Callable[[bytes, bool], None]  # octets, whether they come from us


@dataclass(slots=True)
class FarEnd:
    """What one host said while a connection to it was opened; the fields fill up as far as that got. `seconds` is how long it took."""

    mode: Mode
    host: str
    address: str = ""
    tls_version: str = ""
    tls_cipher: str = ""
    certificate_subject: str = ""
    certificate_until: datetime | None = None
    command_status: str = ""
    status_name: str = ""
    system_id: str = ""
    interface_version: int | None = None  # TLV sc_interface_version (SMPP 3.4, 5.3.2.25)
    error: str = ""
    seconds: float = 0.0


class Opened(NamedTuple):
    """A connection with an answer to the bind. `status` is the answer's, whatever the number."""

    reader: StreamReader
    writer: StreamWriter
    status: int


class NotOpenedError(Exception):
    """There was no connection, or no answer to the bind; in words."""


async def open_session(
    endpoint: Endpoint,
    settings: SmppSettings,
    far_end: FarEnd,
    *,
    sequence: int,
    source_port: int = 0,
    on_pdu: OnPdu = lambda _octets, _ours: None,
) -> Opened:
    """Connect and bind. NotOpenedError when there is no answer; otherwise the caller owns the connection, and closes it if the status is no success."""
    began = time.monotonic()
    writer: StreamWriter | None = None
    try:
        reader, writer = await _connect(endpoint, settings.profile, source_port)
        _note_connection(far_end, writer)
        status = await _bind(reader, writer, settings, far_end, sequence, on_pdu)
    except (OSError, ValueError, EOFError) as error:  # ValueError: settings of TLS, and an answer that is no PDU
        far_end.error = _sentence(error, settings.profile, is_connected=writer is not None)
        _abort(writer)
        raise NotOpenedError(far_end.error) from error
    except BaseException:
        _abort(writer)
        raise
    finally:
        far_end.seconds = round(time.monotonic() - began, 3)
    far_end.command_status, far_end.status_name = statuses.code_of(status), statuses.name_of(status)
    return Opened(reader, writer, status)


async def _connect(endpoint: Endpoint, profile: Profile, source_port: int) -> tuple[StreamReader, StreamWriter]:
    # Read anew each time: a certificate that was renewed on disk is taken over by the next connection.
    context = await asyncio.to_thread(tls.context_for, profile) if profile.tls else None
    connection = await dial(endpoint, profile, source_port=source_port)
    # From here on the socket is the transport's: when anything fails, asyncio closes both.
    if context is None:
        return await asyncio.open_connection(sock=connection, limit=2 * READ_SIZE)
    return await asyncio.open_connection(
        sock=connection,
        limit=2 * READ_SIZE,
        ssl=context,
        server_hostname=profile.sni or endpoint[0],
        ssl_handshake_timeout=profile.connect_timeout,
        ssl_shutdown_timeout=_TLS_GOODBYE,
    )


def _note_connection(far_end: FarEnd, writer: StreamWriter) -> None:
    if peer := writer.get_extra_info("peername"):
        far_end.address = shown((peer[0], peer[1]))
    secured: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    if secured is not None:
        far_end.tls_version = secured.version() or ""
        far_end.tls_cipher = (secured.cipher() or ("",))[0]
        far_end.certificate_subject, far_end.certificate_until = tls.subject_and_end(secured.getpeercert(binary_form=True))


async def _bind(reader: StreamReader, writer: StreamWriter, settings: SmppSettings, far_end: FarEnd, sequence: int, on_pdu: OnPdu) -> int:
    profile = settings.profile
    command = BIND_COMMANDS[far_end.mode]
    request = pdu.bind(
        command,
        sequence,
        system_id=settings.system_id,
        password=settings.password.get_secret_value(),
        system_type=profile.system_type,
        version=profile.interface_version,
        ton=profile.bind_ton,
        npi=profile.bind_npi,
        address_range=profile.address_range,
    )
    on_pdu(request, True)
    writer.write(request)
    async with asyncio.timeout(profile.bind_timeout):
        while True:
            header, body = await _read_pdu(reader, profile.max_pdu)
            on_pdu(header + body, False)
            _, answered, status, number = pdu.HEADER.unpack(header)
            if answered == pdu.ENQUIRE_LINK:
                writer.write(pdu.frame(pdu.ENQUIRE_LINK_RESP, number))
            # Some answer with the number of another kind of bind; and there is only one bind that this can be about.
            elif (answered & pdu.RESPONSE and answered & ~pdu.RESPONSE in BIND_COMMANDS.values()) or (answered == pdu.GENERIC_NACK and status):
                _note_answer(far_end, body[:_ANSWER_LIMIT])
                return int(status)


async def _read_pdu(reader: StreamReader, longest: int) -> tuple[bytes, bytes]:
    header = await reader.readexactly(pdu.HEADER_LENGTH)
    length = int.from_bytes(header[:4], "big")
    if not pdu.HEADER_LENGTH <= length <= longest:
        raise ValueError(f"command_length {length} in the answer to the bind")
    return header, await reader.readexactly(length - pdu.HEADER_LENGTH)


def _note_answer(far_end: FarEnd, body: bytes) -> None:
    """The body of a bind_resp: system_id, then optional parameters (SMPP 3.4, 4.1.6). After an error it is often not there."""
    name = pdu.message_id_of(body, 0, len(body))
    far_end.system_id = name.decode("latin-1")[:_SYSTEM_ID_SHOWN]
    version = pdu.read_tlvs(body, len(name) + 1).get(pdu.TLV_SC_INTERFACE_VERSION, b"")
    far_end.interface_version = int.from_bytes(version, "big") if 1 <= len(version) <= 2 else None


def _abort(writer: StreamWriter | None) -> None:
    if writer is not None:
        writer.transport.abort()


def _sentence(error: Exception, profile: Profile, *, is_connected: bool) -> str:
    if isinstance(error, OSError) and (said := tls.complaint(error)):
        return said
    if isinstance(error, TimeoutError):
        return f"no answer within {profile.bind_timeout:g} s" if is_connected else f"no TLS handshake within {profile.connect_timeout:g} s"
    if isinstance(error, asyncio.IncompleteReadError):
        # In TLS 1.3 a server rejects a client after the handshake is over here, and not every one says why.
        hint = "; it may ask for a client certificate (client_cert)" if profile.tls and not profile.client_cert else ""
        return f"the SMSC closed the connection{hint}"
    if isinstance(error, ConnectionAbortedError | ConnectionResetError) and not is_connected:
        return "the far end closed the connection during the TLS handshake" if profile.tls else str(error)
    return str(error) or type(error).__name__


def is_success(status: int, profile: Profile) -> bool:
    """Whether a bind is made. Kannel takes "already bound" for yes, too, and some SMSCs mean it so."""
    return status == 0 or (status == statuses.ALYBND and profile.alybnd_policy == "success")
