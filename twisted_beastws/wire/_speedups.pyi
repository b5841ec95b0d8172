from twisted_beastws.wire.frames import apply_mask as apply_mask
from twisted_beastws.wire.raw import copy_start as copy_start
from twisted_beastws.wire.raw import encode_frame as encode_frame
from twisted_beastws.wire.raw import joined_fields as joined_fields
from twisted_beastws.wire.raw import payload_bytes as payload_bytes
from twisted_beastws.wire.raw import payload_size as payload_size
from twisted_beastws.wire.raw import payload_source as payload_source
from twisted_beastws.wire.raw import put_frame as put_frame
from twisted_beastws.wire.raw import read_length as read_length
from twisted_beastws.wire.raw import take_bytes as take_bytes
from twisted_beastws.wire.raw import take_part as take_part
from twisted_beastws.wire.raw import take_piece as take_piece
from twisted_beastws.wire.raw import take_text as take_text
from twisted_beastws.wire.raw import text_payload as text_payload

def usual_request(
    buffer: bytearray, max_size: int, max_lines: int, spellings: dict[bytes, bytes]
) -> tuple[str, dict[bytes, list[bytes]], int] | None: ...
