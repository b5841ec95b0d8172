from twisted_beastws.wire.writer import FrameWriter as FrameWriter
