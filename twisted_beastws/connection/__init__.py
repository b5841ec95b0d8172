"""One WebSocket on one transport: the state, the reading, the writing and the end of a connection.

`Connection` knows neither `twisted_beastws.protocol` nor the server: `interfaces` declares what it asks of them.
"""
