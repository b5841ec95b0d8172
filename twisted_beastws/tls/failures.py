"""What OpenSSL says where TLS comes to nothing."""

from __future__ import annotations


def tls_trouble(error: BaseException | None) -> str | None:
    """What went wrong with TLS, in OpenSSL's words; empty where the connection just ended. None if it was not TLS."""
    # Only where there is TLS has somebody imported pyOpenSSL.
    if error is None or type(error).__module__.partition(".")[0] != "OpenSSL":
        return None
    # A SysCallError has a number there.
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    trouble = " ".join(str(reason[-1]) for reason in reasons if reason)
    return "" if "unexpected eof" in trouble else trouble
