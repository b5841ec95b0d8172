cimport cython
from libc.stdint cimport uint64_t

from twisted_beastws.wire._direct cimport leave_by
from twisted_beastws.wire._speedups cimport copy_start, encode_frame, encode_header, lasting_payload, payload_bytes, payload_size, payload_source, put_frame, take_piece, text_payload

cdef int FIN, FIN_BINARY, FIN_TEXT
cdef Py_ssize_t GATHER_LIMIT
cdef uint64_t UNLIMITED
cdef bytearray _gathered
cdef FrameWriter _gatherer

@cython.final
cdef class FrameWriter:
    cdef object __weakref__
    cdef public object sink, backlog
    cdef public uint64_t fragment_size
    cdef readonly bint server, sendable, closed
    cdef readonly Py_ssize_t gathered_size
    cdef bint _corked

    @cython.locals(first=cython.int)
    cdef _send_prepared(self, object message)
    cdef _send(self, int first, object payload)
    cpdef hold(self)
    cpdef release(self)
    cpdef close(self)
    cpdef way_past(self, Py_ssize_t size)
    @cython.locals(size=Py_ssize_t, key=bytes)
    cpdef emit(self, int first, object payload)
    @cython.locals(size=Py_ssize_t)
    cpdef emit_frame(self, int first, bytes frame)
    cdef _write(self, int first, bytes frame)
    cdef _write_long(self, int first, object payload)
    @cython.locals(long=cython.bint, fin=cython.int, opcode=cython.int, last=cython.int, end=Py_ssize_t, at=Py_ssize_t, size=Py_ssize_t)
    cpdef emit_pieces(self, int first, object payload)
    cpdef cork(self)
    cpdef uncork(self)
    cpdef flush(self)
    cdef bint _gathers(self, Py_ssize_t size) except -1
    cdef _has_gathered(self, Py_ssize_t size)
    @cython.locals(frames=bytes)
    cdef _flush(self, bytes last)
    @cython.locals(gone=Py_ssize_t)
    cdef bint _left_at_once(self, bytes frames) except -1
