"""permessage-deflate (RFC 7692): the negotiation, and the codec, which inflates up to a limit."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from twisted_beastws.errors import BadDeflate, BadExtension, MessageTooBig
from twisted_beastws.options import Deflate
from twisted_beastws.wire.compressor import Compressor, compress_alone, new_compressor

NAME = "permessage-deflate"
SERVER_BITS, CLIENT_BITS = "server_max_window_bits", "client_max_window_bits"
SERVER_ALONE, CLIENT_ALONE = "server_no_context_takeover", "client_no_context_takeover"

SLICE = 1 << 16
"""The greatest number of bytes inflated at once: 64 KiB, as many as a transport reads at once."""

MAX_FIELDS_SIZE = 1536
"""The most bytes of all Sec-WebSocket-Extensions fields together, as the longest line of a head in Beast."""

# RFC 7692 §7.2.1: the end of every flushed message, which is not sent.
_TAIL = b"\0\0\xff\xff"

# RFC 6455 §9.1, RFC 2616 §2.2.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_ELEMENT = re.compile(rf"[ \t,]*({_TOKEN})")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?')
_END = re.compile(r"[ \t]*(?:,[ \t,]*|\Z)")
_ESCAPED = re.compile(r"\\(.)")
_WHOLE_TOKEN = re.compile(_TOKEN)
# RFC 7692 §7.1.2.1: a decimal integer without leading zeroes, 8-15.
_BITS = re.compile(r"[89]|1[0-5]")

Said = dict[str, int | None]
"""The parameters of an offer or an answer. None stands for a parameter without a value."""


class Extension(NamedTuple):
    """One element of Sec-WebSocket-Extensions; names in lower case, a parameter without a value has None."""

    name: str
    parameters: list[tuple[str, str | None]]


def parse_extensions(values: Sequence[bytes]) -> list[Extension]:
    """Parse the Sec-WebSocket-Extensions fields of a request or answer.

    RFC 6455 §9.1: repeated fields are one list; a quoted value is a token once it is unquoted.

    Raises:
        BadExtension: The fields are not such a list, or longer than `MAX_FIELDS_SIZE`.
    """
    if sum(map(len, values)) > MAX_FIELDS_SIZE:
        raise BadExtension("The WebSocket handshake Sec-WebSocket-Extensions field is too long")
    return [extension for value in values for extension in _parse_list(value.decode("latin-1"))]


def _parse_list(text: str) -> Iterator[Extension]:
    at = 0
    while element := _ELEMENT.match(text, at):
        at = element.end()
        parameters = []
        while parameter := _PARAMETER.match(text, at):
            at = parameter.end()
            name, value, quoted = parameter.groups()
            if quoted is not None:
                value = _ESCAPED.sub(r"\1", quoted)
                if not _WHOLE_TOKEN.fullmatch(value):
                    raise _malformed()
            parameters.append((name.lower(), value))
        end = _END.match(text, at)
        if end is None:
            raise _malformed()
        at = end.end()
        yield Extension(element[1].lower(), parameters)
    if text[at:].strip(" \t,"):
        raise _malformed()


def _malformed() -> BadExtension:
    return BadExtension("The WebSocket handshake Sec-WebSocket-Extensions field is malformed")


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The parameters that the two ends agreed on; ``answer`` is the server's text. See `Deflate` for the parameters."""

    answer: str
    server_max_window_bits: int
    client_max_window_bits: int
    server_no_context_takeover: bool
    client_no_context_takeover: bool


def accept_offer(values: Sequence[bytes], options: Deflate) -> Negotiated | None:
    """Return the server's answer to the first acceptable offer in ``values``, or None (RFC 7692 §5).

    The server declines an offer with an unknown, repeated or invalid parameter (RFC 7692 §7), and one with a window
    of 8 for the server. A client may use a window of 8 itself, because zlib can inflate it.

    Args:
        values: The request's Sec-WebSocket-Extensions fields.
        options: The options of the server.

    Raises:
        BadExtension: The fields are malformed (400).
    """
    for extension in parse_extensions(values):
        if extension.name == NAME:
            try:
                return _accept(_read_parameters(extension), options)
            except BadExtension:
                continue
    return None


def _read_parameters(extension: Extension) -> Said:
    said: Said = {}
    for name, value in extension.parameters:
        if name in said or name not in (SERVER_BITS, CLIENT_BITS, SERVER_ALONE, CLIENT_ALONE):
            raise BadExtension
        if value is None:
            # RFC 7692 §7.1.2.1: a server's window has its value.
            if name == SERVER_BITS:
                raise BadExtension
            said[name] = None
        elif name in (SERVER_BITS, CLIENT_BITS) and _BITS.fullmatch(value):
            said[name] = int(value)
        else:
            raise BadExtension
    return said


