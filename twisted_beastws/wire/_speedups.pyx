# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=True
"""The compiled twins of `FrameReader`, `FrameWriter` and `TurnBudget`: the same interfaces, the same results.

Only small functions touch raw memory. Each gets the size of it, and every size is checked before it is used.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport INFINITY, fabs
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from twisted_beastws import errors
from twisted_beastws.wire.frames import GATHER_LIMIT as _GATHER_LIMIT, mask_keys
from twisted_beastws.wire.reader import LEAP as _LEAP, too_big
from twisted_beastws.wire.turns import LOOK_EVERY as _LOOK_EVERY

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest)
    void *PyUnicode_DATA(object text)

cdef extern from *:
    """
    #define HIGH_BITS 0x8080808080808080ULL
    """
    const uint64_t HIGH_BITS

cdef enum:
    RUNNING = 0
    PAUSED = 1
    STOPPED = 2
    FIN = 0x80
    RESERVED = 0x70
    RSV1 = 0x40
    FIN_TEXT = 0x81
    FIN_BINARY = 0x82
    GATHER_LIMIT = 1 << 16
    MOST_HEADER = 14
    LOOK_EVERY = 16

if GATHER_LIMIT != _GATHER_LIMIT or LOOK_EVERY != _LOOK_EVERY:
    raise ImportError("the compiled codec is another version's")
# Octets made room for on a frame header's word alone, which touches no memory yet: 64 MiB.
cdef uint64_t SOLO_LIMIT = 1 << 26
# Characters up to which Python's copy of a text's octets, kept with it, costs less than one made each time.
cdef Py_ssize_t CACHED_TEXT = 4096
cdef double LEAP = _LEAP
cdef uint64_t _MOST = (<uint64_t>1) << 63

cdef object _BadContinuation = errors.BadContinuation
cdef object _BadControlFragment = errors.BadControlFragment
cdef object _BadControlSize = errors.BadControlSize
cdef object _BadDataFrame = errors.BadDataFrame
cdef object _BadFramePayload = errors.BadFramePayload
cdef object _BadMaskedFrame = errors.BadMaskedFrame
cdef object _BadOpcode = errors.BadOpcode
cdef object _BadReservedBits = errors.BadReservedBits
cdef object _BadSize = errors.BadSize
cdef object _BadUnmaskedFrame = errors.BadUnmaskedFrame
cdef object _ProtocolError = errors.ProtocolError
cdef object _UnacceptableData = errors.UnacceptableData


cdef void _unmask(uint8_t *target, const uint8_t *source, Py_ssize_t size, const uint8_t *key) noexcept nogil:
    # RFC 6455 §5.3, eight octets at a time; memcpy keeps unaligned access defined.
    cdef uint32_t narrow
    cdef uint64_t wide, word
    cdef Py_ssize_t at = 0
    memcpy(&narrow, key, 4)
    wide = (<uint64_t>narrow << 32) | narrow
    while size - at >= 8:
        memcpy(&word, source + at, 8)
        word ^= wide
        memcpy(target + at, &word, 8)
        at += 8
    while at < size:
        target[at] = source[at] ^ key[at & 3]
        at += 1


cdef bytes _masked(const uint8_t *source, Py_ssize_t size, const uint8_t *key):
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
    _unmask(<uint8_t *>PyBytes_AS_STRING(result), source, size, key)
    return result


cdef bint _is_ascii(const uint8_t *octets, Py_ssize_t size) noexcept nogil:
    cdef uint64_t word, all_bits = 0
    cdef Py_ssize_t at = 0
    while size - at >= 8:
        memcpy(&word, octets + at, 8)
        all_bits |= word
        at += 8
    while at < size:
        all_bits |= octets[at]
        at += 1
    return not all_bits & HIGH_BITS


cdef object _checked(const uint8_t *octets, Py_ssize_t size):
    try:
        return PyUnicode_DecodeUTF8(<const char *>octets, size, NULL)
    except UnicodeDecodeError:
        # RFC 6455 §8.1.
        raise _BadFramePayload() from None


cdef object _decoded(const uint8_t *source, Py_ssize_t size, const uint8_t *key, bint masked):
    cdef uint8_t *octets
    if not masked:
        return _checked(source, size)
    # Unmasked in the place where ASCII may stay.
    text = PyUnicode_New(size, 0x7F)
    octets = <uint8_t *>PyUnicode_DATA(text)
    _unmask(octets, source, size, key)
    # Of no character and of a single one Python has objects already.
    if size > 1 and _is_ascii(octets, size):
        return text
    return _checked(octets, size)


cdef struct Utf8:
    # The continuation octets that a character still needs, and the range of the next.
    uint8_t needed, low, high


cdef bint _is_utf8(Utf8 *state, const uint8_t *octets, Py_ssize_t size) noexcept nogil:
    # RFC 3629 §4, a part of a text at a time.
    cdef Py_ssize_t at = 0
    cdef uint64_t word
    cdef uint8_t octet
    while at < size:
        if not state.needed:
            while size - at >= 8:
                memcpy(&word, octets + at, 8)
                if word & HIGH_BITS:
                    break
                at += 8
            if at == size:
                break
        octet = octets[at]
        at += 1
        if state.needed:
            if octet < state.low or octet > state.high:
                return False
            state.needed -= 1
        elif octet < 0x80:
            continue
        elif octet < 0xC2 or octet > 0xF4:
            return False
        else:
            state.needed = 1 if octet < 0xE0 else 2 if octet < 0xF0 else 3
            state.low = 0xA0 if octet == 0xE0 else 0x90 if octet == 0xF0 else 0x80
            state.high = 0x9F if octet == 0xED else 0x8F if octet == 0xF4 else 0xBF
            continue
        state.low, state.high = 0x80, 0xBF
    return True


cdef Py_ssize_t _header(uint8_t *header, int first, Py_ssize_t size, bytes key) except -1:
    # Writes at most MOST_HEADER octets, and returns how many.
    cdef Py_ssize_t length = 2
    cdef int mask_bit = 0 if key is None else 0x80
    cdef int octet
    header[0] = <uint8_t>first
    # RFC 6455 §5.2: the length in its shortest form.
    if size < 126:
        header[1] = <uint8_t>(mask_bit | size)
    elif size < 1 << 16:
        header[1] = <uint8_t>(mask_bit | 126)
        header[2] = <uint8_t>(size >> 8)
        header[3] = <uint8_t>(size & 0xFF)
        length = 4
    else:
        header[1] = <uint8_t>(mask_bit | 127)
        for octet in range(8):
            header[2 + octet] = <uint8_t>((<uint64_t>size >> (56 - 8 * octet)) & 0xFF)
        length = 10
    if key is not None:
        if PyBytes_GET_SIZE(key) != 4:
            raise ValueError("a mask key has four octets")
        memcpy(header + length, PyBytes_AS_STRING(key), 4)
        length += 4
    return length


cdef void _put(
    uint8_t *target, const uint8_t *header, Py_ssize_t length, const uint8_t *payload, Py_ssize_t size, bytes key
) noexcept:
    # ``target`` has room for both.
    memcpy(target, header, length)
    if not size:
        return
    if key is None:
        memcpy(target + length, payload, size)
    else:
        _unmask(target + length, payload, size, <const uint8_t *>PyBytes_AS_STRING(key))


cdef bytes _framed(int first, const uint8_t *payload, Py_ssize_t size, bytes key):
    cdef uint8_t header[MOST_HEADER]
    cdef Py_ssize_t length = _header(header, first, size, key)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, length + size)
    _put(<uint8_t *>PyBytes_AS_STRING(frame), header, length, payload, size, key)
    return frame


def apply_mask(bytes data not None, bytes key not None):
    """Mask or unmask ``data`` (RFC 6455 §5.3)."""
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError("a mask key has four octets")
    return _masked(
        <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), <const uint8_t *>PyBytes_AS_STRING(key)
    )


def encode_frame(int first, bytes payload not None, bytes key=None):
    """A whole frame; ``first`` is its first octet (FIN, RSV and opcode), ``key`` masks it."""
    return _framed(first, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), key)


def clear_send(transport, send):
    """Return ``send``, a socket's, made to take nothing once ``transport.TLS`` says that TLS was started there."""

    def send_in_clear(data):
        return 0 if transport.TLS else send(data)

    return send_in_clear


