"""Addresses as their owner may see them beside others': enough to know which one it is, too little to write to it."""

SHOWN_BEFORE, SHOWN_AFTER = 5, 4


def masked(address: str) -> str:
    """`+7916***4567` of a phone, `a***@example.org` of an e-mail address; of a short one less. Nothing of one that was erased."""
    if "@" in address:
        local, _, domain = address.rpartition("@")
        return f"{local[:1]}***@{domain}"
    if len(address) < SHOWN_BEFORE + SHOWN_AFTER + 3:
        return f"***{address[-2:]}" if len(address) > SHOWN_AFTER else "***" if address else ""
    return f"{address[:SHOWN_BEFORE]}***{address[-SHOWN_AFTER:]}"
