"""Options: their declarations, the option file, the help dump, changes at run time."""
