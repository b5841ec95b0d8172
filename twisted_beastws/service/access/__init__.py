"""Login by signed tokens (JWT): docs/howto/authentication.md."""
