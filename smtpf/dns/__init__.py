"""Every name of the outside world: resolver, reverse names, mail exchangers, DNS lists, address classes."""
