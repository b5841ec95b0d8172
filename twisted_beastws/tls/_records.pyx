# cython: language_level=3, boundscheck=True, wraparound=False
"""The compiled record path: OpenSSL called through the function pointers of pyOpenSSL's own binding.

`twisted_beastws.tls.records` decides which connections use it. Every call holds the GIL, because OpenSSL may call back
into Python (session tickets, keys for a log, renegotiation). All memory belongs to one call: other threads may run a
reactor of their own.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport uintptr_t

from twisted_beastws.wire._direct cimport leave_by

cdef extern from "Python.h":
    object PyObject_GenericGetAttr(object, object)
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    void release "Py_DECREF"(PyObject *data)

ctypedef int (*Transfer)(void *, void *, int) noexcept
ctypedef int (*Outcome)(void *, int) noexcept
ctypedef int (*Step)(void *) noexcept

cdef Transfer ssl_read = NULL, ssl_write = NULL, bio_read = NULL, bio_write = NULL
cdef Outcome ssl_get_error = NULL
cdef Step ssl_do_handshake = NULL
cdef object plain_write = None, new_failure = None, tls_error = None, want_read = None, listens = None

cdef enum:
    # ssl.h: the same in every version of OpenSSL.
    FAILED = 1
    WANT_READ = 2
    SYSTEM_FAILED = 5
    # RFC 8446 §5.1: the most that a record carries.
    RECORD = 1 << 14
    # Received bytes given to OpenSSL between two looks at what it made of them, so that its buffers stay small.
    SLICE = 1 << 16
    # Bytes encrypted for one call of the system: a call costs some 10 us, and a slow reader leaves as many waiting.
    SENT_SLICE = 1 << 17
    # Data up to this size passes through the C stack.
    SMALL = 1 << 13
    # A record's header, tag, initialization vector and padding, generously.
    OVERHEAD = 320
    # Twisted's ``bufferSize``, 64 KiB: what TLS itself may answer a peer that does not read. A key update has 27 bytes.
    MOST_ANSWERS = 1 << 16


def bind(
    *,
    uintptr_t read,
    uintptr_t write,
    uintptr_t from_bio,
    uintptr_t into_bio,
    uintptr_t error,
    uintptr_t handshake,
    protocol,
    failure,
    listener,
    trouble,
    more,
):
    """Take the addresses of functions, and the classes and interfaces that the code needs.

    The functions are SSL_read, SSL_write, BIO_read, BIO_write, SSL_get_error and SSL_do_handshake. The others are Twisted's
    TLS protocol, its Failure and IHandshakeListener, and pyOpenSSL's Error and WantReadError.
    """
    global ssl_read, ssl_write, bio_read, bio_write, ssl_get_error, ssl_do_handshake
    global plain_write, new_failure, tls_error, want_read, listens
    ssl_read, ssl_write = <Transfer>read, <Transfer>write
    bio_read, bio_write = <Transfer>from_bio, <Transfer>into_bio
    ssl_get_error = <Outcome>error
    ssl_do_handshake = <Step>handshake
    plain_write = protocol._write
    new_failure, tls_error, want_read = failure, trouble, more
    listens = listener.providedBy


cdef inline object _attribute(protocol, str name):
    # The attribute must exist. Python's usual lookup also prepares a call of the class's ``__getattr__``, which takes time.
    return PyObject_GenericGetAttr(protocol, name)


cdef inline bytes _as_bytes(data):
    # Twisted's own TLS takes any object with bytes in it, too.
    return data if type(data) is bytes else bytes(memoryview(data))


cdef bytes _cut(PyObject *data, Py_ssize_t size):
    # The first bytes of ``data``, whose reference is taken over; None for none.
    if not size:
        release(data)
        return None
    _PyBytes_Resize(&data, size)
    result = <bytes>data
    release(data)
    return result


cdef _take_trouble(protocol):
    # Why OpenSSL reads no more, without leaving it in OpenSSL's queue of errors.
    try:
        protocol._tlsConnection.recv(1)
    except Exception as error:
        return error


cdef _end_for(protocol, trouble):
    # End TLS as Twisted does; what a callback of the application raised is the transport's.
    if not isinstance(trouble, tls_error):
        raise trouble
    protocol._tlsShutdownFinished(new_failure(trouble))


cdef bint _callback_failed(connection) except -1:
    # Whether pyOpenSSL keeps an exception of the application's callback, and must raise it.
    try:
        context = connection._context
        for helper in (context._verify_helper, context._alpn_select_helper, context._ocsp_helper):
            if helper is not None and helper._problems:
                return True
    except AttributeError:
        # Another version of pyOpenSSL: ask its own code.
        return True
    return False


cdef class Records:
    """Reads and writes the records of one `TLSMemoryBIOProtocol` of Twisted's, and takes the steps of its handshake.

    Alerts, errors and the end are left to the protocol's own code, which this calls.

    Where the records go directly to a socket, the transport below has those that the socket did not take. ``_behind``:
    something may still wait there.

    Attributes:
        handle: The ``SSL*`` as the binding has it, which keeps the memory.
    """

    cdef readonly object handle
    cdef object _protocol, _socket_send, _waits, _paused
    cdef Py_ssize_t _answers
    cdef void *_ssl
    cdef void *_into
    cdef void *_from
    cdef bint _ready, _receiving, _more, _behind
    cdef bytes _later
    cdef object __weakref__

    def __init__(self, protocol, handle, uintptr_t ssl, uintptr_t into_ssl, uintptr_t from_ssl):
        if ssl_read == NULL:
            raise RuntimeError("bind() was not called")
        if not (ssl and into_ssl and from_ssl):
            raise ValueError("the connection has no memory BIOs")
        # A reference would be a cycle: the protocol calls our methods.
        self._protocol = PyWeakref_NewRef(protocol, None)
        self.handle = handle
        self._ssl, self._into, self._from = <void *>ssl, <void *>into_ssl, <void *>from_ssl

    cdef bint _is_ready(self, protocol) except -1:
        # Whether there is nothing but data to expect.
        if not self._ready:
            self._ready = _attribute(protocol, "_handshakeDone")
        return self._ready and not _attribute(protocol, "_appSendBuffer")

    # Receiving.

    def data_received(self, chunk):
        """Decrypt what the transport received, and deliver it."""
        cdef bytes data = _as_bytes(chunk)
        protocol = self._protocol()
        if protocol is None or _attribute(protocol, "_lostTLSConnection"):
            return
        if self._receiving:
            # Called by what it delivers to: this comes behind the chunk that is under way.
            self._later = data if self._later is None else self._later + data
            return
        self._receiving = True
        try:
            self._receive(protocol, data)
            while self._later is not None:
                data, self._later = self._later, None
                self._receive(protocol, data)
        finally:
            self._receiving = False
            self._later = None

    cdef _receive(self, protocol, bytes data):
        cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(data), part
        cdef char *source = PyBytes_AS_STRING(data)
        while at < size and not _attribute(protocol, "_lostTLSConnection"):
            part = min(size - at, <Py_ssize_t>SLICE)
            if bio_write(self._into, source + at, <int>part) != part:
                raise MemoryError("OpenSSL has no memory for what was received")
            at += part
            if (self._is_ready(protocol) or self._becomes_ready(protocol)) and not self._deliver(protocol, part):
                return
        self._flush(protocol)

    cdef bint _becomes_ready(self, protocol) except -1:
        # Do what comes before data, in the order of Twisted's ``dataReceived``; returns whether data may come now.
        if not _attribute(protocol, "_handshakeDone"):
            self._check_handshake(protocol)
            if not _attribute(protocol, "_handshakeDone"):
                return False
        if _attribute(protocol, "_appSendBuffer"):
            protocol._unbufferPendingWrites()
        return not _attribute(protocol, "_lostTLSConnection")

    cdef bint _deliver(self, protocol, Py_ssize_t size) except -1:
        # Deliver the data in the last ``size`` bytes; returns whether TLS has not ended.
        cdef int outcome
        cdef bytes plain = self._decrypt(size, &outcome)
        trouble = None
        if plain is not None and (outcome == FAILED or outcome == SYSTEM_FAILED):
            # The thread's connections share one queue of errors: the application must not meet ours there.
            trouble = _take_trouble(protocol)
        if plain is not None and not _attribute(protocol, "_aborted"):
            _attribute(protocol, "wrappedProtocol").dataReceived(plain)
        if _attribute(protocol, "_lostTLSConnection"):
            return False
        if trouble is not None:
            _end_for(protocol, trouble)
        elif outcome != WANT_READ or (plain is None and _callback_failed(_attribute(protocol, "_tlsConnection"))):
            # The end, an error, or a message of TLS itself, whose callback failed.
            protocol._flushReceiveBIO()
        return True

    cdef bytes _decrypt(self, Py_ssize_t size, int *outcome):
        # The data in the ``size`` bytes that the BIO was given last, or None. SSL_read needs no more than fits below:
        # of what came before, less than a record is left.
        cdef char small[SMALL + RECORD]
        cdef Py_ssize_t room = size + RECORD, done = 0
        cdef int got
        cdef PyObject *large = NULL
        cdef char *target = small
        if size > SMALL:
            large = new_bytes(NULL, room)
            target = PyBytes_AS_STRING(<object>large)
        while done < room:
            got = ssl_read(self._ssl, target + done, <int>(room - done))
            if got <= 0:
                break
            done += got
        outcome[0] = ssl_get_error(self._ssl, got) if got <= 0 else 0
        if large != NULL:
            return _cut(large, done)
        return PyBytes_FromStringAndSize(small, done) if done else None

    def flush(self):
        """Write what OpenSSL has to say of its own: the handshake, alerts, answers to key updates, tickets."""
        protocol = self._protocol()
        if protocol is not None:
            self._flush(protocol)

    cdef _flush(self, protocol):
        cdef char answer[SMALL]
        cdef int got
        while True:
            got = bio_read(self._from, answer, SMALL)
            if got <= 0:
                return
            if not self._put(protocol, PyBytes_FromStringAndSize(answer, got)) and self._socket_send is not None:
                self._answers += got
                if self._answers > MOST_ANSWERS:
                    # Each key update asks for one, and the peer takes none.
                    protocol.abortConnection()
                    return

    cdef bint _put(self, protocol, bytes records) except -1:
        # Give records to the socket if nothing waits before them, the rest to the transport below; returns whether the
        # socket took all. An alert that comes with an abort must not arrive, or the peer would take it for a clean end.
        cdef Py_ssize_t sent = 0
        if _attribute(protocol, "_aborted"):
            return True
        if self._socket_send is not None and (not self._behind or not self._waits()):
            self._answers = 0
            # After an error of the socket the transport meets the same, and does as Twisted does.
            sent = leave_by(self._socket_send, records)
            if sent == PyBytes_GET_SIZE(records):
                self._behind = False
                return True
        self._behind = True
        protocol.transport.write(records[sent:] if sent else records)
        return False

    cdef bint _put_data(self, protocol, bytes records) except -1:
        if self._put(protocol, records):
            return True
        if self._paused is not None and protocol._producer is not None and not self._paused.producerPaused:
            # The transport resumes its producer when it has nothing left.
            self._paused.producerPaused = True
            protocol._producer.pauseProducing()
        return False

    # The handshake.

    def check_handshake(self):
        """Take the next step of the handshake, as the protocol's ``_checkHandshakeStatus`` does."""
        protocol = self._protocol()
        if protocol is not None:
            self._check_handshake(protocol)

    cdef _check_handshake(self, protocol):
        cdef int result
        if _attribute(protocol, "_aborted"):
            return
        # A callback may lose the connection, and then the protocol has no more of it.
        connection = _attribute(protocol, "_tlsConnection")
        result = ssl_do_handshake(self._ssl)
        if _callback_failed(connection) or (result <= 0 and ssl_get_error(self._ssl, result) != WANT_READ):
            try:
                connection._raise_ssl_error(self.handle, result)
            except want_read:
                result = 0
            except tls_error as error:
                protocol._tlsShutdownFinished(new_failure(error))
                return
        if result <= 0:
            self._flush(protocol)
            return
        protocol._handshakeDone = True
        application = _attribute(protocol, "wrappedProtocol")
        if listens(application):
            application.handshakeCompleted()

    # Sending.

    def sender(self, send, waits, paused):
        """Return `send`.

        Args:
            send: The ``send`` of the socket below, to which all records go from now on while nothing waits. It takes
                nothing once TLS is spoken below as well: then all goes through that.
            waits: Returns whether any bytes wait in the transport of that socket.
            paused: That transport, if its ``producerPaused`` must be set when its producer is paused here.
        """
        self._socket_send, self._waits, self._paused = send, waits, paused
        self._behind, self._answers = True, 0
        return self.send

    def write_at_once(self, protocol):
        """Take over the protocol's ``write``, which would gather until the reactor's next turn."""
        aggregator = getattr(protocol, "_aggregator", None)
        if aggregator is not None:
            aggregator.flush()
        protocol.write, protocol.writeSequence = self.write, self.write_sequence

    def write(self, data):
        """Encrypt and write ``data`` at once, as the protocol's own ``write`` does in the reactor's next turn."""
        protocol = self._protocol()
        if protocol is not None and not (protocol.disconnecting and protocol._producer is None):
            self.write_records(data)

    def write_sequence(self, parts):
        """As `write`."""
        self.write(b"".join(parts))

    def write_records(self, plain):
        """Encrypt data and write it to the transport below."""
        cdef bytes data = _as_bytes(plain)
        cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(data)
        cdef bytes records
        protocol = self._protocol()
        if protocol is None or _attribute(protocol, "_lostTLSConnection"):
            return
        while at < size and self._is_ready(protocol):
            records = self._encrypt(PyBytes_AS_STRING(data), size, &at)
            if records is None:
                break
            self._put_data(protocol, records)
        self._finish_write(protocol, data, at, size)

    def send(self, data):
        """Encrypt ``data`` and give it to the system, as a socket's ``send``; returns how much was encrypted.

        Once the system takes no more, the transport below has the rest of the records. It pauses its producer then.
        """
        cdef Py_buffer view
        cdef Py_ssize_t at = 0
        cdef bytes records
        protocol = self._protocol()
        if protocol is None or _attribute(protocol, "_lostTLSConnection"):
            return len(data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while at < view.len and self._is_ready(protocol):
                records = self._encrypt(<char *>view.buf, view.len, &at)
                if records is None:
                    break
                if not self._put_data(protocol, records):
                    self._finish_write(protocol, b"", 0, 0)
                    return at
            self._finish_write(protocol, data, at, view.len)
            return view.len
        finally:
            PyBuffer_Release(&view)

    cdef _finish_write(self, protocol, data, Py_ssize_t at, Py_ssize_t size):
        if self._more:
            self._more = False
            self._flush(protocol)
        if at < size:
            # Before the handshake is complete, or OpenSSL fails or waits for the peer: the protocol's code has the rest.
            plain_write(protocol, bytes(data[at:]))

    cdef bytes _encrypt(self, char *data, Py_ssize_t whole, Py_ssize_t *at):
        # The records of the next `SENT_SLICE` of data; None if OpenSSL takes no data now.
        cdef char small[SMALL + 2 * OVERHEAD]
        cdef Py_ssize_t size = min(whole - at[0], <Py_ssize_t>SENT_SLICE), taken = 0, filled = 0
        cdef Py_ssize_t room = size + (size // RECORD + 2) * OVERHEAD
        cdef char *source = data + at[0]
        cdef char *target = small
        cdef PyObject *large = NULL
        cdef int got
        if size > SMALL:
            large = new_bytes(NULL, room)
            target = PyBytes_AS_STRING(<object>large)
        while taken < size and room - filled > OVERHEAD:
            got = ssl_write(self._ssl, source + taken, <int>min(size - taken, <Py_ssize_t>RECORD))
            if got <= 0:
                break
            taken += got
            filled += max(bio_read(self._from, target + filled, <int>(room - filled)), 0)
        # A ticket or the like may have been in the way.
        self._more = filled == room
        at[0] += taken
        if large != NULL:
            return _cut(large, filled)
        return PyBytes_FromStringAndSize(small, filled) if filled else None
