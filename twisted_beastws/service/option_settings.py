"""OptionSettings that follow from several options of ``twistd beastws``."""

from __future__ import annotations

from twisted.python.usage import Options as TwistedOptions

from twisted_beastws.budget import MemoryBudget
from twisted_beastws.hub import Backplane, Hub, LocalBackplane
from twisted_beastws.hub.planes import backplane_at
from twisted_beastws.options import Deflate, Limits, Origins, Timeouts
from twisted_beastws.server.serving import ShutdownPolicy
from twisted_beastws.service.access.tokens import rights_of
from twisted_beastws.service.deflating import read_deflate
from twisted_beastws.service.option_table import ANY_ORIGIN, FILE_ORIGIN, NULL_ORIGIN
from twisted_beastws.service.option_values import DRAIN_REASONS

MAX_OPENING = 1000
"""Connections without a WebSocket: with --max-head, this bounds the memory of clients that never open one."""

MAX_OPENING_PER_ADDRESS = 250
"""The same from one address: a quarter, so that a network of 48 bits, which has four times as much, fits too."""


class OptionSettings(TwistedOptions):
    """A dict of options, and the settings that follow from them."""

    @property
    def deflate(self) -> Deflate | None:
        """The compression of messages."""
        return None if self["deflate"] is None else read_deflate(self["deflate"])

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of a connection."""
        return Timeouts(
            handshake=self["handshake-timeout"] or None,
            keep_alive=self["keep-alive-timeout"] or None,
            idle=self["idle-timeout"] or None,
            ping_interval=self["ping-interval"] or None,
            close=5.0,
        )

    @property
    def limits(self) -> Limits:
        """The limits of a connection, and of their number."""
        return Limits(
            max_message_size=self["max-message"],
            max_head_size=self["max-head"],
            max_connections=self["max-connections"] or None,
            max_connections_per_peer=self["max-connections-per-address"] or None,
            max_opening=MAX_OPENING,
            max_opening_per_peer=MAX_OPENING_PER_ADDRESS,
            max_handshakes=self["max-handshakes"] or None,
            max_handshakes_per_peer=self["max-handshakes-per-address"] or None,
            max_message_rate=self["max-message-rate"] or None,
            max_byte_rate=self["max-byte-rate"] or None,
        )

    @property
    def budget(self) -> MemoryBudget | None:
        """The memory that all connections share."""
        limit = self["max-memory"]
        return MemoryBudget(limit) if limit else None

    @property
    def origins(self) -> Origins:
        """The web sites that can connect."""
        return Origins(
            allowed=tuple(self["origin"]),
            allow_any_origin_dangerously=bool(self[ANY_ORIGIN]),
            allow_null_origin_dangerously=bool(self[NULL_ORIGIN]),
            allow_file_origin_dangerously=bool(self[FILE_ORIGIN]),
        )

    @property
    def hub(self) -> Hub:
        """A new hub for the chat's rooms, with the permissions of the users' tokens."""
        history, most, url = self["history"], self["max-history"], self["backplane"]
        backplane: Backplane = LocalBackplane(history=history, max_history=most)
        if url is not None:
            room, prefix = min(self["max-room-history"], most), self["backplane-prefix"]
            backplane = backplane_at(url, history=history, max_room_history=room, max_history=most, prefix=prefix)
        return Hub(
            backplane,
            may_join=lambda member, room: rights_of(member).may_read(room),
            may_publish=lambda member, room: rights_of(member).may_write(room),
        )

    @property
    def shutdown_policy(self) -> ShutdownPolicy:
        """The close frames of a graceful shutdown."""
        code = self["drain-code"]
        return ShutdownPolicy(code, DRAIN_REASONS[code], self["drain-time"])
