"""From a recipe to a better one, one factor at a time: what is tried, by whom, what is kept."""
