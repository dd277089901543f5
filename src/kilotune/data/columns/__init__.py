"""Which columns of a file are read, how several become one, and what the others hold."""
