"""One file per group of paths; the server finds them by folder."""
