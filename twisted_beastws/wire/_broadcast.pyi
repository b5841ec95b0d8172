from twisted_beastws.wire.direct import send_at_once as send_at_once
