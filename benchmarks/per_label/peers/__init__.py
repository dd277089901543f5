"""Other tools, as their own documentation uses them. They run in an environment of their own."""
