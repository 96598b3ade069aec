"""HTTP: requests come in, the engine is asked, Kubernetes answers go out."""
