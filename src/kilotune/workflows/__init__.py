"""What a user asks for, each from its arguments to what is written: one module a command."""
