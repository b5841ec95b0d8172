"""Observers: they count the events of a server. The meter and its metrics, and the access log."""
