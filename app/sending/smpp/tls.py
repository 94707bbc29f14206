"""TLS towards an SMSC: 1.2 or newer, checked unless the profile says otherwise, and its failures in words."""

import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from app.gateways.profile import Profile

# X509_V_ERR_* of OpenSSL
_CERTIFICATE_FAULTS = {
    9: "the certificate is not valid yet",
    10: "certificate expired",
    18: "the certificate is self-signed, and `ca` does not name it",
    19: "the certificate's authority is not trusted: name it in `ca`",
    20: "the certificate's authority is not trusted: name it in `ca`",
    21: "the certificate's authority is not trusted: name it in `ca`",
    23: "the certificate was revoked",
    62: "hostname mismatch",
    64: "hostname mismatch",
}
_ALERTS = {
    "WRONG_VERSION_NUMBER": "the far end does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "the far end does not speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "the far end has no TLS 1.2 or newer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the far end has no TLS 1.2 or newer",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the far end asks for a client certificate: client_cert",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the far end refused the handshake: it may ask for a client certificate (client_cert), or share no cipher",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the far end does not like our client_cert",
    "TLSV1_ALERT_UNKNOWN_CA": "the far end does not know the authority of our client_cert",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our client_cert has expired",
    "TLSV1_UNRECOGNIZED_NAME": "the far end does not know the name asked for: sni",
}


def context_for(profile: Profile) -> ssl.SSLContext:
    """How to speak TLS with this gateway. Reads files: not in the event loop. OSError or ValueError says which key is wrong, and how."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not profile.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif profile.ca:
        _trust(context, profile.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if profile.client_cert:
        _present(context, profile.client_cert, profile.client_key)
    return context


def complaint(error: OSError) -> str | None:
    """What is wrong, in words that name the key to change; None when the error is not one of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _CERTIFICATE_FAULTS.get(error.verify_code)
        said = (error.verify_message or "").rstrip(".")
        return f"{known} ({said})" if known == "hostname mismatch" else known or f"the certificate is not accepted: {said}"
    if isinstance(error, ssl.SSLError):
        return _ALERTS.get(error.reason or "") or f"TLS: {error.reason or error}"
    return None


def subject_and_end(certificate: bytes | None) -> tuple[str, datetime | None]:
    """Whose certificate it is, and until when it is valid; empty for what cannot be read."""
    try:
        read = x509.load_der_x509_certificate(certificate or b"")
        return read.subject.rfc4514_string(), read.not_valid_after_utc
    except ValueError:
        return "", None


def _trust(context: ssl.SSLContext, ca: str) -> None:
    try:
        if "-----BEGIN" in ca:
            context.load_verify_locations(cadata=ca)
        else:
            context.load_verify_locations(cafile=ca)
    except (OSError, ValueError) as error:
        raise ValueError(f"ca: {_fault(error, '' if '-----BEGIN' in ca else ca)}") from error


def _present(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    for name, path in (("client_cert", certificate), ("client_key", key)):
        if path and not Path(path).is_file():
            raise ValueError(f"{name}: there is no file {path}")
    try:
        # Without an answer of ours OpenSSL would ask for a passphrase on the terminal, and wait there.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ValueError(f"client_cert: {_fault(error, certificate)}; the key must be there, unencrypted, and fit") from error


def _fault(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}"
    if isinstance(error, PermissionError):
        return f"{path} may not be read"
    return f"no PEM that OpenSSL can use ({getattr(error, 'reason', None) or error})"
