"""This project and its peers, side by side in one run: ``python -m benchmarks`` in the repository's root."""
