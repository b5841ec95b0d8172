cimport cython
from libc.stdint cimport uint64_t

cdef Py_ssize_t GATHER_LIMIT
cdef uint64_t UNLIMITED, LOOK_EVERY
cdef double FOREVER

@cython.final
cdef class TurnBudget:
    cdef public bint one_chunk_a_turn
    cdef readonly bint spent
    cdef uint64_t frames_left, look_at
    cdef object _now
    cdef double _seconds, _began, _used
    cdef bint _awaited, _continues
    cdef uint64_t _frames, _step

    cpdef set(self, uint64_t frames, object seconds)
    cpdef renew(self)
    cdef begin_rest(self)
    cdef begin_chunk(self, double now)
    cdef bint end_chunk(self, Py_ssize_t size, bint stopped) except -1
    cdef stop(self)
    cdef void _look_soon(self) noexcept
    cdef bint look(self) except -1
    cpdef bint out_of_time(self) except -1
