"""What is called over HTTP: one file per format, and the file name is the format in the configuration and in the path."""
