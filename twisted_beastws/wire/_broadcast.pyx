# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=True
"""The compiled `twisted_beastws.wire.direct.send_at_once`."""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.object cimport PyObject

from twisted_beastws.wire._direct cimport ClearSend
from twisted_beastws.wire._writer cimport FrameWriter
from twisted_beastws.wire.frames import GATHER_LIMIT

cdef extern from "Python.h":
    bint PyMethod_Check(object method)
    PyObject *PyMethod_GET_SELF(object method)

cdef enum:
    # The data of so many connections stays in the near caches until they are sent to.
    SLICE = 32

cdef Py_ssize_t LONGEST = GATHER_LIMIT


cdef FrameWriter _writer_of(object connection):
    send = connection.send
    if PyMethod_Check(send):
        # A borrowed reference.
        writer = <object>PyMethod_GET_SELF(send)
        if type(writer) is FrameWriter:
            return <FrameWriter>writer
    return None


cdef ClearSend _way_past(FrameWriter writer, Py_ssize_t size):
    # Looks at all that sending will look at, too.
    at_once = writer.way_past(size)
    if type(at_once) is ClearSend and (<ClearSend>at_once).descriptor() >= 0:
        return <ClearSend>at_once
    return None


def send_at_once(list connections not None, bytes payload not None, bytes frame not None, failed):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload), length = PyBytes_GET_SIZE(frame), count = len(connections)
    cdef Py_ssize_t begin = 0, end, at, gone
    cdef FrameWriter writer
    cdef ClearSend way
    cdef list writers, ways, others = []
    if length >= LONGEST:
        return list(range(count))
    while begin < count:
        end = min(count, begin + SLICE)
        # One loop for each step: the processor loads the data of several connections at the same time.
        writers = [_writer_of(connections[at]) for at in range(begin, end)]
        ways = [None if writer is None else _way_past(writer, size) for writer in writers]
        for at in range(begin, end):
            way = ways[at - begin]
            gone = -1 if way is None else way.send(frame)
            if gone == length:
                continue
            if gone <= 0:
                others.append(at)
                continue
            # This may end connections, also some that were looked at.
            writer, end = writers[at - begin], at + 1
            try:
                writer.sink.write_rest(frame, gone)
            except Exception:
                failed(connections[at])
            break
        begin = end
    return others
