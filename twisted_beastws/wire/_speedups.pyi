from twisted_beastws.wire.frames import apply_mask as apply_mask
from twisted_beastws.wire.frames import clear_send as clear_send
from twisted_beastws.wire.frames import encode_frame as encode_frame
from twisted_beastws.wire.reader import FrameReader as FrameReader
from twisted_beastws.wire.turns import TurnBudget as TurnBudget
from twisted_beastws.wire.writer import FrameWriter as FrameWriter
