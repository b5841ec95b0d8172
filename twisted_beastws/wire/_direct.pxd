cpdef Py_ssize_t leave_by(object at_once, bytes data) except -1

cdef class ClearSend:
    cdef object _transport, _socket
    cdef bint _is_systems
    cdef int descriptor(self) except -2
    cdef Py_ssize_t send(self, bytes data) except -2
