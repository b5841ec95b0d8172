# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=True
"""The compiled `clear_send` and `leave_by` of `twisted_beastws.wire.direct`: no call creates a Python object."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import _socket

cdef extern from *:
    """
    #ifdef _WIN32
    #define CAN_SEND_NOW 0
    #define send_now(descriptor, data, size) (-1)
    #else
    #define CAN_SEND_NOW 1
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #define send_now(descriptor, data, size) send(descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    #endif
    """
    const bint CAN_SEND_NOW
    Py_ssize_t send_now(int descriptor, const char *data, Py_ssize_t size)


cdef object _socket_send = _socket.socket.send
cdef object _socket_fileno = _socket.socket.fileno


@cython.final
cdef class ClearSend:
    """The ``send`` of a socket; see `clear_send`."""

    # A nested function and the bound ``send`` would take 300 bytes of each connection, and this object 64.

    def __call__(self, data):
        return 0 if self._transport.TLS else self._socket.send(data)

    cdef int descriptor(self) except -2:
        """Return the socket's descriptor, or -1 if `send` must not use it.

        The socket may be closed at any time, so nothing may keep its descriptor.
        """
        return -1 if not self._is_systems or self._transport.TLS else <int>_socket_fileno(self._socket)

    cdef Py_ssize_t send(self, bytes data) except -2:
        """Send as the call does, but return -1 where that would raise OSError."""
        cdef int descriptor
        if not self._is_systems:
            return self(data)
        descriptor = self.descriptor()
        if descriptor < 0:
            return 0
        return send_now(descriptor, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def clear_send(transport, socket):
    """Return the ``send`` of a socket, made to take nothing once ``transport.TLS`` says that TLS was started."""
    cdef ClearSend clear = ClearSend.__new__(ClearSend)
    clear._transport, clear._socket = transport, socket
    # A subclass may have a ``send`` of its own.
    kind = type(socket)
    clear._is_systems = (
        CAN_SEND_NOW
        and isinstance(socket, _socket.socket)
        and kind.send is _socket_send
        and kind.fileno is _socket_fileno
    )
    return clear


cpdef Py_ssize_t leave_by(object at_once, bytes data) except -1:
    cdef Py_ssize_t gone
    try:
        gone = (<ClearSend>at_once).send(data) if type(at_once) is ClearSend else at_once(data)
    except OSError:
        return 0
    return gone if gone > 0 else 0
