from twisted_beastws.wire.direct import clear_send as clear_send
from twisted_beastws.wire.direct import leave_by as leave_by
