cimport cython
from libc.stdint cimport uint64_t

from twisted_beastws.wire._speedups cimport SoloMessage as CompiledSolo, new_solo, read_length, take_bytes, take_part, take_text
from twisted_beastws.wire._turns cimport TurnBudget as CompiledBudget
from twisted_beastws.wire._writer cimport FrameWriter as CompiledWriter

cdef int FIN, FIN_BINARY, FIN_TEXT, PAUSED, RESERVED, RSV1, RUNNING, STOPPED
cdef uint64_t GATHER_LIMIT, SOLO_LIMIT, UNLIMITED
cdef double LEAP

@cython.final
cdef class FrameReader:
    cdef object __weakref__
    cdef public object on_text, on_binary, handler, payloads, wall, message_began_at
    cdef readonly object now
    cdef public double received_at, lead
    cdef public bint accepts_rsv1, whole, unfinished, compressed
    cdef readonly bint server
    cdef readonly int halted, message_opcode
    cdef public uint64_t message_size, max_frame_size, max_message_size
    cdef readonly uint64_t remaining
    cdef readonly CompiledBudget budget
    cdef CompiledWriter _writer
    cdef object _events
    cdef bytes _partial, _key
    cdef CompiledSolo _solo
    cdef bint _awaits_much, _feeding

    cpdef feed(self, bytes data)
    cpdef place(self)
    cpdef placed(self, Py_ssize_t size)
    @cython.locals(wall=cython.double)
    cdef _begin_chunk(self)
    cpdef next_turn(self)
    cpdef pause(self)
    cpdef resume(self)
    cpdef stop(self)
    cdef _run(self, bytes data, Py_ssize_t placed=*)
    @cython.locals(position=Py_ssize_t, fed_meanwhile=bytes)
    cdef _parse(self, bytes data)
    @cython.locals(
        position=Py_ssize_t, end=Py_ssize_t, start=Py_ssize_t, key_at=Py_ssize_t, room=Py_ssize_t, length=uint64_t,
        least=uint64_t, first=cython.int, second=cython.int, simple=cython.bint, budget=CompiledBudget, key=bytes
    )
    cdef Py_ssize_t _parse_chunk(self, bytes data) except -1
    @cython.locals(opcode=cython.int)
    cdef _check_first(self, int first, uint64_t length)
    cpdef too_big(self)
    cdef _deliver(self, int first, bytes data, Py_ssize_t start, Py_ssize_t size, Py_ssize_t key_at)
    cpdef call_hook(self, object hook, object message)
    cdef _begin(self, int first, uint64_t length, bytes key)
    cdef _begin_solo(self, int first, uint64_t length, bytes key)
    cdef _continue_in_place(self, Py_ssize_t size)
    @cython.locals(turn=cython.int, key=bytes)
    cdef bytes _use_key(self, Py_ssize_t size)
    @cython.locals(size=Py_ssize_t, key=bytes)
    cdef Py_ssize_t _continue_payload(self, bytes data, Py_ssize_t position, Py_ssize_t end) except -1
    cdef _end_solo(self, CompiledSolo solo)
    cpdef begin_message(self, int opcode)
    cpdef end_message(self, bint whole)
    cpdef drop_message(self)