def _accept(offered: Said, options: Deflate) -> Negotiated:
    asked_server, asked_client = offered.get(SERVER_BITS), offered.get(CLIENT_BITS)
    # zlib compresses with no window of 8; Beast takes 9 for it, which the client need not be able to inflate.
    if asked_server == 8:
        raise BadExtension
    said: Said = {}
    if SERVER_ALONE in offered or options.server_no_context_takeover:
        said[SERVER_ALONE] = None
    if CLIENT_ALONE in offered or options.client_no_context_takeover:
        said[CLIENT_ALONE] = None
    # RFC 7692 §7.1.2.1: answer a requested window, even one of 15, which Beast leaves out.
    if asked_server is not None or options.server_max_window_bits < 15:
        said[SERVER_BITS] = min(asked_server or 15, options.server_max_window_bits)
    if asked_client is not None or options.client_max_window_bits < 15:
        # RFC 7692 §7.1.2.2: never answered to a client that does not know the parameter.
        if CLIENT_BITS not in offered:
            raise BadExtension
        said[CLIENT_BITS] = min(asked_client or 15, options.client_max_window_bits)
    return _negotiated(said)


def _negotiated(said: Said, client: Deflate | None = None) -> Negotiated:
    client_bits = said.get(CLIENT_BITS) or 15
    if client is not None:
        # A client keeps to the limits that it offers for itself, even if the server does not know them.
        client_bits = min(client_bits, client.client_max_window_bits)
    return Negotiated(
        _to_text(said),
        said.get(SERVER_BITS) or 15,
        client_bits,
        SERVER_ALONE in said,
        CLIENT_ALONE in said or (client is not None and client.client_no_context_takeover),
    )


def _to_text(said: Said) -> str:
    return "; ".join([NAME, *(name if value is None else f"{name}={value}" for name, value in said.items())])


def offer(options: Deflate) -> str:
    """Return the client's Sec-WebSocket-Extensions field. It omits windows of 15, which Beast writes."""
    said: Said = {}
    if options.server_max_window_bits < 15:
        said[SERVER_BITS] = options.server_max_window_bits
    said[CLIENT_BITS] = options.client_max_window_bits if options.client_max_window_bits < 15 else None
    if options.server_no_context_takeover:
        said[SERVER_ALONE] = None
    if options.client_no_context_takeover:
        said[CLIENT_ALONE] = None
    return _to_text(said)


def check_answer(values: Sequence[bytes], options: Deflate | None) -> Negotiated | None:
    """Return the parameters that the server chose from our `offer`; None if it declined.

    Args:
        values: The answer's Sec-WebSocket-Extensions fields.
        options: The options of the offer; None if nothing was offered.

    Raises:
        BadExtension: The answer does not fit the offer (RFC 7692 §7; Beast continues without compression), or sets a
            window of 8 for the client.
    """
    extensions = parse_extensions(values)
    if not extensions:
        return None
    if options is None or len(extensions) > 1 or extensions[0].name != NAME:
        raise BadExtension
    said = _read_parameters(extensions[0])
    # RFC 7692 §7.1.1.1 and §7.1.2.1: the answer must repeat the parameter, and its window must not be larger.
    if options.server_no_context_takeover and SERVER_ALONE not in said:
        raise BadExtension
    if (said.get(SERVER_BITS) or 15) > options.server_max_window_bits:
        raise BadExtension
    if CLIENT_BITS in said:
        # RFC 7692 §7.1.2.2: no larger than offered; only an offer may leave the value out.
        client_bits = said[CLIENT_BITS]
        if client_bits is None or not 9 <= client_bits <= options.client_max_window_bits:
            raise BadExtension
    return _negotiated(said, options)


