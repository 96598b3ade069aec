"""Third-party systems that are kept equal to the inventory: one file each, named in the configuration (`type:`)."""
