from twisted_beastws.wire.reader import FrameReader as FrameReader
