from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t

cpdef bytes take_bytes(bytes data, Py_ssize_t start, Py_ssize_t size, Py_ssize_t key_at)
cpdef object take_text(bytes data, Py_ssize_t start, Py_ssize_t size, Py_ssize_t key_at)
cpdef bytes take_part(bytes data, Py_ssize_t start, Py_ssize_t size, bytes key)
cpdef uint64_t read_length(bytes data, Py_ssize_t start, Py_ssize_t end) except? 0
cpdef object text_payload(object text, bint masks)
cpdef Py_ssize_t payload_size(object payload) except -1
cpdef object lasting_payload(object payload)
cpdef object payload_source(object payload)
cpdef object take_piece(object source, Py_ssize_t at, Py_ssize_t size)
cpdef object payload_bytes(object payload)
cpdef bytes encode_header(int first, Py_ssize_t size)
cpdef bytes encode_frame(int first, object payload, bytes key=*)
cpdef int put_frame(bytearray target, Py_ssize_t at, int first, object payload, bytes key) except -1
cpdef bytes copy_start(bytearray source, Py_ssize_t size)
cpdef SoloMessage new_solo(bint text, uint64_t length)

cdef struct Utf8:
    # The continuation bytes that a character still needs, and the range of the next.
    uint8_t needed, low, high

cdef class TextBuffer:
    cdef object _text

cdef class WideText:
    cdef object _text
    cdef Py_ssize_t _size, _next, _taken
    cdef bytes _step
    cdef int _put(self, uint8_t *target, Py_ssize_t size, const uint8_t *key) except -1
    cdef bytes take(self, Py_ssize_t size)

cdef class SoloMessage:
    cdef PyObject *_place
    cdef Py_ssize_t _room, _length
    cdef bint _text, _wide
    cdef int _lent
    cdef Utf8 _utf8
    cdef readonly Py_ssize_t size
    cdef int _make_room(self, Py_ssize_t room) except -1
    cdef uint8_t *_start(self) except NULL
    cdef int add(self, bytes data, Py_ssize_t start, Py_ssize_t size, bytes key, bint checked) except -1
    cdef object place(self)
    cdef int add_placed(self, Py_ssize_t size, bytes key, bint checked) except -1
    cdef int _take(self, const uint8_t *data_at, Py_ssize_t size, bytes key, bint checked) except -1
    cdef object message(self)
