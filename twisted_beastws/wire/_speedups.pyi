from twisted_beastws.wire.frames import FrameCodec as FrameCodec
from twisted_beastws.wire.frames import apply_mask as apply_mask
from twisted_beastws.wire.frames import clear_send as clear_send
from twisted_beastws.wire.frames import encode_frame as encode_frame
