"""One WebSocket on one transport: the state, the reading, the writing and the end of a connection.

`Connection` imports neither `twisted_beastws.protocol` nor the server: `interfaces` declares the methods that it calls.
"""
