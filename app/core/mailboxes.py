"""Who a letter is from, as people write it."""

import re

NAME_ADDR = re.compile(r'(?P<name>"(?:[^"\\]|\\.)*"|[^"<>]*)\s*<(?P<address>[^<>]+)>')


def parse_mailbox(value: str) -> tuple[str, str]:
    """Display name and address of an RFC 5322 `mailbox`: `MyISP <noreply@isp.example>` or a bare address. The address is not checked."""
    if "<" not in value:
        return "", value.strip()
    found = NAME_ADDR.fullmatch(value.strip())
    if found is None:
        raise ValueError("expected `Name <address@domain>` or an address")
    name = found["name"].strip()
    if name.startswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name, found["address"].strip()
