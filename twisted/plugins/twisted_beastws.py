from twisted.application.service import ServiceMaker

beastws = ServiceMaker(
    "twisted_beastws",
    "twisted_beastws.service",
    "A WebSocket chat, or your own WebSocket application.",
    "beastws",
)
