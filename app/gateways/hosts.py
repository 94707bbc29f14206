"""Where a gateway is: one name or several, each with a port of its own if need be."""

import ipaddress
import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

Endpoint = tuple[str, int]

MOST_HOSTS = 16
NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
BRACKETED = re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?")


def endpoint_of(written: str, port: int) -> Endpoint:
    """`smsc.example`, `10.0.0.1:2776`, `[2001:db8::1]:2775`, `2001:db8::1`. ValueError says what is wrong with anything else."""
    own = ""
    if found := BRACKETED.fullmatch(written):
        host, own = found[1], found[2] or ""
        if not _is_ipv6(host):
            raise ValueError(f"{written!r}: an IPv6 address was expected in the brackets")
    elif _is_ipv6(written):
        host = written
    else:
        host, colon, own = written.partition(":")
        if not _is_name(host) or (colon and not re.fullmatch(r"[0-9]{1,5}", own)):
            raise ValueError(f"{written!r} is no host: write a name or an address, with :port if need be and IPv6 in brackets, as smsc.example:2775")
    if own and not 1 <= int(own) <= 65_535:
        raise ValueError(f"{written!r}: a port is a number from 1 to 65535")
    return host, int(own) if own else port


def endpoints_of(hosts: str | list[str], port: int) -> tuple[Endpoint, ...]:
    """In the order in which they are tried, each once."""
    return tuple(dict.fromkeys(endpoint_of(host, port) for host in ([hosts] if isinstance(hosts, str) else hosts)))


def shown(endpoint: Endpoint) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_name(text: str) -> bool:
    """Whether a resolver would take it: parts of at most 63 characters, 253 in all, whatever the script."""
    try:
        return NAME.fullmatch(text) is not None and len(text.encode("idna")) <= 253
    except UnicodeError:
        return False


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _hosts(value: Any) -> str | list[str]:
    given = value if isinstance(value, list) else [value]
    if not 1 <= len(given) <= MOST_HOSTS or not all(isinstance(host, str) for host in given):
        raise ValueError(f"write a host, or a list of 1 to {MOST_HOSTS} of them in the order in which they are tried")
    endpoints_of(given, 1)
    found: str | list[str] = value
    return found


_ONE = {"type": "string", "minLength": 1, "maxLength": 300}
Hosts = Annotated[
    str | list[str],
    PlainValidator(_hosts, json_schema_input_type=str | list[str]),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MOST_HOSTS}]}),
]