# Where frames are gathered, by one writer at a time: a writer that is corked meanwhile writes each frame by itself.
cdef uint8_t _gathered[GATHER_LIMIT]
cdef FrameWriter _gatherer = None


@cython.final
cdef class FrameWriter:
    """See `twisted_beastws.wire.writer.FrameWriter`."""

    # A bound method may be held weakly.
    cdef object __weakref__
    cdef public object sink, backlog
    cdef public uint64_t fragment_size
    cdef readonly bint server, sendable, closed
    cdef bint _corked
    # If it is not 0, this writer is the gatherer.
    cdef readonly Py_ssize_t gathered_size

    def __init__(self, bint server, sink):
        self.server = server
        self.sink = sink
        self.fragment_size = _MOST
        self.sendable = True

    def send(self, message, *, compress=None):
        """Send a message; see ``WebSocketProtocol.send``."""
        if compress is None and isinstance(message, str):
            self._send_text(message)
        else:
            self.backlog.send_other(message, compress)

    def send_text(self, text):
        """Send a text message in one frame."""
        self._send_text(text)

    cdef _send_text(self, text):
        cdef Py_ssize_t size = 0
        cdef const char *encoded
        if len(text) > CACHED_TEXT and not text.isascii():
            # Python would keep the encoded bytes for as long as the text.
            self.send_frame(FIN_TEXT, text.encode())
            return
        encoded = PyUnicode_AsUTF8AndSize(text, &size)
        if self.sendable and <uint64_t>size <= self.fragment_size:
            self._emit(FIN_TEXT, <const uint8_t *>encoded, size)
        else:
            self.send_frame(FIN_TEXT, text.encode())

    def send_binary(self, data):
        """Send a binary message in one frame."""
        self.send_frame(FIN_BINARY, data)

    cpdef send_frame(self, int first, payload):
        """Send a data frame whose first byte is ``first``, or keep it in ``backlog`` if it may not leave now."""
        if self.sendable:
            self.emit(first, payload)
        else:
            self.backlog.send_held(first, payload)

    def hold(self):
        """Send messages to ``backlog`` until `release`."""
        self.sendable = False

    def release(self):
        """Let messages leave again, unless the writer is closed."""
        self.sendable = not self.closed

    def close(self):
        """Let no further message leave."""
        self.sendable = False
        self.closed = True

    cpdef emit(self, int first, payload):
        """Write a frame, or gather it while the writer is corked and nothing waits in the sink."""
        cdef const uint8_t[::1] view
        # RFC 6455 §5.5: a control frame is never fragmented.
        if <uint64_t>len(payload) > self.fragment_size and not first & 0x08:
            self.backlog.emit_fragments(first, payload)
            return
        if isinstance(payload, bytes):
            self._emit(first, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        else:
            view = payload
            self._emit(first, &view[0] if view.shape[0] else NULL, view.shape[0])

    def emit_pieces(self, int first, payload):
        """Write an admitted payload in frames of ``fragment_size``; if ``first`` has FIN, the last frame has it."""
        cdef const uint8_t[::1] view = payload
        cdef const uint8_t *octets = &view[0] if view.shape[0] else NULL
        cdef Py_ssize_t end = view.shape[0], at = 0, size
        cdef int fin = first & FIN, opcode = first & ~FIN
        if self.gathered_size:
            self._flush(b"")
        # RFC 6455 §5.5.1: no data frame follows a close frame.
        while not self.closed:
            size = end - at
            if <uint64_t>size > self.fragment_size:
                size = <Py_ssize_t>self.fragment_size
            frame = _framed(opcode | (fin if at + size == end else 0), octets + at, size, self._next_key())
            self.sink.write_admitted(frame)
            opcode = 0
            at += size
            if at >= end:
                return

    cdef bytes _next_key(self):
        return None if self.server else mask_keys.next()

    cdef _emit(self, int first, const uint8_t *payload, Py_ssize_t size):
        cdef uint8_t header[MOST_HEADER]
        cdef bytes key = self._next_key()
        cdef Py_ssize_t length = _header(header, first, size, key)
        if size >= GATHER_LIMIT or not self._gathers(length + size):
            self._write(first, _framed(first, payload, size, key))
        elif length + size > GATHER_LIMIT - self.gathered_size:
            self._flush(_framed(first, payload, size, key))
        else:
            _put(_gathered + self.gathered_size, header, length, payload, size, key)
            self._has_gathered(length + size)

    def emit_frame(self, int first, bytes frame not None):
        """Write or gather a finished frame, as `emit` does; ``first`` is its first byte."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame)
        if not self._gathers(size):
            self._write(first, frame)
        elif size > GATHER_LIMIT - self.gathered_size:
            self._flush(frame)
        else:
            memcpy(_gathered + self.gathered_size, PyBytes_AS_STRING(frame), size)
            self._has_gathered(size)

    cdef bint _gathers(self, Py_ssize_t size) except -1:
        if not self._corked or size >= GATHER_LIMIT:
            return False
        # The first gathered frame asks; nothing is written before the others.
        if not self.gathered_size and not self.sink.free:
            return False
        return _gatherer is None or _gatherer is self

    cdef _has_gathered(self, Py_ssize_t size):
        global _gatherer
        _gatherer = self
        self.gathered_size += size
        if self.gathered_size == GATHER_LIMIT:
            self._flush(b"")

    cdef _write(self, int first, bytes frame):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame)
        if self.gathered_size:
            self._flush(b"")
        if size < GATHER_LIMIT and self._left_at_once(frame, size):
            return
        if first & 0x08:
            self.sink.write_control(first & 0x0F, frame)
        else:
            self.sink.write(frame)

    cdef bint _left_at_once(self, bytes frames, Py_ssize_t size) except -1:
        cdef Py_ssize_t gone
        at_once = self.sink.at_once
        if at_once is None:
            return False
        try:
            gone = at_once(frames)
        except OSError:
            gone = 0
        if gone != size:
            self.sink.write_rest(frames, gone)
        return True

    def cork(self):
        """Gather frames until `uncork`."""
        self._corked = True

    def uncork(self):
        """Write the gathered frames, and each further one at once."""
        self._uncork()

    cdef _uncork(self):
        self._corked = False
        if self.gathered_size:
            self._flush(b"")

    def flush(self):
        """Write the gathered frames."""
        if self.gathered_size:
            self._flush(b"")

    cdef _flush(self, bytes last):
        # Writes the gathered frames and ``last``, for which there is no room.
        global _gatherer
        cdef bytes frames = PyBytes_FromStringAndSize(<const char *>_gathered, self.gathered_size)
        if PyBytes_GET_SIZE(last):
            # Adding nothing takes Python time, and ``last`` is nearly always empty.
            frames = frames + last
        self.gathered_size = 0
        _gatherer = None
        # The sink was free when the first was gathered, and each frame could have been written alone.
        if not self._left_at_once(frames, PyBytes_GET_SIZE(frames)):
            self.sink.write_admitted(frames)


@cython.final
cdef class TurnBudget:
    """See `twisted_beastws.wire.turns.TurnBudget`."""

    cdef public bint one_chunk_a_turn
    cdef readonly bint spent
    cdef bint _awaited
    cdef object _now
    cdef double _seconds, _began, _used
    cdef uint64_t _frames, frames_left, look_at, _step

    def __init__(self, now):
        self._now = now
        self.set(_MOST, None)

    def set(self, uint64_t frames, seconds):
        """Allow so many frames and seconds in a turn, and begin a new one. None is unlimited."""
        self._frames = frames
        self._seconds = INFINITY if seconds is None else seconds
        self.renew()

    cpdef renew(self):
        """Begin a new turn."""
        self.spent = self._awaited = False
        self._began = self._now()
        self._used = 0.0
        self.frames_left = self._frames
        self._look_soon()

    cdef void begin_chunk(self, double now) noexcept:
        if self._awaited:
            self.look_at = self.frames_left
            return
        if self.one_chunk_a_turn:
            self._began = now
            self.frames_left = self._frames
        else:
            # The chunks of one turn share the budget; the time between them belongs to other connections.
            self._began = now - self._used
        self._look_soon()

    cdef bint end_chunk(self, Py_ssize_t size, bint stopped) except -1:
        if not self.spent:
            # A hook may have ended the connection, and then nobody answers.
            if self._awaited or stopped or (self.one_chunk_a_turn and size <= GATHER_LIMIT):
                return False
            if not self.one_chunk_a_turn:
                self._used = <double>self._now() - self._began
                if 2 * self._used <= self._seconds and self.frames_left >= self._frames // 2:
                    return False
        self._awaited = True
        return True

    cdef void _look_soon(self) noexcept:
        # The first look comes after the next frame, the others at longer and longer distances.
        self._step = 1
        self.look_at = self.frames_left - 1 if self.frames_left else 0

    cdef bint look(self) except -1:
        if not self.frames_left or self.out_of_time():
            self.spent = True
            return True
        self._step = min(4 * self._step, <uint64_t>LOOK_EVERY)
        self.look_at = self.frames_left - self._step if self.frames_left > self._step else 0
        return False

    cpdef bint out_of_time(self) except -1:
        """Return whether the seconds of this turn are spent; the budget is spent then."""
        self.spent = self._seconds != INFINITY and <double>self._now() - self._began > self._seconds
        return self.spent


@cython.final
cdef class FrameReader:
    """See `twisted_beastws.wire.reader.FrameReader`."""

    cdef object __weakref__
    cdef public object on_text, on_binary, handler, payloads, wall
    cdef readonly object now
    cdef public double received_at, lead
    cdef public bint accepts_rsv1, whole, unfinished, compressed
    cdef readonly bint server
    cdef readonly int halted, message_opcode
    cdef public uint64_t message_size
    cdef public uint64_t max_frame_size, max_message_size
    cdef public object message_began_at
    cdef readonly uint64_t remaining
    cdef readonly TurnBudget budget
    cdef FrameWriter _writer
    cdef object _events
    cdef bytes _partial
    cdef uint8_t _key[4]
    cdef bint _feeding
    # A message that is one frame but comes in several chunks, received into the place it is delivered from.
    cdef bytes _solo
    cdef Py_ssize_t _solo_at
    cdef int _solo_first
    cdef Utf8 _utf8

    def __init__(self, FrameWriter writer not None, events, now, TurnBudget budget not None):
        self._writer = writer
        self._events = events
        self.server = writer.server
        self.now = now
        self.budget = budget
        self.max_message_size = self.max_frame_size = _MOST
        self.received_at = now()
        self.halted = RUNNING
        self.whole = True
        self._partial = b""

    def feed(self, bytes data not None):
        """Read a chunk. Nothing is raised, whatever the peer or a hook does."""
        self.received_at = self.now()
        self.budget.begin_chunk(self.received_at)
        if self.wall is not None and fabs(<double>self.wall() - self.received_at - self.lead) > LEAP:
            self._events.clock_was_set()
        self._run(data)

    def next_turn(self):
        """Renew the budget in a new turn of the reactor, and read the rest of the chunk."""
        cdef bint waits = self.budget.spent
        self.budget.renew()
        if waits and self.halted == RUNNING and not self._feeding:
            self._run(b"")

    def pause(self):
        """Deliver nothing until `resume`; what is fed meanwhile is kept."""
        if self.halted == RUNNING:
            self.halted = PAUSED

    def resume(self):
        """Go on after `pause`, with the bytes that arrived meanwhile."""
        if self.halted == PAUSED:
            self.halted = RUNNING
            if not self._feeding:
                self._run(b"")

    def stop(self):
        """Read nothing any more."""
        self.halted = STOPPED
        self._partial = b""
        self.budget.spent = False

    def detach(self):
        """The connection has ended: drop the references to it, so that no cycle keeps it alive."""
        self.on_text = self.on_binary = self.handler = self.payloads = None

    cdef _run(self, bytes data):
        if self._feeding or self.budget.spent:
            # A hook, or the sink's writing, fed us: these bytes come after the chunk that is being read.
            self._partial = self._partial + data
            return
        self._feeding = self._writer._corked = True
        try:
            self._parse(data)
        except _ProtocolError as error:
            self.handler.fail(error)
        finally:
            self._feeding = False
            self._writer._uncork()
        if self.budget.end_chunk(PyBytes_GET_SIZE(data), self.halted == STOPPED):
            self._events.turn_awaited()

    cdef _parse(self, bytes data):
        cdef Py_ssize_t position
        cdef bytes fed_meanwhile
        if self.unfinished and self.halted == RUNNING:
            # The rest of the interrupted payload comes before the frames after it.
            self._partial = self._partial + data
            data = b""
            self.payloads.resume()
        while True:
            if self._partial:
                data = self._partial + data
                self._partial = b""
            position = self._parse_chunk(data)
            fed_meanwhile = self._partial
            if self.halted == STOPPED:
                self._partial = b""
            elif position < PyBytes_GET_SIZE(data):
                self._partial = data[position:] + fed_meanwhile
            if not fed_meanwhile or self.halted != RUNNING or self.budget.spent:
                return
            data = b""

    cdef Py_ssize_t _parse_chunk(self, bytes data) except -1:
        # Reads the whole frames, and the part that arrived of a long one; returns the number of bytes read.
        cdef const uint8_t *octets
        cdef const uint8_t *key
        cdef Py_ssize_t position = 0, end, start, at
        cdef uint64_t length, least
        cdef int first, second
        cdef bint simple
        cdef TurnBudget budget = self.budget
        octets = <const uint8_t *>PyBytes_AS_STRING(data)
        end = PyBytes_GET_SIZE(data)
        while self.halted == RUNNING and not budget.spent:
            if self.remaining:
                if position == end:
                    break
                if self._solo is not None:
                    position = self._continue_solo(octets, position, end)
                else:
                    position = self._continue_payload(octets, position, end)
                continue
            if end - position < 2:
                break
            if budget.frames_left <= budget.look_at and budget.look():
                break
            first = octets[position]
            second = octets[position + 1]
            length = second & 0x7F
            simple = self.whole and (first == FIN_TEXT or first == FIN_BINARY)
            if not simple:
                self._check_first(first, length)
            # RFC 6455 §5.1: a client masks every frame, a server none.
            if self.server:
                if second < 0x80:
                    raise _BadUnmaskedFrame()
            elif second >= 0x80:
                raise _BadMaskedFrame()
            start = position + 2
            if length > 125:
                least = 126 if length == 126 else 1 << 16
                start += 2 if length == 126 else 8
                if start > end:
                    break
                length = 0
                for at in range(position + 2, start):
                    length = length << 8 | octets[at]
                # RFC 6455 §5.2: the shortest form, and the most significant bit is 0.
                if length < least or length >= _MOST:
                    raise _BadSize()
            key = octets + start
            if self.server:
                start += 4
                if start > end:
                    break
            if simple and length <= <uint64_t>(end - start):
                if length > self.max_message_size or length > self.max_frame_size:
                    raise too_big(self.max_message_size, self.max_frame_size)
                position = start + <Py_ssize_t>length
                self._deliver(first, octets + start, <Py_ssize_t>length, key)
            elif first & 0x08:
                if length > <uint64_t>(end - start):
                    break
                position = start + <Py_ssize_t>length
                self.handler.control_received(first & 0x0F, self._payload(octets + start, <Py_ssize_t>length, key))
            elif self.whole and first & FIN and first & RSV1 and length <= <uint64_t>(end - start):
                if length > self.max_frame_size:
                    raise too_big(self.max_message_size, self.max_frame_size)
                position = start + <Py_ssize_t>length
                self.payloads.compressed_received(first, self._payload(octets + start, <Py_ssize_t>length, key))
                # A short frame may inflate to a long message: look at the clock.
                budget.look_at = budget.frames_left
            elif simple and length <= SOLO_LIMIT:
                position = start
                self._begin_solo(first, length, key)
            else:
                position = start
                self._begin(first, length, key)
            budget.frames_left -= 1
        return position

    cdef _check_first(self, int first, uint64_t length):
        cdef int opcode = first & 0x0F
        if opcode & 0x08:
            # RFC 6455 §5.5: control frames are short and never fragmented.
            if opcode > 0xA:
                raise _BadOpcode()
            if not first & FIN:
                raise _BadControlFragment()
            if length > 125:
                raise _BadControlSize()
            if first & RESERVED:
                raise _BadReservedBits()
        elif opcode == 0:
            # RFC 6455 §5.4; RFC 7692 §6: only the first frame of a message may have RSV1.
            if not self.message_opcode:
                raise _BadContinuation()
            if first & RESERVED:
                raise _BadReservedBits()
        else:
            if opcode > 2:
                raise _BadOpcode()
            if self.message_opcode:
                raise _BadDataFrame()
            if first & (RESERVED ^ RSV1) or (first & RSV1 and not self.accepts_rsv1):
                raise _BadReservedBits()

    cdef bytes _payload(self, const uint8_t *source, Py_ssize_t size, const uint8_t *key):
        if self.server:
            return _masked(source, size, key)
        return PyBytes_FromStringAndSize(<const char *>source, size)

    cdef _deliver(self, int first, const uint8_t *source, Py_ssize_t size, const uint8_t *key):
        if first == FIN_BINARY:
            self.call_hook(self.on_binary, self._payload(source, size, key))
            return
        # A kind without a hook is refused by its header, before its text is judged, however it arrives.
        if self.on_text is None:
            raise _UnacceptableData()
        self.call_hook(self.on_text, _decoded(source, size, key, self.server))

    cpdef call_hook(self, hook, message):
        """Give a message to the application; the events tell of its result or exception."""
        if hook is None:
            raise _UnacceptableData()
        try:
            result = hook(message)
            if result is not None:
                self._events.hook_returned(result)
        except Exception:
            self._events.hook_failed()

    cdef _begin(self, int first, uint64_t length, const uint8_t *key):
        # As in Beast, the header decides before any payload is kept. A compressed frame's length says nothing yet.
        if first & 0x0F:
            self.compressed = first & RSV1
        if length > self.max_frame_size or (
            not self.compressed
            and (self.message_size > self.max_message_size or length > self.max_message_size - self.message_size)
        ):
            raise too_big(self.max_message_size, self.max_frame_size)
        # A call may free the memory that `key` points to.
        if self.server:
            memcpy(self._key, key, 4)
        self.payloads.begin_frame(first, length)
        self.remaining = length
        if not length:
            self.payloads.payload_received(b"", True)

    cdef _begin_solo(self, int first, uint64_t length, const uint8_t *key):
        if length > self.max_message_size or length > self.max_frame_size:
            raise too_big(self.max_message_size, self.max_frame_size)
        if (self.on_text if first == FIN_TEXT else self.on_binary) is None:
            raise _UnacceptableData()
        if self.server:
            memcpy(self._key, key, 4)
        self._solo = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
        self._solo_at = 0
        self._solo_first = first
        self._utf8.needed = 0
        self.remaining = length
        self.message_began_at = self.received_at

    cdef Py_ssize_t _continue_solo(self, const uint8_t *octets, Py_ssize_t position, Py_ssize_t end) except -1:
        cdef Py_ssize_t size = end - position
        cdef uint8_t *target
        if <uint64_t>size > self.remaining:
            size = <Py_ssize_t>self.remaining
        if size > PyBytes_GET_SIZE(self._solo) - self._solo_at:
            raise RuntimeError("more bytes than the frame has")
        target = <uint8_t *>PyBytes_AS_STRING(self._solo) + self._solo_at
        if self.server:
            _unmask(target, octets + position, size, self._key)
            self._turn_key(size)
        else:
            memcpy(target, octets + position, size)
        # RFC 6455 §8.1: fail at the first bad byte, not at the message's end.
        if self._solo_first == FIN_TEXT and self.whole and not _is_utf8(&self._utf8, target, size):
            raise _BadFramePayload()
        self._solo_at += size
        self.remaining -= <uint64_t>size
        if not self.remaining:
            self._end_solo()
        return position + size

    cdef _end_solo(self):
        cdef bytes message = self._solo
        self._solo = None
        self.message_began_at = None
        # We sent a close frame meanwhile: data before the peer's is thrown away.
        if not self.whole:
            return
        if self._solo_first == FIN_BINARY:
            self.call_hook(self.on_binary, message)
        elif self._utf8.needed:
            raise _BadFramePayload()
        else:
            self.call_hook(self.on_text, PyUnicode_DecodeUTF8(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), NULL))

    cdef void _turn_key(self, Py_ssize_t size) noexcept:
        cdef uint8_t turned[4]
        cdef int at
        for at in range(4):
            turned[at] = self._key[(at + size) & 3]
        memcpy(self._key, turned, 4)

    cdef Py_ssize_t _continue_payload(self, const uint8_t *octets, Py_ssize_t position, Py_ssize_t end) except -1:
        cdef Py_ssize_t size = end - position
        if <uint64_t>size > self.remaining:
            size = <Py_ssize_t>self.remaining
        part = self._payload(octets + position, size, self._key)
        self.remaining -= <uint64_t>size
        self._turn_key(size)
        self.payloads.payload_received(part, not self.remaining)
        return position + size

    def begin_message(self, int opcode):
        """The first frame of a message arrived that cannot be delivered whole."""
        self.whole = False
        self.message_opcode = opcode
        self.message_size = 0
        self.message_began_at = self.received_at

    def end_message(self, bint whole):
        """The message has ended; the next one may be delivered ``whole``."""
        self.message_opcode = 0
        self.message_size = 0
        self.message_began_at = None
        self.whole = whole

    def drop_message(self):
        """Free the received part of a message; return whether the rest of its frame then goes to ``payloads``."""
        dropped = self._solo is not None
        self._solo = None
        return dropped

    def too_big(self):
        """Return the error that names the limits in force."""
        return too_big(self.max_message_size, self.max_frame_size)

    @property
    def unparsed_size(self):
        """The received bytes that neither ``payloads`` nor a hook has had."""
        return PyBytes_GET_SIZE(self._partial) + (0 if self._solo is None else self._solo_at)
