"""What connects out and listens. The file name is the type in the configuration."""
