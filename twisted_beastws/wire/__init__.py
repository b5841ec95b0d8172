"""The protocol itself, without I/O: bytes in, values out; no reactor, transport, Deferred or clock."""
