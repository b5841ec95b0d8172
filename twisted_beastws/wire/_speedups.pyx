# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=True
"""The compiled twins of the functions over raw bytes in `twisted_beastws.wire.raw` and `frames`: the same results.

Only these small functions touch raw memory. Each gets the size of it, and checks every size before it uses it.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from twisted_beastws import errors

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 greatest)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_Check(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_KIND(object text)
    Py_UCS4 PyUnicode_READ(int kind, const void *data, Py_ssize_t at)
    const Py_ssize_t PY_SSIZE_T_MAX
    # These take over the reference, and set the pointer to NULL if they fail.
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    int PyUnicode_Resize(PyObject **text, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    PyObject *new_text "PyUnicode_New"(Py_ssize_t size, Py_UCS4 greatest) except NULL
    void release "Py_XDECREF"(PyObject *data)

cdef extern from *:
    """
    #define HIGH_BITS 0x8080808080808080ULL
    """
    const uint64_t HIGH_BITS

cdef enum:
    MOST_HEADER = 14

# Characters up to which keeping the encoded bytes with a text, as Python does, costs less than encoding it each time.
cdef Py_ssize_t CACHED_TEXT = 4096

# Characters that are encoded at once if a client masks a long text: a step of at most 64 KiB.
cdef Py_ssize_t STEP_LENGTH = 1 << 14

# Bytes of memory reserved for a message whose header alone has arrived: at most 1 MiB, the default limit of a message.
cdef Py_ssize_t AHEAD = 1 << 20

# The place of a longer message grows by this factor, and its last step makes it as long as the message. The allocator
# may keep the places that it has left: with the factor 8 they take a seventh of the message, with 2 as much as it.
cdef Py_ssize_t STEP = 8

# The most bytes received into a place at once: 512 KiB. What the processor's caches do not hold costs more to unmask.
cdef Py_ssize_t MOST_AT_ONCE = 1 << 19

# Half of the address space, so that no sum of two sizes overflows.
cdef Py_ssize_t LONGEST = PY_SSIZE_T_MAX >> 1

cdef object _BadFramePayload = errors.BadFramePayload


cdef inline uint64_t _unmask(uint8_t *target, const uint8_t *source, Py_ssize_t size, const uint8_t *key) noexcept nogil:
    # RFC 6455 §5.3, eight bytes at a time; memcpy keeps unaligned access defined. Returns all results or-ed together,
    # so that ``HIGH_BITS`` of it shows whether all are ASCII. Inline: a call costs a short message 7 % more.
    cdef uint32_t narrow
    cdef uint64_t wide, word, all_bits = 0
    cdef Py_ssize_t at = 0
    memcpy(&narrow, key, 4)
    wide = (<uint64_t>narrow << 32) | narrow
    while size - at >= 8:
        memcpy(&word, source + at, 8)
        word ^= wide
        all_bits |= word
        memcpy(target + at, &word, 8)
        at += 8
    while at < size:
        target[at] = source[at] ^ key[at & 3]
        all_bits |= target[at]
        at += 1
    return all_bits


cdef inline uint64_t _high_bits(const uint8_t *source, Py_ssize_t size) noexcept nogil:
    # All bytes or-ed together, as `_unmask` returns them.
    cdef uint64_t word, all_bits = 0
    cdef Py_ssize_t at = 0
    while size - at >= 8:
        memcpy(&word, source + at, 8)
        all_bits |= word
        at += 8
    while at < size:
        all_bits |= source[at]
        at += 1
    return all_bits


cdef bytes _masked(const uint8_t *source, Py_ssize_t size, const uint8_t *key):
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
    _unmask(<uint8_t *>PyBytes_AS_STRING(result), source, size, key)
    return result


cdef object _checked(const uint8_t *data_at, Py_ssize_t size):
    try:
        return PyUnicode_DecodeUTF8(<const char *>data_at, size, NULL)
    except UnicodeDecodeError:
        # RFC 6455 §8.1.
        raise _BadFramePayload() from None


cdef object _decoded(const uint8_t *source, Py_ssize_t size, const uint8_t *key, bint masked):
    cdef uint8_t *data_at
    cdef uint64_t all_bits
    if not masked:
        return _checked(source, size)
    # Unmasked into the place where it can stay if it is ASCII.
    text = PyUnicode_New(size, 0x7F)
    data_at = <uint8_t *>PyUnicode_DATA(text)
    all_bits = _unmask(data_at, source, size, key)
    # Python has objects for the empty text and for those of one character.
    if size > 1 and not all_bits & HIGH_BITS:
        return text
    return _checked(data_at, size)


cdef bint _is_utf8(Utf8 *state, const uint8_t *data_at, Py_ssize_t size) noexcept nogil:
    # RFC 3629 §4, a part of a text at a time.
    cdef Py_ssize_t at = 0
    cdef uint64_t word
    cdef uint8_t byte
    while at < size:
        if not state.needed:
            while size - at >= 8:
                memcpy(&word, data_at + at, 8)
                if word & HIGH_BITS:
                    break
                at += 8
            if at == size:
                break
        byte = data_at[at]
        at += 1
        if state.needed:
            if byte < state.low or byte > state.high:
                return False
            state.needed -= 1
        elif byte < 0x80:
            continue
        elif byte < 0xC2 or byte > 0xF4:
            return False
        else:
            state.needed = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
            state.low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
            state.high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
            continue
        state.low, state.high = 0x80, 0xBF
    return True


cdef Py_ssize_t _header(uint8_t *header, int first, Py_ssize_t size, bytes key) except -1:
    # Writes at most MOST_HEADER bytes, and returns how many.
    cdef Py_ssize_t length = 2
    cdef int mask_bit = 0 if key is None else 0x80
    cdef int byte
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
        for byte in range(8):
            header[2 + byte] = <uint8_t>((<uint64_t>size >> (56 - 8 * byte)) & 0xFF)
        length = 10
    if key is not None:
        if PyBytes_GET_SIZE(key) != 4:
            raise ValueError("a mask key has four bytes")
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
        raise ValueError("a mask key has four bytes")
    return _masked(
        <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), <const uint8_t *>PyBytes_AS_STRING(key)
    )


# Received bytes.


cdef inline int _check_range(bytes data, Py_ssize_t start, Py_ssize_t size) except -1:
    if start < 0 or size < 0 or start > PyBytes_GET_SIZE(data) or size > PyBytes_GET_SIZE(data) - start:
        raise ValueError("these bytes are not in the chunk")
    return 0


cdef const uint8_t *_key_of(bytes key) except NULL:
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError("a mask key has four bytes")
    return <const uint8_t *>PyBytes_AS_STRING(key)


cpdef bytes take_bytes(bytes data, Py_ssize_t start, Py_ssize_t size, Py_ssize_t key_at):
    cdef const uint8_t *data_at = <const uint8_t *>PyBytes_AS_STRING(data)
    _check_range(data, start, size)
    if key_at < 0:
        return PyBytes_FromStringAndSize(<const char *>data_at + start, size)
    _check_range(data, key_at, 4)
    return _masked(data_at + start, size, data_at + key_at)


cpdef object take_text(bytes data, Py_ssize_t start, Py_ssize_t size, Py_ssize_t key_at):
    cdef const uint8_t *data_at = <const uint8_t *>PyBytes_AS_STRING(data)
    _check_range(data, start, size)
    if key_at < 0:
        return _checked(data_at + start, size)
    _check_range(data, key_at, 4)
    return _decoded(data_at + start, size, data_at + key_at, True)


cpdef bytes take_part(bytes data, Py_ssize_t start, Py_ssize_t size, bytes key):
    cdef const uint8_t *data_at = <const uint8_t *>PyBytes_AS_STRING(data)
    _check_range(data, start, size)
    if key is None:
        return PyBytes_FromStringAndSize(<const char *>data_at + start, size)
    return _masked(data_at + start, size, _key_of(key))


cpdef uint64_t read_length(bytes data, Py_ssize_t start, Py_ssize_t end) except? 0:
    cdef const uint8_t *data_at = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef uint64_t length = 0
    cdef Py_ssize_t at
    _check_range(data, start, end - start)
    for at in range(start, end):
        length = length << 8 | data_at[at]
    return length


cdef class SoloMessage:
    """See `twisted_beastws.wire.raw.SoloMessage`: received into the place that it is delivered from.

    The place of a text is a ``str`` in ASCII. If other characters arrive, it holds their UTF-8 until the message is
    complete; only this object refers to it so long.
    """

    def __dealloc__(self):
        release(self._place)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        # The free part of the place, as far as there is any. The place must not move meanwhile.
        cdef Py_ssize_t size = min(self._room - self.size, MOST_AT_ONCE)
        if self._place == NULL:
            raise BufferError("the message was handed out")
        PyBuffer_FillInfo(buffer, self, self._start() + self.size, size, False, flags)
        self._lent += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self._lent -= 1

    cdef int _make_room(self, Py_ssize_t room) except -1:
        # If the memory is lacking, nothing more may be added.
        cdef Py_ssize_t length = self._length
        if self._lent:
            raise BufferError("the place is lent")
        self._length = 0
        if self._place == NULL:
            self._place = new_text(room, 0x7F) if self._text else new_bytes(NULL, room)
        elif self._text:
            PyUnicode_Resize(&self._place, room)
        else:
            _PyBytes_Resize(&self._place, room)
        self._room, self._length = room, length
        return 0

    cdef uint8_t *_start(self) except NULL:
        if self._text:
            return <uint8_t *>PyUnicode_DATA(<object>self._place)
        return <uint8_t *>PyBytes_AS_STRING(<object>self._place)

    cdef int add(self, bytes data, Py_ssize_t start, Py_ssize_t size, bytes key, bint checked) except -1:
        cdef const uint8_t *data_at = <const uint8_t *>PyBytes_AS_STRING(data) + start
        _check_range(data, start, size)
        if size > self._length - self.size:
            raise RuntimeError("more bytes than the frame has")
        if size > self._room - self.size:
            self._make_room(min(self._length, max(STEP * self._room, self.size + size)))
        return self._take(data_at, size, key, checked)

    cdef object place(self):
        if self.size == self._room:
            if self._room == self._length or self._lent:
                return None
            self._make_room(min(self._length, STEP * self._room))
        return self

    cdef int add_placed(self, Py_ssize_t size, bytes key, bint checked) except -1:
        if size < 0 or size > self._room - self.size:
            raise RuntimeError("more bytes than the place has")
        return self._take(self._start() + self.size, size, key, checked)

    cdef int _take(self, const uint8_t *data_at, Py_ssize_t size, bytes key, bint checked) except -1:
        # ``data_at`` may be the bytes' own place.
        cdef uint8_t *target = self._start() + self.size
        cdef uint64_t all_bits = 0
        if key is not None:
            all_bits = _unmask(target, data_at, size, _key_of(key))
        elif self._text and target == data_at:
            all_bits = _high_bits(target, size)
        elif self._text:
            all_bits = _unmask(target, data_at, size, <const uint8_t *>b"\0\0\0\0")
        elif target != data_at:
            memcpy(target, data_at, size)
        if self._text and (self._utf8.needed or all_bits & HIGH_BITS):
            self._wide = True
            # RFC 6455 §8.1: fail at the first bad byte, not at the message's end.
            if checked and not _is_utf8(&self._utf8, target, size):
                raise _BadFramePayload()
        self.size += size
        return 0

    cdef object message(self):
        # The place is handed out, or freed, at once: the application may need as much memory for its answer.
        if self.size != self._length or self._place == NULL:
            raise RuntimeError("the message is not complete")
        if self._utf8.needed:
            raise _BadFramePayload()
        # Python has objects for texts of one character.
        if self._text and (self._wide or self._length < 2):
            message = PyUnicode_DecodeUTF8(<const char *>self._start(), self._length, NULL)
        else:
            message = <object>self._place
        release(self._place)
        self._place = NULL
        return message


cpdef SoloMessage new_solo(bint text, uint64_t length):
    cdef SoloMessage solo = SoloMessage.__new__(SoloMessage)
    if not 0 < length <= <uint64_t>LONGEST:
        raise ValueError("a message has at least one byte, and at most as many as memory can have")
    solo._text = text
    solo._length = <Py_ssize_t>length
    cdef Py_ssize_t room = solo._length
    while room > AHEAD:
        room = 1 + (room - 1) // STEP
    solo._make_room(room)
    return solo


# Payloads to send: ``str``, bytes, or another object with a buffer.


cdef inline const uint8_t *_utf8_of(object text, Py_ssize_t *size) except NULL:
    # A text in ASCII is its own UTF-8. Python encodes any other once, and keeps that.
    if PyUnicode_IS_COMPACT_ASCII(text):
        size[0] = PyUnicode_GET_LENGTH(text)
        return <const uint8_t *>PyUnicode_DATA(text)
    return <const uint8_t *>PyUnicode_AsUTF8AndSize(text, size)


cdef Py_ssize_t _utf8_size(object text) except -1:
    # The length of a text in UTF-8 (RFC 3629 §3); 0 if it cannot be encoded.
    cdef int kind = PyUnicode_KIND(text)
    cdef const void *characters = PyUnicode_DATA(text)
    cdef Py_ssize_t at, length = PyUnicode_GET_LENGTH(text), size = length
    cdef Py_UCS4 character
    for at in range(length):
        character = PyUnicode_READ(kind, characters, at)
        if 0xD800 <= character <= 0xDFFF:
            return 0
        size += (character >= 0x80) + (character >= 0x800) + (character >= 0x10000)
    return size


cdef class WideText:
    """The UTF-8 of a long text with characters beyond ASCII, encoded step by step: most of it is never in memory."""

    def __len__(self):
        return self._size

    cdef int _put(self, uint8_t *target, Py_ssize_t size, const uint8_t *key) except -1:
        # The next ``size`` bytes of the text, masked; ``key`` is for the first of them.
        cdef Py_ssize_t part, done = 0
        cdef uint8_t turned[4]
        cdef int byte
        while done < size:
            if self._taken == PyBytes_GET_SIZE(self._step):
                self._step = self._text[self._next : self._next + STEP_LENGTH].encode()
                self._next += STEP_LENGTH
                self._taken = 0
                if not PyBytes_GET_SIZE(self._step):
                    raise RuntimeError("more bytes than the text has")
            part = min(size - done, PyBytes_GET_SIZE(self._step) - self._taken)
            for byte in range(4):
                turned[byte] = key[(done + byte) & 3]
            _unmask(target + done, <const uint8_t *>PyBytes_AS_STRING(self._step) + self._taken, part, turned)
            self._taken += part
            done += part
        return 0

    cdef bytes take(self, Py_ssize_t size):
        cdef bytes part = PyBytes_FromStringAndSize(NULL, size)
        self._put(<uint8_t *>PyBytes_AS_STRING(part), size, <const uint8_t *>b"\0\0\0\0")
        return part


cpdef object text_payload(object text, bint masks):
    cdef WideText wide
    cdef Py_ssize_t size
    if not PyUnicode_Check(text):
        raise TypeError("a text is str")
    if PyUnicode_GET_LENGTH(text) <= CACHED_TEXT or PyUnicode_IS_COMPACT_ASCII(text):
        return text
    # Python would keep the encoded bytes for as long as the text.
    if not masks or PyUnicode_GET_LENGTH(text) < STEP_LENGTH:
        return text.encode()
    size = _utf8_size(text)
    if not size:
        # Raises.
        return text.encode()
    wide = WideText.__new__(WideText)
    wide._text, wide._size, wide._step = text, size, b""
    return wide


cpdef Py_ssize_t payload_size(object payload) except -1:
    cdef Py_ssize_t size = 0
    if PyUnicode_Check(payload):
        _utf8_of(payload, &size)
        return size
    return len(payload)


cdef class TextBuffer:
    """The UTF-8 of a text in ASCII, without a copy."""

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, PyUnicode_DATA(self._text), PyUnicode_GET_LENGTH(self._text), True, flags)

    def __len__(self):
        return PyUnicode_GET_LENGTH(self._text)


cpdef object lasting_payload(object payload):
    cdef TextBuffer buffer
    if type(payload) is WideText:
        return payload
    if PyUnicode_Check(payload):
        if not PyUnicode_IS_COMPACT_ASCII(payload):
            return payload.encode()
        buffer = TextBuffer.__new__(TextBuffer)
        buffer._text = payload
        return buffer
    return payload if type(payload) is bytes or type(payload) is TextBuffer else bytes(payload)


cpdef object payload_source(object payload):
    return payload if type(payload) is WideText else memoryview(payload)


cpdef object take_piece(object source, Py_ssize_t at, Py_ssize_t size):
    return (<WideText>source).take(size) if type(source) is WideText else source[at : at + size]


cpdef object payload_bytes(object payload):
    if type(payload) is WideText:
        return (<WideText>payload).take((<WideText>payload)._size)
    return payload.encode() if isinstance(payload, str) else payload


cpdef bytes encode_header(int first, Py_ssize_t size):
    cdef uint8_t header[MOST_HEADER]
    cdef Py_ssize_t length = _header(header, first, size, None)
    return PyBytes_FromStringAndSize(<const char *>header, length)


cpdef bytes encode_frame(int first, object payload, bytes key=None):
    """Return a whole frame; ``first`` is its first byte (FIN, RSV and opcode), ``key`` masks it."""
    cdef Py_ssize_t size = 0
    cdef const uint8_t *encoded
    if PyUnicode_Check(payload):
        encoded = _utf8_of(payload, &size)
        return _framed(first, encoded, size, key)
    if isinstance(payload, bytes):
        return _framed(first, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), key)
    if type(payload) is WideText:
        return _framed_wide(first, payload, key)
    return _framed_view(first, payload, key)


cdef bytes _framed_wide(int first, WideText text, bytes key):
    cdef uint8_t header[MOST_HEADER]
    cdef Py_ssize_t length = _header(header, first, text._size, key)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, length + text._size)
    cdef uint8_t *target = <uint8_t *>PyBytes_AS_STRING(frame)
    memcpy(target, header, length)
    text._put(target + length, text._size, <const uint8_t *>b"\0\0\0\0" if key is None else _key_of(key))
    return frame


cdef bytes _framed_view(int first, const uint8_t[::1] view, bytes key):
    return _framed(first, &view[0] if view.shape[0] else NULL, view.shape[0], key)


cdef int _put_at(bytearray target, Py_ssize_t at, int first, const uint8_t *payload, Py_ssize_t size, bytes key) except -1:
    cdef uint8_t header[MOST_HEADER]
    cdef uint8_t *place
    cdef Py_ssize_t length = 2, room = PyByteArray_GET_SIZE(target) - at
    if at < 0 or room < 0:
        raise RuntimeError("no room for the frame")
    place = <uint8_t *>PyByteArray_AS_STRING(target) + at
    if key is None and size < 126:
        if size > room - 2:
            raise RuntimeError("no room for the frame")
        place[0], place[1] = <uint8_t>first, <uint8_t>size
        if size:
            memcpy(place + 2, payload, size)
        return 0
    length = _header(header, first, size, key)
    if size > room - length:
        raise RuntimeError("no room for the frame")
    _put(place, header, length, payload, size, key)
    return 0


cpdef int put_frame(bytearray target, Py_ssize_t at, int first, object payload, bytes key) except -1:
    cdef Py_ssize_t size = 0
    cdef const uint8_t *encoded
    if PyUnicode_Check(payload):
        encoded = _utf8_of(payload, &size)
        return _put_at(target, at, first, encoded, size, key)
    if isinstance(payload, bytes):
        return _put_at(
            target, at, first, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), key
        )
    if type(payload) is WideText:
        # What is gathered has at most 64 KiB.
        return put_frame(target, at, first, payload_bytes(payload), key)
    return _put_view(target, at, first, payload, key)


cdef int _put_view(bytearray target, Py_ssize_t at, int first, const uint8_t[::1] view, bytes key) except -1:
    return _put_at(target, at, first, &view[0] if view.shape[0] else NULL, view.shape[0], key)


cpdef bytes copy_start(bytearray source, Py_ssize_t size):
    if size < 0 or size > PyByteArray_GET_SIZE(source):
        raise ValueError("so many bytes are not there")
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(source), size)


# Heads of requests.


cdef extern from *:
    """
    /* The characters of a token (RFC 9110 §5.6.2), of a target (RFC 9112 §3.2) and of a value (RFC 9110 §5.5). */
    enum { TCHAR = 1, TARGET_CHAR = 2, VALUE_CHAR = 4 };
    static unsigned char kinds[256];
    static void fill_kinds(void) {
        const char *each = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        int at;
        for (at = 0; at < 256; at++) {
            if (at > ' ' && at < 0x7F && at != '#') kinds[at] |= TARGET_CHAR;
            if (at == '\t' || (at >= ' ' && at != 0x7F)) kinds[at] |= VALUE_CHAR;
        }
        for (; *each; each++) kinds[(unsigned char)*each] |= TCHAR;
    }
    """
    const uint8_t kinds[256]
    const uint8_t TCHAR, TARGET_CHAR, VALUE_CHAR
    void fill_kinds()

fill_kinds()

cdef bytes _CONTENT_LENGTH = b"Content-Length"
cdef bytes _TRANSFER_ENCODING = b"Transfer-Encoding"


cdef bytes _capitalised(const uint8_t *name, Py_ssize_t size):
    # In Capitalised-Words.
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t *target = <uint8_t *>PyBytes_AS_STRING(result)
    cdef uint8_t byte, before = c"-"
    cdef Py_ssize_t at
    for at in range(size):
        byte = name[at]
        if before == c"-":
            if c"a" <= byte <= c"z":
                byte -= 32
        elif c"A" <= byte <= c"Z":
            byte += 32
        target[at] = before = byte
    return result


def usual_request(bytearray buffer not None, Py_ssize_t max_size, Py_ssize_t max_lines, dict spellings not None):
    """Read the head with which ``buffer`` begins, if it is whole, and as nearly every client sends it.

    llhttp reads all other heads: those with a fault, a body, an empty value, another method than GET, or another
    version than 1.1.

    Args:
        buffer: The bytes that arrived.
        max_size: The most bytes of the head.
        max_lines: The most lines of it, excluding the empty line.
        spellings: The names of fields that are not spelled in Capitalised-Words, and names that connections share.

    Returns:
        The target, the fields by name, and the size of the head; or None.
    """
    cdef const uint8_t *data_at = <const uint8_t *>PyByteArray_AS_STRING(buffer)
    cdef Py_ssize_t end = min(PyByteArray_GET_SIZE(buffer), max_size)
    cdef Py_ssize_t start, stop, at = 5, lines = 1
    cdef bytes name, value
    cdef dict fields = {}
    cdef list values
    if end < 18 or memcmp(data_at, b"GET /", 5):
        return None
    while at < end and kinds[data_at[at]] & TARGET_CHAR:
        at += 1
    if end - at < 11 or memcmp(data_at + at, b" HTTP/1.1\r\n", 11):
        return None
    target = PyUnicode_DecodeASCII(<const char *>data_at + 4, at - 4, NULL)
    at += 11
    # Each turn reads one line. Two bytes at least are there where it begins.
    while end - at >= 2:
        if data_at[at] == c"\r":
            if data_at[at + 1] != c"\n" or lines > max_lines:
                return None
            return target, fields, at + 2
        start = at
        while at < end and kinds[data_at[at]] & TCHAR:
            at += 1
        if at == start or at == end or data_at[at] != c":":
            return None
        name = _capitalised(data_at + start, at - start)
        at += 1
        while at < end and (data_at[at] == c" " or data_at[at] == c"\t"):
            at += 1
        start = at
        while at < end and kinds[data_at[at]] & VALUE_CHAR:
            at += 1
        if end - at < 2 or data_at[at] != c"\r" or data_at[at + 1] != c"\n":
            return None
        stop = at
        while stop > start and (data_at[stop - 1] == c" " or data_at[stop - 1] == c"\t"):
            stop -= 1
        if stop == start or name == _CONTENT_LENGTH or name == _TRANSFER_ENCODING:
            return None
        value = PyBytes_FromStringAndSize(<const char *>data_at + start, stop - start)
        name = spellings.get(name, name)
        values = fields.get(name)
        if values is None:
            fields[name] = [value]
        else:
            values.append(value)
        at += 2
        lines += 1
    return None


def joined_fields(dict fields not None):
    """See `twisted_beastws.wire.raw.joined_fields`."""
    cdef list parts = []
    for name, values in fields.items():
        for value in values:
            parts.append(name)
            parts.append(b":")
            parts.append(value)
            parts.append(b"\n")
    if parts:
        parts.pop()
    return b"".join(parts)
