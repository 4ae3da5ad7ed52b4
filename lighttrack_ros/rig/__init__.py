"""Processes around a node: camera, observer, echo; for the demo, the benchmarks and the tests."""