class PerMessageDeflate:
    """Compresses and inflates one connection's messages (RFC 7692 §7.2).

    zlib's memory is allocated at a direction's first compressed message. Without context takeover, all
    connections share a compressor, and the inflater is freed after each message.

    threshold: Messages of fewer bytes are sent uncompressed.
    """

    __slots__ = (
        "_begun",
        "_compressor",
        "_inflater",
        "_options",
        "_parted",
        "_receives_alone",
        "_receives_bits",
        "_sends_alone",
        "_sends_bits",
        "threshold",
    )

    def __init__(self, negotiated: Negotiated, options: Deflate, server: bool) -> None:
        ours = (negotiated.server_max_window_bits, negotiated.server_no_context_takeover)
        theirs = (negotiated.client_max_window_bits, negotiated.client_no_context_takeover)
        self._sends_bits, self._sends_alone = ours if server else theirs
        self._receives_bits, self._receives_alone = theirs if server else ours
        self._options = options
        self.threshold = options.threshold
        self._compressor: Compressor | None = None
        self._inflater: zlib._Decompress | None = None
        self._begun = False
        self._parted = False

    @property
    def parameters(self) -> tuple[int, int, int]:
        """The window bits, level and memory level that we compress with."""
        return self._sends_bits, self._options.level, self._options.mem_level

    def compress(self, payload: bytes) -> bytes:
        """Compress a whole message."""
        # RFC 7692 §7.2.3.6; zlib flushes nothing where nothing came since the last flush.
        if not payload:
            return b"\0"
        if self._sends_alone:
            return compress_alone(payload, self._options.level, self._sends_bits, self._options.mem_level)
        compressor = self._need_compressor()
        return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def compress_part(self, part: bytes) -> bytes:
        """Compress a part of a message. zlib may keep some of it until `finish_parts`."""
        self._parted = self._parted or bool(part)
        return self._need_compressor().compress(part)

    def finish_parts(self) -> bytes:
        """Return the end of a message whose parts went through `compress_part`."""
        if not self._parted:
            return b"\0"
        self._parted = False
        rest = self._need_compressor().flush(zlib.Z_SYNC_FLUSH)[:-4]
        if self._sends_alone:
            self._compressor = None
        return rest

    def _need_compressor(self) -> Compressor:
        if self._compressor is None:
            self._compressor = new_compressor(self._options.level, self._sends_bits, self._options.mem_level)
        return self._compressor

    def forget_sent(self) -> None:
        """Make the next message refer to no earlier one, for example because the peer may not get an earlier one."""
        self._compressor = None

    def inflate(self, part: bytes, final: bool, room: int) -> Iterator[tuple[bytes, bool]]:
        """Inflate the next part of a message; ``final`` if it is the last.

        Yields pieces of at most 64 KiB, from the second on inflated when it is asked for, with whether each ends the
        message. Raises `BadDeflate`, and `MessageTooBig` beyond ``room`` bytes, of which it inflates one.
        """
        self._begun = self._begun or bool(part)
        if final and self._begun:
            # An empty payload is an empty message, as in Beast, so it gets no tail.
            part += _TAIL
        return self._pieces(self._slice(part, room), final, room)

    def inflate_whole(self, payload: bytes, room: int) -> bytes | Iterator[tuple[bytes, bool]]:
        """Inflate a message that came at once: return it whole, or if it is long an iterator as `inflate` does."""
        if not payload:
            return self.inflate(payload, True, room)
        self._begun = True
        piece = self._slice(payload + _TAIL, room)
        inflater = self._inflater
        assert inflater is not None
        if len(piece) >= min(room + 1, SLICE) or inflater.eof or inflater.unconsumed_tail:
            return self._pieces(piece, True, room)
        self._message_ended()
        return piece

    def _slice(self, part: bytes, room: int) -> bytes:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-max(self._receives_bits, 9))
        try:
            return self._inflater.decompress(part, min(room + 1, SLICE))
        except zlib.error:
            raise BadDeflate from None

    def _message_ended(self) -> None:
        self._begun = False
        if self._receives_alone:
            self._inflater = None

    def _pieces(self, piece: bytes, final: bool, room: int) -> Iterator[tuple[bytes, bool]]:
        """The pieces of a part, of which ``piece`` is inflated."""
        while True:
            inflater = self._inflater
            assert inflater is not None
            size = min(room + 1, SLICE)
            if len(piece) > room:
                # The part that fits is checked first, so that any cutting into chunks finds the same fault.
                if room:
                    yield piece[:room], False
                raise MessageTooBig
            room -= len(piece)
            part = inflater.unconsumed_tail
            more = bool(part) or len(piece) == size
            if inflater.eof:
                # RFC 7692 §7.2.3.4: a block may be the last of its stream. A new stream follows.
                self._inflater = None
                part = inflater.unused_data
                self._begun = more = bool(part) and not (final and part == _TAIL)
            ended = final and not more
            if ended:
                self._message_ended()
            if piece or ended:
                yield piece, ended
            if not more:
                return
            piece = self._slice(part, room)
