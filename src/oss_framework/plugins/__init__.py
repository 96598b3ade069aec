"""A folder, or a file, is a plugin. Those of the operator's own are looked for in `plugins_dir` of oss.conf as well."""
