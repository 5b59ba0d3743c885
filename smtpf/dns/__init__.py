"""Names of the outside world: the resolver facade, reverse names, MX lists, DNS lists, SPF, address classes, domains."""
