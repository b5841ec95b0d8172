"""Gates let a request in or answer it: login by `twisted.cred`, and the addresses of trusted proxies."""
