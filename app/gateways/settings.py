"""A gateway's row and its settings: password and signing key apart, encrypted; everything else as it was given.

Column `secret`: the sealed password, and after a line break, which no sealed text has, the sealed private key of DKIM; either may be missing.
"""

import operator
from typing import Annotated, Any

from pydantic import Field, SecretStr, TypeAdapter, ValidationError

from app.core.secrets import SecretBox
from app.gateways.models import Gateway
from app.gateways.smpp import SmppSettings
from app.gateways.smtp import SmtpSettings

GatewayIn = Annotated[SmppSettings | SmtpSettings, Field(discriminator="kind")]
ADAPTER: TypeAdapter[SmppSettings | SmtpSettings] = TypeAdapter(GatewayIn)


def stored(settings: SmppSettings | SmtpSettings) -> dict[str, Any]:
    """What goes into the `settings` column: no password, no private key, no state, and of an SMSC's profile what was given alone."""
    kept = settings.model_dump(mode="json", by_alias=True, exclude={"password": True, "enabled": True, "dkim": {"private_key"}})
    return kept | {"profile": settings.overrides} if isinstance(settings, SmppSettings) else kept


def destination(settings: SmppSettings | SmtpSettings) -> dict[str, Any]:
    """Where a password goes, and what keeps others from reading it on its way: whoever changes these has to know it."""
    if isinstance(settings, SmppSettings):
        profile = settings.profile
        receiver = settings.rx_endpoints if profile.bind_mode == "tx_rx" else ()
        hosts = {*settings.endpoints, *receiver}
        return {"kind": "smpp", "host": hosts, "tls": profile.tls, "verify": profile.verify, "ca": profile.ca, "sni": profile.sni}
    place, mail = {(settings.host, settings.port)}, settings.profile
    return {"kind": "smtp", "host": place, "tls": settings.tls, "verify": mail.verify, "ca_file": mail.ca_file}


def moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What leads a password elsewhere. Fewer hosts, another order of them, and stricter checking lead nowhere new."""
    if before.get("kind") != after["kind"]:
        return ["kind"]
    harmless = {"host": operator.ge, "verify": operator.le}
    return [key for key, new in after.items() if not harmless.get(key, operator.eq)(before[key], new)]


def kept_settings(gateway: Gateway) -> SmppSettings | SmtpSettings | None:
    """The stored settings without the password; None where this version cannot read them any more."""
    try:
        return ADAPTER.validate_python(gateway.settings | {"enabled": gateway.enabled})
    except ValidationError:
        return None


def smpp_settings(gateway: Gateway, secrets: SecretBox) -> SmppSettings:
    return SmppSettings.model_validate(_whole(gateway, secrets))


def smtp_settings(gateway: Gateway, secrets: SecretBox) -> SmtpSettings:
    whole, key = _whole(gateway, secrets), sealed_key(gateway)
    if whole.get("dkim") is not None and key is not None:
        whole["dkim"] = whole["dkim"] | {"private_key": SecretStr(secrets.open(key))}
    return SmtpSettings.model_validate(whole)


def sealed_password(gateway: Gateway) -> bytes | None:
    return (gateway.secret or b"").partition(b"\n")[0] or None


def sealed_key(gateway: Gateway) -> bytes | None:
    return (gateway.secret or b"").partition(b"\n")[2] or None


def sealed_together(password: bytes | None, key: bytes | None) -> bytes | None:
    """What goes into the `secret` column."""
    return (password or b"") + (b"\n" + key if key else b"") or None


def key_of(settings: SmppSettings | SmtpSettings) -> str:
    """The private key of DKIM that was given; "" when none was."""
    return settings.dkim.private_key.get_secret_value() if isinstance(settings, SmtpSettings) and settings.dkim is not None else ""


def signs(settings: SmppSettings | SmtpSettings) -> bool:
    return isinstance(settings, SmtpSettings) and settings.dkim is not None


def _whole(gateway: Gateway, secrets: SecretBox) -> dict[str, Any]:
    sealed = sealed_password(gateway)
    password = SecretStr(secrets.open(sealed)) if sealed is not None else SecretStr("")
    return gateway.settings | {"password": password, "enabled": gateway.enabled}
