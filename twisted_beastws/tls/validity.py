"""Whether a certificate is valid now."""

from __future__ import annotations

from datetime import datetime, timezone

from OpenSSL import crypto


def why_invalid_now(certificate: crypto.X509, now: datetime | None = None) -> str | None:
    """Return why a certificate is not valid at a time, or None if it is.

    Args:
        certificate: The certificate.
        now: An aware time; None is this moment.
    """
    now = now or datetime.now(timezone.utc)
    begins, ends = _time(certificate.get_notBefore()), _time(certificate.get_notAfter())
    if ends is not None and ends < now:
        return f"it expired on {ends:%Y-%m-%d at %H:%M} UTC"
    if begins is not None and now < begins:
        return f"it is valid only from {begins:%Y-%m-%d at %H:%M} UTC on"
    return None


def _time(written: bytes | None) -> datetime | None:
    if not written:
        return None
    # RFC 5280 §4.1.2.5.2: GeneralizedTime, in UTC.
    return datetime.strptime(written.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
