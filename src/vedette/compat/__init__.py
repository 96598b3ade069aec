"""The faces of the systems that Vedette replaces, on our engine."""
