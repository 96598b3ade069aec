"""Pure advice: what to change in a cloud, and why. A file each, named as Watcher names it."""
