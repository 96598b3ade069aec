"""Reactions shipped with it. The file name is `use:` in the configuration."""
