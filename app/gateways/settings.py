"""A gateway's row and its settings: the password apart, encrypted; everything else as it was given."""

from typing import Annotated, Any

from pydantic import Field, SecretStr, TypeAdapter

from app.core.secrets import SecretBox
from app.gateways.models import Gateway
from app.gateways.smpp import SmppSettings
from app.gateways.smtp import SmtpSettings

GatewayIn = Annotated[SmppSettings | SmtpSettings, Field(discriminator="kind")]
ADAPTER: TypeAdapter[SmppSettings | SmtpSettings] = TypeAdapter(GatewayIn)


def stored(settings: SmppSettings | SmtpSettings) -> dict[str, Any]:
    """What goes into the `settings` column: no password, no state."""
    return settings.model_dump(mode="json", by_alias=True, exclude={"password", "enabled"})


def smpp_settings(gateway: Gateway, secrets: SecretBox) -> SmppSettings:
    return SmppSettings.model_validate(_whole(gateway, secrets))


def smtp_settings(gateway: Gateway, secrets: SecretBox) -> SmtpSettings:
    return SmtpSettings.model_validate(_whole(gateway, secrets))


def _whole(gateway: Gateway, secrets: SecretBox) -> dict[str, Any]:
    password = SecretStr(secrets.open(gateway.secret)) if gateway.secret is not None else SecretStr("")
    return gateway.settings | {"password": password, "enabled": gateway.enabled}
