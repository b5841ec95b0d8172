"""Notices for systemd."""
