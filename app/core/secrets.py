"""Secrets at rest: Fernet with rotation. The newest key encrypts, every key decrypts."""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from app.core.errors import ConfigurationError


class SecretBox:
    """Encrypts what the database keeps but may not know (a gateway's password)."""

    def __init__(self, keys: SecretStr) -> None:
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.get_secret_value().split(",")])

    def seal(self, text: str) -> bytes:
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text; ConfigurationError when none of VESTNIK_SECRET_KEYS made it."""
        try:
            return self._fernet.decrypt(bytes(sealed)).decode()
        except InvalidToken:
            raise ConfigurationError("a stored secret was made with a key that VESTNIK_SECRET_KEYS no longer lists") from None
