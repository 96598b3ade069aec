"""The inside of the process in which snapshots are built and strategies run."""
