"""What changes the cloud: one kind of action a file, each with its pre-condition, its post-condition and its undoing."""
