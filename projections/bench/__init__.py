"""Benchmarks of the fold, the throughput and the start, as `eventsched bench …`."""
