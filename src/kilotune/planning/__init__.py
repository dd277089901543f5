"""What a training would take: counted and estimated before anything of it runs."""
