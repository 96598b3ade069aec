"""Where the log and the inventory are kept. Every store passes testing/store_suite.py."""
