"""Names of concertim-openstack-service's package, for code that imports them. The service itself is Vedette's:
docs/howto/from-concertim-openstack-service.md."""
