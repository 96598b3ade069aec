"""What an object is, who may see it, how to read it. One file per kind."""
