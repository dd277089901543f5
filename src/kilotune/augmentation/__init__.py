"""New training examples out of old ones: operations, filters, and the plan that applies them."""
