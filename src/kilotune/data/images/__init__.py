"""Images as data files refer to them, and as models take them."""
