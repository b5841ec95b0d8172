"""Describe a TLS failure in OpenSSL's words."""

from __future__ import annotations


def tls_trouble(error: BaseException | None) -> str | None:
    """Return the reason of a TLS failure in OpenSSL's words.

    Returns:
        The reason. It is empty if the connection just ended, and None if the error is not from TLS.
    """
    # Compare the module's name: pyOpenSSL is imported only for TLS.
    if error is None or type(error).__module__.partition(".")[0] != "OpenSSL":
        return None
    # The first argument of a SysCallError is a number.
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    trouble = " ".join(str(reason[-1]) for reason in reasons if reason)
    return "" if "unexpected eof" in trouble else trouble
