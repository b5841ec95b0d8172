"""The chat on two workers with thousands of connections, and a model of a million: docs/topics/scale.md."""
