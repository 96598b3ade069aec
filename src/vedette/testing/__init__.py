"""What we and others test with: fakes, faults, and the suites every plug passes."""
